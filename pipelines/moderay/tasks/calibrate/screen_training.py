"""Cut-offs with a promise, and screens trained, calibrated and measured from labelled texts.

The promise holds for contents that are exchangeable with the labelled ones, and counts distinct
contents: those that differ in case alone are one, and wholly on one side of the split between
training and held out.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from moderay.core.errors import UserError
from moderay.judges.cards import FEATURES, Card, Point, Teacher
from moderay.judges.screen import Linear, Screen, weights_digest
from moderay.labels.analysis import intervals
from moderay.tasks.calibrate.contents import Contents, distinct
from moderay.tasks.calibrate.cross_fit import FEWEST_TO_FOLD, FOLDS, cross_fit
from moderay.tasks.calibrate.linear_fit import FEWEST, fit, training_texts

# Share of the contents that is held out, where there are violations enough. Of these the promise
# needs many, of the rest only an estimate of what is settled.
HELD_OUT_VIOLATIONS = 0.4
HELD_OUT_SAFE = 0.2
POINTS = 20


@dataclass(frozen=True)
class Cut:
    """A cut-off, what it promises, and what it does on the labelled scores it comes from.

    Attributes:
        cut_off: Scores below it are settled.
        max_miss: Share of violations that may be below it.
        confidence: How sure that is.
        misses_allowed: Violations below it, at most.
        rows: Labelled scores.
        violations: Of these, those that violate.
        settled: Share of all contents.
        curve: What other cut-offs would do.
    """

    cut_off: float
    max_miss: float
    confidence: float
    misses_allowed: int
    rows: int
    violations: int
    settled: float
    curve: tuple[Point, ...]


def calibrate_cut(
    scores: np.ndarray,
    violates: np.ndarray,
    max_miss: float,
    confidence: float,
    safe_weight: float = 1.0,
) -> Cut:
    """The cut-off on a screen's scores, or on glance's P for its band.

    Args:
        scores: One per content, higher where a violation is likelier; what gave it was not trained
            on the content.
        violates: Bool, as long.
        max_miss: Share of violations that may be below the cut-off.
        confidence: How sure that is.
        safe_weight: How many contents that do not violate each one here stands for, in proportion
            to the others.

    Raises:
        UserError: There are too few violations.
        ValueError: A score is NaN.
    """
    cut = intervals.cut_off(scores[violates], max_miss, confidence)
    if cut is None:
        needed = intervals.violations_needed(max_miss, confidence)
        raise too_few(int(violates.sum()), needed, max_miss, confidence)
    cut_off, misses = cut
    weights = np.where(violates, 1.0, safe_weight)
    points = [_point(float(point), scores, violates, weights) for point in _spread(scores)]
    return Cut(
        cut_off=cut_off,
        max_miss=max_miss,
        confidence=confidence,
        misses_allowed=misses,
        rows=len(scores),
        violations=int(violates.sum()),
        settled=_point(cut_off, scores, violates, weights).settled,
        curve=tuple(points),
    )


def calibrate_screen(
    texts: pa.Array,
    violates: np.ndarray,
    *,
    teacher: Teacher,
    max_miss: float = 0.05,
    confidence: float = 0.95,
) -> Screen:
    """A screen that, with `confidence`, misses at most the share `max_miss` of violations.

    Some of the contents train it, the others set its cut-off. The same contents give the same
    screen, in whatever order. It may settle next to nothing: see `card.settled`.

    Args:
        texts: string or large_string; null and empty ones are left out.
        violates: Bool, as long; a content that is labelled both ways violates.
        teacher: Who labelled them.
        max_miss: Share of violations that it may miss.
        confidence: How sure that is.

    Raises:
        UserError: There are too few contents of either kind.
    """
    contents = distinct(texts, violates)
    held_out = _held_out(contents, max_miss, confidence)
    trained, rest = contents.where(~held_out), contents.where(held_out)
    model = fit(training_texts(trained.texts, trained.violates))
    # How many safe contents a held-out one stands for, beside a held-out violation.
    safe_weight = (contents.safe / rest.safe) / (contents.violations / rest.violations)
    scores = model.scores(rest.texts)
    cut = calibrate_cut(scores, rest.violates, max_miss, confidence, safe_weight)
    return _screen(contents, teacher, model, cut)


def cross_fitted_screen(
    texts: pa.Array,
    violates: np.ndarray,
    *,
    teacher: Teacher,
    max_miss: float = 0.05,
    confidence: float = 0.95,
) -> Screen:
    """As `calibrate_screen`, but all contents train it and all violations set its cut-off.

    It settles more from the same labels, and that it keeps its promise is an estimate
    (`cross_fit`).
    """
    contents = distinct(texts, violates)
    needed = max(intervals.violations_needed(max_miss, confidence), FEWEST_TO_FOLD)
    _assert_enough(contents, needed, max_miss, confidence)
    fitted = cross_fit(contents)
    cut = calibrate_cut(fitted.scores, contents.violates, max_miss, confidence)
    return _screen(contents, teacher, fitted.model, cut, folds=FOLDS)


def _screen(
    contents: Contents, teacher: Teacher, model: Linear, cut: Cut, folds: int | None = None
) -> Screen:
    card = Card(
        teacher=teacher,
        rows=len(contents.texts),
        violations=contents.violations,
        longest=contents.longest,
        held_out_rows=cut.rows,
        held_out_violations=cut.violations,
        max_miss=cut.max_miss,
        confidence=cut.confidence,
        promise="exact" if folds is None else "estimated",
        folds=folds,
        misses_allowed=cut.misses_allowed,
        cut_off=cut.cut_off,
        settled=cut.settled,
        curve=cut.curve,
        scale=model.scale,
        intercept=model.intercept,
        weights=weights_digest(model.weights),
        features=FEATURES,
        created=datetime.now(UTC).date(),
        moderay=importlib.metadata.version("moderay"),
        sklearn=importlib.metadata.version("scikit-learn"),
    )
    return Screen(card, model.weights)


def too_few(violations: int, needed: int, max_miss: float, confidence: float) -> UserError:
    """What is missing for a promise."""
    return UserError(
        f"{violations} distinct contents that violate are too few: {needed} are needed to miss "
        f"at most {max_miss:.3g} of violations with confidence "
        f"{confidence:.3g}, so label {needed - violations} more, or ask for less (--max-miss, "
        "--confidence)"
    )


def held_out_sizes(
    violations: int, safe: int, max_miss: float, confidence: float
) -> tuple[int, int]:
    """How many contents of either kind are held out of so many."""
    needed = intervals.violations_needed(max_miss, confidence)
    held = max(needed, int(HELD_OUT_VIOLATIONS * violations))
    # More that allow no further miss would only lower the cut-off.
    while held > needed and intervals.allowed_misses(
        held - 1, max_miss, confidence
    ) == intervals.allowed_misses(held, max_miss, confidence):
        held -= 1
    return held, max(FEWEST, int(HELD_OUT_SAFE * safe))


def _held_out(contents: Contents, max_miss: float, confidence: float) -> np.ndarray:
    """Bool: which contents are held out, at random, but the same for the same contents."""
    needed = intervals.violations_needed(max_miss, confidence) + FEWEST
    _assert_enough(contents, needed, max_miss, confidence)
    sizes = held_out_sizes(contents.violations, contents.safe, max_miss, confidence)
    random = contents.random()
    chosen = np.zeros(len(contents.violates), bool)
    for kind, size in zip((contents.violates, ~contents.violates), sizes, strict=True):
        chosen[random.permutation(np.flatnonzero(kind))[:size]] = True
    return chosen


def _assert_enough(contents: Contents, needed: int, max_miss: float, confidence: float) -> None:
    if contents.violations < needed:
        raise too_few(contents.violations, needed, max_miss, confidence)
    if contents.safe < 2 * FEWEST:
        raise UserError(
            f"{contents.safe} distinct contents that do not violate are too few: label "
            f"{2 * FEWEST - contents.safe} more"
        )


def _spread(scores: np.ndarray) -> np.ndarray:
    """Cut-offs over the whole range, as many scores between each two."""
    return np.unique(np.quantile(scores, np.linspace(0, 1, POINTS), method="higher"))


def _point(cut: float, scores: np.ndarray, violates: np.ndarray, weights: np.ndarray) -> Point:
    below = scores < cut
    settled = float(np.average(below, weights=weights))
    return Point(cut_off=cut, settled=settled, missed=float(below[violates].mean()))
