"""Which rows kill the engine: the search for them, as states and pure steps between them.

What the engine held when it died is suspected. Suspects wait until no other row is left to be
judged; then they are tried, in groups of about the square root of their number. The rows of a group
that dies are tried one by one, and a row that dies alone is poison: it is refused from then on.

Each death is some poison row's, and a row kills at most once unsuspected, once in a group and once
alone. So a poison row costs at most three restarts, and a healthy one nothing but time.

`EngineHost` carries it out: it asks `may_run` before a row's turn, and takes a step for each death,
each answer and each row that is through.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

# Deaths one after the other, with nothing answered between them, after which the engine is given
# up: three poison rows, found one by one, are nine.
MOST_DEATHS_IN_A_ROW = 10


@dataclass(frozen=True)
class PoisonSearch:
    """What is known so far. Every step returns the next state and leaves this one as it is.

    Attributes:
        suspects: Rows that may be poison, in the order in which they were suspected; true where the
            row's group died, so that it is tried alone.
        trial: Suspects that may run now, and nobody else may; empty while there is no trial.
        poison: Rows that the engine died of when they ran alone.
        deaths_in_a_row: Deaths, and starts that failed, since the engine last answered.
    """

    suspects: Mapping[str, bool] = field(default_factory=dict)
    trial: frozenset[str] = frozenset()
    poison: frozenset[str] = frozenset()
    deaths_in_a_row: int = 0

    @property
    def hopeless(self) -> bool:
        """Whether the engine is to be given up."""
        return self.deaths_in_a_row >= MOST_DEATHS_IN_A_ROW

    def may_run(self, row: str) -> bool:
        """Whether it is this row's turn. A poison row's always is: to be refused."""
        if row in self.poison:
            return True
        return row in self.trial if self.trial else row not in self.suspects

    def died(self, held: Iterable[str]) -> PoisonSearch:
        """The engine died with these rows in flight."""
        if len(self.trial) == 1:
            suspects = {row: alone for row, alone in self.suspects.items() if row not in self.trial}
            poison = self.poison | self.trial
        elif self.trial:
            suspects = {**self.suspects, **dict.fromkeys(held, True)}
            poison = self.poison
        else:
            suspects = {**self.suspects, **{row: self.suspects.get(row, False) for row in held}}
            poison = self.poison
        return PoisonSearch(suspects, poison=poison, deaths_in_a_row=self.deaths_in_a_row + 1)

    def not_started(self) -> PoisonSearch:
        """The engine could not be built again: nobody's fault, and no answer either."""
        return replace(self, deaths_in_a_row=self.deaths_in_a_row + 1)

    def answered(self) -> PoisonSearch:
        """The engine answered somebody."""
        return replace(self, deaths_in_a_row=0) if self.deaths_in_a_row else self

    def finished(self, row: str) -> PoisonSearch:
        """Nothing is asked for this row any more: it is no longer suspected."""
        if row not in self.suspects:
            return self
        suspects = {suspect: alone for suspect, alone in self.suspects.items() if suspect != row}
        return replace(self, suspects=suspects, trial=self.trial - {row})

    def next_trial(self, unfinished: Collection[str]) -> PoisonSearch:
        """Begin a trial, if none is under way and no other rows are left to be judged."""
        if not self.suspects or self.trial:
            return self
        if any(row not in self.suspects and row not in self.poison for row in unfinished):
            return self
        untried = [row for row, alone in self.suspects.items() if not alone]
        group = untried[: math.ceil(math.sqrt(len(untried)))] or [next(iter(self.suspects))]
        return replace(self, trial=frozenset(group))
