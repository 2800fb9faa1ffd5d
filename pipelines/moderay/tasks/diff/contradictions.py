"""The rows on which the same judges, asked several times, are not of one mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.decision_rule import DecisionRule
from moderay.core.verdicts import CONTENT_HASH, ROW, Origin, structs, trace
from moderay.labels.analysis.diff import NOT_JUDGED, sides
from moderay.labels.analysis.metrics.repeats import Repeats
from moderay.tasks.diff.sample import SampledRows

CONTENT = pa.field("content", pa.string())
# Of a label, how often it was said, and what was said first with it.
SAID = pa.struct(
    [
        ("label", pa.string()),
        ("times", pa.int64()),
        ("probability", pa.float32()),
        ("rationale", pa.string()),
        ("decided_by", pa.string()),
    ]
)
CONTRADICTIONS = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        ROW,
        CONTENT_HASH,
        CONTENT,
        pa.field("said", pa.list_(SAID), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class RepeatedVerdicts:
    """One policy's decisions on the same rows, several times.

    Attributes:
        rule: The policy's.
        decisions: Of each repeat, parallel to the rows.
        sides: int64 (rows, repeats): `SAFE`, `VIOLATING` or `NOT_JUDGED`.
        labels: int64 (rows, repeats): positions among the policy's; any where it is not judged.
        judged: Bool (rows,): those that were judged each time.
        once: Positions of different contents among these: copies are no further evidence.
    """

    rule: DecisionRule
    decisions: Sequence[pa.StructArray]
    sides: np.ndarray
    labels: np.ndarray
    judged: np.ndarray
    once: np.ndarray

    @classmethod
    def of(cls, rule: DecisionRule, tables: Sequence[pa.Table]) -> RepeatedVerdicts:
        """From judged rows, a table for each repeat."""
        decisions = [structs(table.column(rule.policy)) for table in tables]
        said = np.stack([sides(each) for each in decisions], axis=1).astype(np.int64)
        judged = (said != NOT_JUDGED).all(axis=1)
        hashes = structs(tables[0].column(CONTENT_HASH.name)).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(judged)
        first = np.unique(hashes[rows].astype(str), return_index=True)[1]
        return cls(rule, decisions, said, _labels(decisions, rule), judged, np.sort(rows[first]))

    @property
    def kept(self) -> int:
        """Rows whose first verdict was there already."""
        origin = trace(self.decisions[0], "origin")
        return int(pc.sum(pc.equal(origin, Origin.REUSED.value)).as_py() or 0)

    def of_sides(self, rows: np.ndarray) -> Repeats:
        """How often these rows, judged each time, are not on the same side."""
        return Repeats.of(self.sides[rows], 2)

    def of_labels(self, rows: np.ndarray) -> Repeats:
        """How often these rows have not the same label."""
        return Repeats.of(self.labels[rows], len(self.rule.labels))

    def shown(self, sample: SampledRows, text: Callable[[int], str], show: int) -> pa.Table:
        """The contents that divide it most, of `CONTRADICTIONS`.

        Args:
            sample: The rows.
            text: Of the row at a position.
            show: Rows, at most.
        """
        of_labels = self.of_labels(self.once).pairs
        order = np.lexsort((-of_labels, -self.of_sides(self.once).pairs))
        rows = self.once[order[: min(show, int((of_labels > 0).sum()))]]
        files, at = sample.files, sample.rows.select([ROW.name, CONTENT_HASH.name])
        found = [
            {
                "policy": self.rule.policy,
                "file": files[row],
                **at.slice(row, 1).to_pylist()[0],
                "content": text(row),
                "said": self._said(row),
            }
            for row in rows.tolist()
        ]
        return pa.Table.from_pylist(found, schema=CONTRADICTIONS)

    def _said(self, row: int) -> list[dict[str, Any]]:
        verdicts = [each[row].as_py() for each in self.decisions]
        first = {verdict["label"]: verdict for verdict in reversed(verdicts)}
        return [
            {
                "label": label,
                "times": times,
                "probability": first[label]["probability"],
                "rationale": first[label]["rationale"],
                "decided_by": first[label]["trace"]["decided_by"],
            }
            for label, times in Counter(verdict["label"] for verdict in verdicts).most_common()
        ]


def _labels(decisions: Sequence[pa.StructArray], rule: DecisionRule) -> np.ndarray:
    known = pa.array(rule.labels, pa.string())
    columns = [pc.index_in(each.field("label"), known).fill_null(-1) for each in decisions]
    return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
