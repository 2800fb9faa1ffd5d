"""The search: every cascade of a grid, tried on the columns of the select part."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moderay.judges.glance import Band
from moderay.tasks.tune.certificate import Counts, Goal, chances, counts
from moderay.tasks.tune.columns import GoldColumns, Outcome, Shape, outcome

# What is tried at most: thresholds, lower and upper edges of a band, and lower cut-offs.
THRESHOLDS, LOWER, UPPER, CUT_OFFS = 64, 60, 8, 8
# Digits of an edge: more than scores are mostly written with, so that none lies on one by chance.
DIGITS = 4
# Cascades that are certified one after the other, at most, and the least chance of one that is
# cheaper than the safest.
SHORT_LIST, LEAST_CHANCE = 5, 0.3
# Chances that differ by less are alike.
ALIKE = 0.02


@dataclass(frozen=True)
class Space:
    """What is tried.

    Attributes:
        own: The job's own cascade, which always is.
        threshold: The policy's, which always is.
        cut_off: Of the job's screen: it and lower ones; None without a screen.
        screened: Efforts at which the screen may stand before the others.
        least_threshold: With a screen, which holds for thresholds from this one on.
        explains: Only cascades that give a rationale to whatever they flag on an engine.
    """

    own: Shape
    threshold: float = 0.5
    cut_off: float | None = None
    screened: Collection[str] = ()
    least_threshold: float = 0.0
    explains: bool = True


@dataclass(frozen=True)
class Candidate:
    """A cascade, and what it did on the select part.

    Attributes:
        shape: All but its threshold.
        threshold: On P(violates).
        found: Counts of contents.
        tokens: A content, on average.
    """

    shape: Shape
    threshold: float
    found: Counts
    tokens: float

    def reaches(self, goal: Goal) -> bool:
        """Whether it reached the goal there, as a figure without an interval."""
        recall, precision = self.found.recall, self.found.precision
        known = recall is not None and precision is not None
        return known and (recall or 0) >= goal.recall and (precision or 0) >= goal.precision


@dataclass(frozen=True)
class Tried:
    """All candidates, as arrays of a row for each shape and a column for each threshold.

    Attributes:
        shapes: Cascades without their thresholds.
        thresholds: Rising.
        violations: Contents that violate.
        fits: Bool: whether a job accepts the pair.
        flagged: int64; 0 where it does not.
        hits: int64: that violate of the flagged.
        tokens: float64, of each shape: a content.
    """

    shapes: Sequence[Shape]
    thresholds: Sequence[float]
    violations: int
    fits: np.ndarray
    flagged: np.ndarray
    hits: np.ndarray
    tokens: np.ndarray

    @property
    def size(self) -> int:
        """Cascades."""
        return int(self.fits.sum())

    @property
    def recall(self) -> np.ndarray:
        """float64."""
        return np.asarray(self.hits / max(self.violations, 1))

    @property
    def precision(self) -> np.ndarray:
        """float64; 0 where nothing is flagged."""
        return np.asarray(self.hits / np.maximum(self.flagged, 1))

    def at(self, shape: int, threshold: int) -> Candidate:
        """One of them."""
        flagged, hits = int(self.flagged[shape, threshold]), int(self.hits[shape, threshold])
        return Candidate(
            self.shapes[shape],
            self.thresholds[threshold],
            Counts(self.violations, flagged, hits),
            float(self.tokens[shape]),
        )


def try_all(columns: GoldColumns, space: Space) -> Tried:
    """Try a grid of cascades on the columns of the select part."""
    shapes = list(dict.fromkeys([space.own, *_shapes(columns, space)]))
    thresholds = sorted({space.threshold, *_thresholds(columns)})
    singles = np.array(thresholds, np.float32)
    fits = np.stack([_may_be(shape, thresholds, space) for shape in shapes])
    flagged, hits = np.zeros(fits.shape, np.int64), np.zeros(fits.shape, np.int64)
    tokens = np.zeros(len(shapes))
    for number, shape in enumerate(shapes):
        found = outcome(columns, shape)
        flagged[number] = _at_or_above(found.probability, singles) * fits[number]
        hits[number] = _at_or_above(found.probability[columns.violates], singles) * fits[number]
        tokens[number] = mean_tokens(found)
    return Tried(shapes, thresholds, int(columns.violates.sum()), fits, flagged, hits, tokens)


def _at_or_above(probability: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many reach each of the thresholds, which rise; NaN reaches none."""
    known = probability[~np.isnan(probability)]
    reached = np.searchsorted(thresholds, known, side="right")
    return np.bincount(reached, minlength=len(thresholds) + 1)[::-1].cumsum()[::-1][1:]


def _may_be(shape: Shape, thresholds: Sequence[float], space: Space) -> np.ndarray:
    """Bool: which thresholds a job accepts with this band and screen."""
    each = np.array(thresholds)
    fits = np.ones(len(each), bool)
    if shape.band is not None:
        above = shape.band.above
        fits &= (each >= (shape.band.below or 0)) & (each <= (1 if above is None else above))
    if shape.cut_off is not None:
        fits &= each >= space.least_threshold
    return fits


def _shapes(columns: GoldColumns, space: Space) -> Iterator[Shape]:
    for effort in columns.reason:
        cut_offs = _cut_offs(columns, space) if effort in space.screened else []
        for band in _bands(columns, effort, space):
            yield from (Shape(effort, cut_off, band) for cut_off in (None, *cut_offs))


def _cut_offs(columns: GoldColumns, space: Space) -> list[float]:
    """The screen's own, and lower ones."""
    if columns.screened is None or space.cut_off is None:
        return []
    settled = columns.screened < np.float32(space.cut_off)
    scores, violating = columns.screened[settled], columns.screened[settled & columns.violates]
    return [*edges(scores, violating, CUT_OFFS), space.cut_off]


def _bands(columns: GoldColumns, effort: str, space: Space) -> Iterator[Band | None]:
    """No glance, bands, and glance alone."""
    yield None
    probability = columns.glance[effort].probability
    lower = edges(probability, probability[columns.violates], LOWER)
    for edge in lower:
        yield Band(edge)
    if space.explains:
        return
    upper = edges(probability, probability[:0], UPPER)
    for below, above in itertools.product([None, *lower[::4]], upper):
        if (below or 0) < above:
            yield Band(below, above)
    yield Band()


def _thresholds(columns: GoldColumns) -> list[float]:
    each = [*columns.glance.values(), *columns.reason.values()]
    probability = np.concatenate([one.probability for one in each])
    violates = np.concatenate([columns.violates for _ in each])
    return edges(probability, probability[violates], THRESHOLDS)


def edges(scores: np.ndarray, violating: np.ndarray, most: int) -> list[float]:
    """Numbers between scores, at most so many, that tell the scores apart best.

    Half of them are spread over all scores. The others lie just below the lowest ones of contents
    that violate: between two of these recall does not change.

    Args:
        scores: Of contents, NaN where there is none.
        violating: Those of them that violate.
        most: Edges.
    """
    distinct = np.unique(scores[~np.isnan(scores)].astype(np.float64))
    if len(distinct) < 2:
        return []
    # The number of an edge is that of the score above it.
    spread = np.linspace(1, len(distinct) - 1, most // 2).round().astype(int)
    lowest = np.unique(violating[~np.isnan(violating)].astype(np.float64))[: most - len(spread)]
    below = np.searchsorted(distinct, lowest)
    places = np.unique(np.concatenate([spread, below[below > 0]]))
    return [decimal_between(distinct[place - 1], distinct[place]) for place in places]


def decimal_between(low: float, high: float) -> float:
    """A number between two others, of as few digits as tell it apart, but `DIGITS` at least."""
    middle = (low + high) / 2
    for digits in range(DIGITS, 17):
        rounded = float(f"{middle:.{digits}g}")
        # Thresholds are compared in single precision.
        if low < np.float32(rounded) <= high and low < rounded < high:
            return rounded
    return high


def best_chances(tried: Tried, violations: int, share: float, goal: Goal) -> np.ndarray:
    """How likely each candidate is certified, 0 where it does not reach the goal itself.

    As if recall and precision had nothing to do with each other.

    Args:
        tried: On the select part.
        violations: Of the certify part.
        share: How many contents that has for each of the select part.
        goal: What is to be certified.
    """
    reaches = (tried.recall >= goal.recall) & (tried.precision >= goal.precision)
    hits, flagged = tried.hits[reaches], tried.flagged[reaches]
    known = np.full(len(hits), tried.violations)
    others = np.full(len(hits), violations)
    result = np.zeros(tried.hits.shape)
    if len(hits):
        expected = np.rint(flagged * share).astype(np.int64)
        result[reaches] = chances(
            known - hits, known, others, goal.recall, goal.confidence
        ) * chances(flagged - hits, flagged, expected, goal.precision, goal.confidence)
    return result


def short_list(tried: Tried, chance: np.ndarray, own: tuple[int, int]) -> list[tuple[int, int]]:
    """Candidates to certify in this order, from the safest to the cheapest.

    Args:
        tried: On the select part.
        chance: As `best_chances`.
        own: The job's own cascade: numbers of its shape and threshold.

    Returns:
        Numbers of their shapes and thresholds; none where no chance is above 0.
    """
    threshold = chance.argmax(axis=1)
    best = chance.max(axis=1)
    # Whatever is dearer must be safer; and a little more safety is not worth a dearer cascade.
    kept = _rising(best, tried.tokens)
    highest = max((best[shape] for shape in kept), default=0.0)
    safest = next((i for i, shape in enumerate(kept) if best[shape] >= highest - ALIKE), 0)
    kept = kept[: safest + 1]
    likely = [shape for shape in kept if best[shape] >= LEAST_CHANCE] or kept[-1:]
    first: list[tuple[int, int]] = []
    if likely and chance[own] >= highest - ALIKE:
        # As safe as any, and not fitted to the select part: where it passes, that much is certain.
        first = [own]
        likely = [shape for shape in likely if tried.tokens[shape] < tried.tokens[own[0]]]
    count = min(SHORT_LIST - len(first), len(likely))
    places = np.linspace(len(likely) - 1, 0, count).round().astype(int)
    return [*first, *[(likely[place], int(threshold[likely[place]])) for place in places]]


def frontier(tried: Tried, precision: float) -> list[Candidate]:
    """Of those that reach a precision, the cheapest for each recall, the cheapest first."""
    recall = np.where((tried.flagged > 0) & (tried.precision >= precision), tried.recall, -1.0)
    threshold = recall.argmax(axis=1)
    best = recall.max(axis=1)
    return [tried.at(at, int(threshold[at])) for at in _rising(best, tried.tokens)]


def _rising(best: np.ndarray, tokens: np.ndarray) -> list[int]:
    """Numbers of those above 0 that are better than all cheaper ones, the cheapest first."""
    order = np.lexsort((-best, tokens))
    before = np.maximum.accumulate(np.concatenate([[0.0], best[order]]))[:-1]
    return [int(at) for at in order[best[order] > before]]


def candidate(columns: GoldColumns, shape: Shape, threshold: float) -> Candidate:
    """One cascade tried on contents."""
    found = outcome(columns, shape)
    return Candidate(
        shape,
        threshold,
        counts(columns.violates, found.violates(threshold)),
        mean_tokens(found),
    )


def mean_tokens(found: Outcome) -> float:
    """Tokens a content; 0 without contents."""
    return float(found.tokens.mean()) if len(found.tokens) else 0.0
