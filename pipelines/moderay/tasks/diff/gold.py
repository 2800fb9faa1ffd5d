"""What people said, in columns that an output carries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from moderay.config.sections.gold import Gold
from moderay.core.errors import UserError, nearest
from moderay.labels.analysis.diff import NOT_JUDGED
from moderay.tasks.diff.pairs import Output
from moderay.tasks.gold import UNKNOWN, column_answers


def gold_columns(asked: Sequence[str], policies: Sequence[str]) -> dict[str, str]:
    """Columns by policy.

    Args:
        asked: Each `policy=column`, or a column alone.
        policies: That are compared.

    Raises:
        UserError: It is not known which policy a column is of, or it is compared with none.
    """
    found = {}
    for text in asked:
        policy, is_named, column = text.partition("=")
        if not is_named and len(policies) > 1:
            raise UserError(
                f"--gold {text}: of which policy: --gold {policies[0]}={text}, or of "
                f"{', '.join(policies[1:])}"
            )
        if is_named and policy not in policies:
            raise UserError(f"--gold {text}: no policy {policy!r}: {nearest(policy, policies)}")
        found[policy if is_named else policies[0]] = column if is_named else text
    return found


class GoldColumn:
    """A column that output a carries, in which people said what one policy is about."""

    def __init__(self, a: Output, policy: str, column: str) -> None:
        """Where output a's manifest is gone, what labels mean is not known, and none is read."""
        self._labels = _labels(a, policy)
        self._gold = Gold(column=column)
        self._people: int | None = None

    def sides(self, rows: pa.Table) -> np.ndarray:
        """int8: whether people say that a row violates, `NOT_JUDGED` where they say nothing.

        Of several people's votes the majority counts.

        Args:
            rows: The next of output a.

        Raises:
            UserError: The column says what has no meaning, or rows have votes of different numbers
                of people.
        """
        named = f"--gold {self._gold.column}"
        answers = column_answers(rows.column(self._gold.column), self._labels, self._gold, named)
        people = 0 if answers.votes is None else answers.votes.shape[1]
        if people and self._people not in (None, people):
            raise UserError(f"{named} has rows of {self._people} and of {people} votes")
        self._people = people or self._people
        return np.where(answers.violates == UNKNOWN, NOT_JUDGED, answers.violates)


def _labels(a: Output, policy: str) -> dict[str, bool]:
    """Whether each of a policy's labels violates, as the judges were told."""
    record = None if a.manifest is None else a.manifest.policies.get(policy)
    told = [judge.labels for judge in record.cascade if judge.labels] if record else []
    return dict(told[-1]) if told else {}
