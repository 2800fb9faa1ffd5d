"""Rows of one policy with what the cascade said and what people said, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.verdicts import trace
from moderay.tasks.gold import UNKNOWN, GoldAnswers

# Who decides, in order of cost.
JUDGES = ("rules", "screen", "glance", "reason", "human")


@dataclass(frozen=True)
class JudgedRows:
    """Rows of one policy; each array is as long as there are rows.

    Attributes:
        violates: int8: 1, 0, or `UNKNOWN` where there is no verdict.
        label: int16: position among the policy's labels, or `UNKNOWN`.
        probability: float32: P(violates); NaN where none was given.
        judge: int8: who decided, a position in `JUDGES`, or `UNKNOWN`.
        half: bool: in which half a row lies, by its content: one in which a threshold is chosen,
            one in which it is tried.
        gold: int8: what people said, as `violates`.
        gold_label: int16: the same, as `label`.
        weight: float64: for how many rows each one stands.
    """

    violates: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    judge: np.ndarray
    half: np.ndarray
    gold: np.ndarray
    gold_label: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        """Rows."""
        return int(self.violates.size)

    @classmethod
    def empty(cls) -> JudgedRows:
        """No row."""
        return cls(*[np.empty(0, dtype) for dtype in _DTYPES])

    def at(self, rows: np.ndarray) -> JudgedRows:
        """Those rows: positions, or a mask."""
        return JudgedRows(*[getattr(self, field.name)[rows] for field in fields(self)])

    @property
    def is_known(self) -> np.ndarray:
        """Bool: where people said something."""
        return np.asarray(self.gold != UNKNOWN)


_DTYPES = (np.int8, np.int16, np.float32, np.int8, np.bool_, np.int8, np.int16, np.float64)


def judged_rows(
    decisions: pa.StructArray,
    hashes: pa.Array,
    labels: Sequence[str],
    gold: GoldAnswers,
) -> JudgedRows:
    """Decisions beside what people said.

    Args:
        decisions: Of `verdicts.decision_type`, or with `violates`, `label`, `probability` and
            `trace.decided_by` of it at least.
        hashes: Of the contents.
        labels: The policy's.
        gold: What people said of these rows.
    """
    violates = decisions.field("violates").cast(pa.int8()).fill_null(UNKNOWN)
    return JudgedRows(
        violates.to_numpy(zero_copy_only=False),
        _positions(decisions.field("label"), labels).astype(np.int16),
        decisions.field("probability").to_numpy(zero_copy_only=False),
        _positions(trace(decisions, "decided_by"), JUDGES).astype(np.int8),
        _halves(hashes),
        gold.violates,
        gold.label,
        np.ones(len(decisions)) if gold.weights is None else gold.weights,
    )


def _positions(values: pa.Array, names: Sequence[str]) -> np.ndarray:
    found = pc.index_in(values, pa.array(names, pa.string())).fill_null(UNKNOWN)
    return np.asarray(found.to_numpy(zero_copy_only=False))


def _halves(hashes: pa.Array) -> np.ndarray:
    """By the last digit of the content's hash, so that equal contents lie in one half."""
    last = pc.utf8_slice_codeunits(hashes, -1).fill_null("0")
    upper = pc.is_in(last, pa.array(list("89abcdef")))
    return np.asarray(upper.to_numpy(zero_copy_only=False))
