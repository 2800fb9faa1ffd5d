"""Strata of label rows by what the model says: kept or removed, and by P(violates).

What is kept and what is removed is cut where the cumulated square root of P(1-P) reaches equal
parts, so that the strata are fine where the model is unsure (Dalenius and Hodges). Cuts lie at the
edges of the 1,000 bins that markers count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from moderay.labels.shard_profile import BINS

# Strata of what is kept, and of what is removed.
KEPT, REMOVED = 4, 2

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Strata:
    """Kept rows first, then removed ones, each by P from low to high.

    Attributes:
        kept: bins in which the second and later strata of kept rows begin, rising.
        removed: likewise of removed rows.
    """

    kept: tuple[int, ...]
    removed: tuple[int, ...]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.kept) + len(self.removed) + 2

    @property
    def is_removed(self) -> Bools:
        """Which of them are of removed rows: (strata,)."""
        return np.arange(len(self)) > len(self.kept)

    def edges(self, threshold: float) -> list[tuple[float, float]]:
        """From which P to which each of them goes, where the threshold parts the sides."""
        kept = [0.0, *(cut / BINS for cut in self.kept), threshold]
        removed = [threshold, *(cut / BINS for cut in self.removed), 1.0]
        return [*pairwise(kept), *pairwise(removed)]

    def of(self, probability: Floats, removed: Bools) -> Counts:
        """The stratum of each row.

        Args:
            probability: P(violates) of the model; NaN where it gave none: among kept rows that
                counts as 0, among removed ones as 1.
            removed: whether the model's verdict violates.
        """
        bins = bins_of(np.where(np.isnan(probability), removed.astype(float), probability))
        kept = np.searchsorted(self.kept, bins, side="right")
        gone = np.searchsorted(self.removed, bins, side="right") + len(self.kept) + 1
        return np.where(removed, gone, kept).astype(np.int64)


def bins_of(probability: Floats) -> Counts:
    """The bin of each P, as in the markers' histograms."""
    return np.asarray(np.minimum((probability * BINS).astype(np.int64), BINS - 1))


def histogram_counts(histogram: Mapping[int, int]) -> Counts:
    """A marker's histogram as one count a bin."""
    counts = np.zeros(BINS, np.int64)
    counts[list(histogram)] = list(histogram.values())
    return counts


def uncertainty(probability: Floats) -> Floats:
    """The square root of P(1-P): how much a review of such a row varies, if P is right."""
    return np.sqrt(probability * (1 - probability))


def midpoints() -> Floats:
    """P in the middle of each bin."""
    return (np.arange(BINS) + 0.5) / BINS


def strata_of(
    counts: npt.ArrayLike, threshold: float, kept: int = KEPT, removed: int = REMOVED
) -> Strata:
    """Strata for rows of these P.

    Args:
        counts: rows by bin: (bins,).
        threshold: from which P on rows are removed.
        kept: strata of kept rows, at most.
        removed: strata of removed rows, at most.
    """
    mass = np.asarray(counts, np.float64) * uncertainty(midpoints())
    # The bin in which the threshold lies has rows of both sides.
    low, high = int(np.floor(threshold * BINS + 1e-9)), int(np.ceil(threshold * BINS - 1e-9))
    return Strata(_cuts(mass[:high], 0, kept), _cuts(mass[low:], low, removed))


def _cuts(mass: Floats, first: int, parts: int) -> tuple[int, ...]:
    """Bins in which the second and later parts of about equal mass begin."""
    total = np.cumsum(mass)
    if not len(total) or total[-1] <= 0:
        return ()
    goals = total[-1] * np.arange(1, parts) / parts
    cuts = np.unique(np.searchsorted(total, goals * (1 - 1e-12)) + 1)
    # A part that would hold no row is none.
    filled = [int(cut) for cut in cuts if mass[cut:].any()]
    return tuple(first + cut for cut in filled)
