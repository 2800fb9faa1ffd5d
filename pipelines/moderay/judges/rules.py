"""Rules: what a policy settles without a model.

They stand in `rules.yaml` beside `policy.md`; the first rule that holds counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from moderay.config.policy import Policy
from moderay.core.hashing import digest
from moderay.core.verdicts import VERDICTS, Origin, Status, Verdict
from moderay.corpus.where import where_columns
from moderay.judges.literals import Literals, lowered

if TYPE_CHECKING:
    import polars as pl

# Longer lists stand in the manifest by their hash and number.
IN_MANIFEST = 100


@dataclass(frozen=True)
class Rule:
    """Conditions that must all hold, at least one, and what follows.

    Attributes:
        id: Its name, the rationale of the rows that it settles.
        label: What it answers; None where it passes on.
        line: Where it stands in its file, from 1.
        literals: Texts of which the content must hold one.
        pattern: Rust's regular expression, found anywhere in the content as it stands.
        shorter_than: Characters, of which the content must have fewer.
        where: Polars SQL over input columns; null is no.
    """

    id: str
    label: str | None
    line: int = 0
    literals: Literals | None = None
    pattern: str | None = None
    shorter_than: int | None = None
    where: str | None = None

    def identity(self) -> dict[str, object]:
        """Everything that can change what it says."""
        parts: dict[str, object] = {
            "id": self.id,
            "label": self.label,
            "pattern": self.pattern,
            "shorter_than": self.shorter_than,
            "where": self.where,
        }
        if (literals := self.literals) is not None:
            texts: object = list(literals.texts)
            if len(literals.texts) > IN_MANIFEST:
                texts = {"count": len(literals.texts), "hash": literals.key}
            parts |= {"any_of": texts, "words": literals.words}
        return {
            name: value for name, value in parts.items() if value is not None or name == "label"
        }

    @property
    def outcome(self) -> str:
        """What follows, in words."""
        return "passes on" if self.label is None else f"answers {self.label}"


@dataclass(frozen=True)
class Rules:
    """A policy's rules; picklable.

    Attributes:
        policy: Whose labels they answer.
        file: Where they stand, for problems.
        rules: In the order in which they count.
    """

    policy: Policy
    file: str
    rules: tuple[Rule, ...]

    @property
    def name(self) -> str:
        """What `decided_by` calls it."""
        return "rules"

    def identity(self) -> dict[str, object]:
        """Everything that can change a verdict: the order of rules and of labels included."""
        labels = [[name, label.violates] for name, label in self.policy.labels.items()]
        return {"labels": labels, "rules": [rule.identity() for rule in self.rules]}

    @cached_property
    def key(self) -> str:
        """Its judge key."""
        return digest(self.identity())

    @property
    def columns(self) -> tuple[str, ...]:
        """Input columns that the rules' `where` read."""
        return tuple(
            dict.fromkeys(name for rule in self.rules for name in where_columns(rule.where))
        )

    def settle(self, texts: pa.Array, table: pa.Table) -> pa.StructArray:
        """The verdicts of rules.

        Args:
            texts: string, the contents as the model reads them; a row where it is null or empty is
                never settled.
            table: The input's `columns`, row for row.

        Returns:
            Structs of `verdicts.VERDICT`, null where no rule settles; `run` is left null.
        """
        rows = _RuleRows(texts, table)
        first = np.full(len(texts), -1, np.int32)
        undecided = rows.lengths > 0
        for number, rule in enumerate(self.rules):
            held = rows.where_holds(rule, np.flatnonzero(undecided))
            undecided[held] = False
            if rule.label is not None:
                first[held] = number
        return self._verdicts.take(pa.array(first, mask=first < 0))

    @cached_property
    def _verdicts(self) -> pa.StructArray:
        """By rule.

        That of a rule that passes on is never taken: the fields below a null made here would not be
        null.
        """
        return pa.array(
            [
                None if rule.label is None else self._verdict(rule.id, rule.label)._asdict()
                for rule in self.rules
            ],
            VERDICTS,
        )

    def _verdict(self, rule: str, label: str) -> Verdict:
        scores = [float(name == label) for name in self.policy.label_names]
        return Verdict(
            Status.OK,
            scores,
            rationale=rule,
            answer=label,
            decided_by=self.name,
            origin=Origin.JUDGED,
        )


@dataclass(frozen=True)
class _RuleRows:
    """Contents beside their input columns, and what several rules need of them.

    Attributes:
        texts: string; null where there is no content.
        table: The input's columns, row for row.
    """

    texts: pa.Array
    table: pa.Table

    @cached_property
    def series(self) -> pl.Series:
        """The texts as Polars has them, empty for null."""
        import polars as pl  # noqa: PLC0415  late: most jobs have no rules

        return pl.Series(self.texts, dtype=pl.String).fill_null("")

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each text."""
        return self.series.str.len_chars().to_numpy()

    @cached_property
    def lowered(self) -> list[str]:
        """The texts as literals are looked for in them."""
        return [lowered(text) for text in self.series.to_list()]

    def where_holds(self, rule: Rule, rows: np.ndarray) -> np.ndarray:
        """Those of `rows` for which every condition holds; the cheap ones are looked at first."""
        if rule.shorter_than is not None:
            rows = rows[self.lengths[rows] < rule.shorter_than]
        if rule.where is not None:
            from moderay.core.sql.row_expression import row_expression  # noqa: PLC0415  late: Polars

            holds = row_expression(rule.where).values(self.table).fill_null(False).to_numpy()
            rows = rows[holds[rows]]
        if rule.pattern is not None:
            rows = rows[self.series.gather(rows).str.contains(rule.pattern).to_numpy()]
        if rule.literals is not None:
            rows = rows[rule.literals.occur_in([self.lowered[row] for row in rows.tolist()])]
        return rows
