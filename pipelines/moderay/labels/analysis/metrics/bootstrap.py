"""The Bayesian bootstrap of small tables, for figures that have no exact interval."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moderay.labels.analysis.metrics.confusion import Floats, Ints

DRAWS = 2_000


def bootstrap(
    counts: Ints,
    prior: Floats,
    figure: Callable[[Floats], Floats],
    confidence: float,
    seed: int,
) -> tuple[float, float, float] | None:
    """A figure of a table, with the percentiles of its draws.

    A draw gives each cell a random share of all rows (https://doi.org/10.1214/aos/1176345338),
    instead of drawing rows. So a cell can have a share although no row is in it yet. However often
    30 rows that agree are drawn, they agree: at 40 to 200 rows, percentiles of drawn rows covered
    5% to 94% of planted differences where 95% were promised.

    Args:
        counts: (cells,), rows.
        prior: (cells,), rows that each cell is given beforehand, for the draws alone.
        figure: from (draws, cells) to (draws,); NaN where it is undefined.
        confidence: of the interval.
        seed: of the draws.

    Returns:
        The figure and the ends of an interval that it lies in. None where it is undefined.
    """
    value = float(figure(counts[None].astype(np.float64))[0])
    if np.isnan(value):
        return None
    rng = np.random.default_rng(seed)
    draws = rng.standard_gamma(counts + prior, size=(DRAWS, len(counts)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(figure(draws), [tail, 1 - tail]).tolist()
    return value, min(low, value), max(high, value)
