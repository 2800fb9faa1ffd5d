"""What reviews drawn in strata say of a share: its estimate, and an interval that holds.

Each end of the interval is that of Clopper and Pearson, for a sum: in every stratum the share of
hits is taken to be distributed as Beta(hits, misses), and in the one stratum where it matters most
as if one more review had been a hit (for the upper end) or a miss (for the lower one). The
weighted sum of these is matched by a Beta of the same mean and variance, which stretches from the
least to the most that the sum can be: strata without a hit add nothing to it, strata of hits alone
all of theirs. It follows Fay and Feuer, who do so with gamma distributions for sums of Poisson
counts (https://doi.org/10.1002/(SICI)1097-0258(19970415)16:7%3C791::AID-SIM500%3E3.0.CO;2-%23).
With one stratum it is the interval of Clopper and Pearson.

All functions take any number of samples of the same strata at once: arrays (..., strata).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class StratumHits:
    """Reviews in strata, and how many of them found a violation.

    Attributes:
        weights: shares of the rows, which add up to 1: (strata,).
        reviews: in each stratum, above 0: (strata,).
        hits: reviews that found a violation; for an expectation, not whole: (..., strata).
        whole: strata of which every row was reviewed: of these nothing is left to chance.
    """

    weights: Floats
    reviews: Floats
    hits: Floats
    whole: Bools

    @staticmethod
    def of(
        rows: npt.ArrayLike, reviews: npt.ArrayLike, hits: npt.ArrayLike, drawn: bool = False
    ) -> StratumHits:
        """From counts.

        Args:
            rows: of each stratum: (strata,).
            reviews: of each stratum: (strata,).
            hits: of each stratum: (..., strata).
            drawn: whether rows were drawn with replacement: no stratum is then reviewed in whole.

        Raises:
            ValueError: a stratum has no rows or no reviews, or more hits than reviews.
        """
        sizes, n, k = (np.asarray(each, np.float64) for each in (rows, reviews, hits))
        if not len(sizes) or (sizes <= 0).any() or (n <= 0).any():
            raise ValueError("each stratum needs rows and reviews")
        if (k < 0).any() or (k > n).any():
            raise ValueError("hits are among the reviews")
        whole = np.zeros(len(sizes), bool) if drawn else n >= sizes
        return StratumHits(sizes / sizes.sum(), n, k, whole)

    @property
    def share(self) -> Floats:
        """The stratified mean: (...)."""
        return np.asarray((self.hits / self.reviews) @ self.weights)

    @property
    def variance(self) -> Floats:
        """Of the stratified mean, as these reviews have it: (...)."""
        shares = self.hits / self.reviews
        spread = shares * (1 - shares) / self.reviews
        return np.asarray(np.where(self.whole, 0.0, spread) @ self.weights**2)

    @property
    def effective_size(self) -> Floats:
        """Reviews drawn from all rows alike that would say as much: (...).

        Where no stratum varies the sample does not tell, and it is the number of reviews.
        """
        share, variance = self.share, self.variance
        with np.errstate(divide="ignore", invalid="ignore"):
            size = share * (1 - share) / variance
        return np.where(variance > 0, size, self.reviews.sum())


def stratified_interval(sample: StratumHits, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """The two ends of the interval of a share: each (...)."""
    tail = (1 - confidence) / 2
    low = _end(sample, tail, more=False)
    high = _end(sample, 1 - tail, more=True)
    return low, high


def _end(sample: StratumHits, quantile: float, more: bool) -> Floats:
    """One end: of the sum with one more hit (`more`) or miss."""
    n, k, weights, whole = sample.reviews, sample.hits, sample.weights, sample.whole
    mean, spread = k / n, np.where(whole, 0.0, (k / n) * (1 - k / n) / (n + 1))
    mean_1 = (k + more) / (n + 1)
    spread_1 = mean_1 * (1 - mean_1) / (n + 2)
    step = np.where(whole, 0.0, weights * np.abs(mean_1 - mean))
    # Where rows are dealt in proportion, steps differ by rounding alone: then by what varies more.
    largest = step >= step.max(axis=-1, keepdims=True) * (1 - 1e-9)
    varies = np.where(largest, weights**2 * spread_1, -1.0)
    chosen = (np.arange(len(weights)) == varies.argmax(axis=-1)[..., None]) & (step > 0)
    mean, spread = np.where(chosen, mean_1, mean), np.where(chosen, spread_1, spread)
    least, most = _support(sample, chosen, more)
    return _beta_quantile(mean @ weights, spread @ weights**2, least, most, quantile)


def _support(sample: StratumHits, chosen: Bools, more: bool) -> tuple[Floats, Floats]:
    """The least and the most that the sum can be."""
    shares = sample.hits / sample.reviews
    is_one = (sample.hits >= sample.reviews) & ~(chosen & (not more))
    is_zero = (sample.hits <= 0) & ~(chosen & more)
    least = np.where(sample.whole, shares, np.where(is_one, 1.0, 0.0)) @ sample.weights
    most = np.where(sample.whole, shares, np.where(is_zero, 0.0, 1.0)) @ sample.weights
    return np.asarray(least), np.asarray(most)


def _beta_quantile(
    mean: Floats, variance: Floats, least: Floats, most: Floats, quantile: float
) -> Floats:
    """Of the Beta on [least, most] with this mean and variance; the mean where there is none."""
    from scipy.special import betaincinv  # noqa: PLC0415  late

    span = most - least
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (mean - least) / span
        size = inner * (1 - inner) * span**2 / variance - 1
        a, b = inner * size, (1 - inner) * size
        found = least + span * betaincinv(a, b, quantile)
    return np.clip(np.where((variance > 0) & (span > 0), found, mean), 0.0, 1.0)
