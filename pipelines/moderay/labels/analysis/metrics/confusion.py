"""Tables of what gold says against what a judge said, and the figures that follow from them.

Rows without a verdict are in no table: a judge that is silent is neither right nor wrong, and how
many those are is counted beside these, by what gold says of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Of a binary table, in the order in which people read them.
Figure: TypeAlias = Literal[
    "precision",
    "recall",
    "f1",
    "false_positive_rate",
    "balanced_accuracy",
    "accuracy",
    "kappa",
]
FIGURES: tuple[Figure, ...] = get_args(Figure)

# One table, or an array for each cell of many.
Cells = TypeVar("Cells", float, Floats)


def ratio(figure: Figure, tp: Cells, fp: Cells, fn: Cells, tn: Cells) -> tuple[Cells, Cells]:
    """A figure as numerator and denominator; it is undefined where the latter is 0."""
    ratios: dict[Figure, tuple[Cells, Cells]] = {
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "f1": (2 * tp, 2 * tp + fp + fn),
        "false_positive_rate": (fp, fp + tn),
        "balanced_accuracy": (tp * (fp + tn) + tn * (tp + fn), 2 * (tp + fn) * (fp + tn)),
        "accuracy": (tp + tn, tp + fp + fn + tn),
        "kappa": (2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)),
    }
    return ratios[figure]


@dataclass(frozen=True)
class Binary:
    """Rows by whether they violate, and whether the judge says so.

    Each figure is None where it is undefined, never 0 or NaN: what is not there was not missed.

    Attributes:
        tp: rows that violate, and are said to. Sums of weights where rows have weights.
        fp: rows that are safe, and are said to violate.
        fn: rows that violate, and are said to be safe.
        tn: rows that are safe, and are said to be.
    """

    tp: float = 0
    fp: float = 0
    fn: float = 0
    tn: float = 0

    @classmethod
    def of(cls, gold: Bools, said: Bools, weights: Floats | None = None) -> Binary:
        """Count rows.

        Args:
            gold: (rows,), whether each violates.
            said: (rows,), whether the judge says so.
            weights: (rows,), what each row counts for; 1 by default.
        """
        cells = np.asarray(gold, dtype=np.int64) * 2 + np.asarray(said, dtype=np.int64)
        tn, fp, fn, tp = np.bincount(cells, weights, minlength=4).tolist()
        return cls(tp, fp, fn, tn)

    def __add__(self, other: Binary) -> Binary:
        """The rows of both."""
        return Binary(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def rows(self) -> float:
        """How many rows are in the table."""
        return self.tp + self.fp + self.fn + self.tn

    def figure(self, name: Figure) -> float | None:
        """The figure of this name."""
        part, whole = ratio(name, self.tp, self.fp, self.fn, self.tn)
        return part / whole if whole else None

    @property
    def precision(self) -> float | None:
        """Share that violates of what is said to; None where nothing is."""
        return self.figure("precision")

    @property
    def recall(self) -> float | None:
        """Share that is found of what violates; None where nothing does."""
        return self.figure("recall")

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where nothing violates, nor is said to."""
        return self.figure("f1")

    @property
    def false_positive_rate(self) -> float | None:
        """Share that is said to violate of what is safe; None where nothing is safe."""
        return self.figure("false_positive_rate")

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the shares found on both sides; None where gold has one side only."""
        return self.figure("balanced_accuracy")

    @property
    def accuracy(self) -> float | None:
        """Share that the judge is right about; None without rows."""
        return self.figure("accuracy")

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa; None where both put every row on one and the same side, or without rows.

        https://doi.org/10.1177/001316446002000104
        """
        return self.figure("kappa")


@dataclass(frozen=True, eq=False)
class Confusion:
    """Rows by the label that gold has, and the label that the judge gives.

    Attributes:
        labels: names, mildest first where they are graded.
        counts: int64 (labels, labels), rows; [i, j] has label i in gold and j from the judge.
    """

    labels: tuple[str, ...]
    counts: Ints

    @classmethod
    def of(cls, gold: Ints, said: Ints, labels: Sequence[str]) -> Confusion:
        """Count rows.

        Args:
            gold: (rows,), indices into `labels`.
            said: (rows,), indices into `labels`.
            labels: names.

        Raises:
            ValueError: an index that is none.
        """
        size = len(labels)
        for index in (gold, said):
            if len(index) and not (index.min() >= 0 and index.max() < size):
                raise ValueError(f"labels must be indices from 0 to {size - 1}")
        cells = np.bincount(np.asarray(gold, np.int64) * size + said, minlength=size * size)
        return cls(tuple(labels), cells.reshape(size, size).astype(np.int64))

    def __add__(self, other: Confusion) -> Confusion:
        """The rows of both.

        Raises:
            ValueError: their labels differ.
        """
        if self.labels != other.labels:
            raise ValueError(f"tables of labels {self.labels} and {other.labels} have no sum")
        return Confusion(self.labels, self.counts + other.counts)

    @property
    def rows(self) -> int:
        """How many rows are in the table."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of rows with the very label of gold; None without rows."""
        return float(np.trace(self.counts)) / self.rows if self.rows else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, every confusion equally bad; None where one label has all of both."""
        value = float(kappa_of(self.counts))
        return None if np.isnan(value) else value

    def at(self, cut: str) -> Binary:
        """The table for "this label and above": rows at `cut` or graver count as violating.

        Raises:
            ValueError: there is no such label.
        """
        if cut not in self.labels:
            raise ValueError(f"{cut!r} is none of the labels {', '.join(self.labels)}")
        k = self.labels.index(cut)
        return Binary(
            tp=int(self.counts[k:, k:].sum()),
            fp=int(self.counts[:k, k:].sum()),
            fn=int(self.counts[k:, :k].sum()),
            tn=int(self.counts[:k, :k].sum()),
        )


def kappa_of(counts: npt.NDArray[np.int64] | Floats) -> Floats:
    """Cohen's kappa of tables (..., labels, labels): (...,), NaN where it is undefined."""
    counts = counts.astype(np.float64)
    rows = counts.sum(axis=(-2, -1))
    agreed = np.trace(counts, axis1=-2, axis2=-1) * rows
    by_chance = (counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1)
    undefined = by_chance == rows**2
    span = np.where(undefined, 1.0, rows**2 - by_chance)
    return np.where(undefined, np.nan, (agreed - by_chance) / span)
