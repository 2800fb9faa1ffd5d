"""What more labels would settle: a learning curve, extrapolated.

More labels do two things. The bound of the cut-off has less slack: of n violations that set it the
(k+1)-th smallest score is the cut-off, below which (k+1)/(n+1) of violations lie on average, and
that share nears the one promised as n grows. This part is arithmetic. And the model gets better.
This part is measured: models are fitted on one to four fifths of the labels, each scores the
labels that it did not see, and the share that each size settles, at one share of missed violations,
is extended along two straight lines: in 1/sqrt(size), which levels off, and in log(size), which
gains as much with each doubling. What is told lies midway.

The spread goes from the lower end of the first to the upper end of the second, over bootstrap
resamples of the scored labels. It says how well these labels tell the gain, and how much hangs on
the form of the curve; not that it has either form (tests/benchmarks/cross_fit.py holds it against
what more labels gave).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from moderay.judges.cards import Card
from moderay.labels.analysis import intervals
from moderay.tasks.calibrate.contents import Contents, distinct
from moderay.tasks.calibrate.cross_fit import FOLDS, deal
from moderay.tasks.calibrate.linear_fit import FEWEST, fit, training_texts
from moderay.tasks.calibrate.screen_training import held_out_sizes

MORE = 1000
RESAMPLES = 200
# Of the resamples' gains along a line, the share that lies within the spread.
SPREAD = 0.9
# What is settled is a straight line in each of these of the size.
FORMS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (lambda size: size**-0.5, np.log)
# Folds that the models are fitted on.
FITTED_ON = range(1, FOLDS)
# The smallest models are fitted on one fold.
FEWEST_OF_A_KIND = FEWEST * FOLDS
# The sizes that are measured span as much; further out the form of the curve is a guess.
FURTHEST = FOLDS - 1
# Labels that are a smaller share of those at hand would change next to nothing, and the curve of
# very many takes minutes.
SMALLEST_SHARE = 0.02


@dataclass(frozen=True)
class Gain:
    """What more labels would settle beyond what these do, as shares of all contents.

    Attributes:
        more: Labels, with as large a share of violations as those at hand.
        estimate: The extrapolation.
        low: Lower end of the spread over resamples and forms.
        high: Upper end.
    """

    more: int
    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """What a person is told."""
        between = f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"
        if self.low <= 0 <= self.high:
            return f"no change that these labels can tell ({between} points; extrapolated)"
        return f"{100 * self.estimate:+.1f} points settled ({between}; extrapolated)"


@dataclass(frozen=True)
class NoGain:
    """Nothing is said of more labels.

    Attributes:
        why: A clause.
    """

    why: str

    def __str__(self) -> str:
        """What a person is told."""
        return f"not known: {self.why}"


@dataclass(frozen=True)
class Target:
    """A screen that so many labels would make.

    Attributes:
        miss: Share of violations below its cut-off, on average.
        size: What it is trained on (`_size`).
    """

    miss: float
    size: float


def gain_of_more(
    texts: pa.Array, violates: np.ndarray, card: Card, more: int = MORE
) -> Gain | NoGain:
    """What a screen would settle beyond today's, were more contents like these labelled.

    Args:
        texts: What the screen was made from.
        violates: Bool, as long.
        card: The screen's.
        more: Labels.
    """
    contents = distinct(texts, violates)
    if why := _unknown(contents, more):
        return NoGain(why)
    rows = len(contents.violates)
    targets = _target(contents, card, 1.0), _target(contents, card, 1 + more / rows)
    curve = tuple(_curve(contents))
    random = contents.random()
    gains = [
        _gain(curve, random.multinomial(rows, np.full(rows, 1 / rows)), *targets)
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(gains, [(1 - SPREAD) / 2, (1 + SPREAD) / 2], axis=0)
    estimate = _gain(curve, np.ones(rows), *targets).mean()
    return Gain(more, float(estimate), float(low.min()), float(high.max()))


def _unknown(contents: Contents, more: int) -> str | None:
    """Why the curve says nothing, where it does not."""
    rows = len(contents.violates)
    fewest = min(contents.violations, contents.safe)
    if fewest < FEWEST_OF_A_KIND:
        return (
            f"a curve takes {FEWEST_OF_A_KIND} distinct contents of either kind, and of one there "
            f"are {fewest:,}"
        )
    if rows + more > FURTHEST * rows:
        return f"{more:,} more are too far from {rows:,}"
    if more < SMALLEST_SHARE * rows:
        return f"{more:,} more are too few beside {rows:,} to make a difference"
    return None


def _target(contents: Contents, card: Card, times: float) -> Target:
    """Of a screen made as this one from so many times the contents."""
    violations, safe = round(contents.violations * times), round(contents.safe * times)
    if card.folds is not None:
        held, size = violations, (card.folds - 1) / card.folds * _size(violations, safe)
    else:
        held, held_safe = held_out_sizes(violations, safe, card.max_miss, card.confidence)
        size = _size(violations - held, safe - held_safe)
    allowed = intervals.allowed_misses(held, card.max_miss, card.confidence)
    if allowed is None:
        raise ValueError(f"{violations} violations are too few for the cut-off of a screen")
    return Target((allowed + 1) / (held + 1), size)


def _size(violations: float, safe: float) -> float:
    """How much can be learnt from so many contents of either kind.

    As for a difference of two means, whose variance goes with 1/violations + 1/safe: what there is
    less of counts more.
    """
    return violations * safe / (violations + safe)


@dataclass(frozen=True, eq=False)
class Scored:
    """Contents as models scored them that were fitted on some of the other folds.

    Attributes:
        scores: Of pairs of a content and a model, rising.
        content: The content of each pair.
        violates: Bool, of each pair.
        models: How many score each content.
        size: Of what each model was fitted on.
    """

    scores: np.ndarray
    content: np.ndarray
    violates: np.ndarray
    models: int
    size: float

    def settled(self, weights: np.ndarray, miss: float) -> float:
        """The share of contents below the score that this share of violations is below.

        Args:
            weights: How often each content counts.
            miss: As of `Target`; the i-th of n scores stands for i/(n+1).
        """
        each = weights[self.content]
        upto = np.cumsum(each[self.violates])
        cut = np.interp(miss, upto / (upto[-1] + self.models), self.scores[self.violates])
        below = np.searchsorted(self.scores, cut)
        return float(each[:below].sum() / each.sum())


def _curve(contents: Contents) -> Iterator[Scored]:
    """The contents scored by models of each size; each size has a model beginning at each fold."""
    texts, violates = contents.texts, contents.violates
    fold = deal(contents)
    training = training_texts(texts, violates)
    for folds in FITTED_ON:
        scores, content = [], []
        for first in range(FOLDS):
            within = (fold - first) % FOLDS < folds
            others = np.flatnonzero(~within)
            scores.append(fit(training, within).scores(texts.take(pa.array(others))))
            content.append(others)
        order = np.argsort(np.concatenate(scores), kind="stable")
        ordered = np.concatenate(content)[order]
        yield Scored(
            np.concatenate(scores)[order],
            ordered,
            violates[ordered],
            FOLDS - folds,
            folds / FOLDS * _size(contents.violations, contents.safe),
        )


def _gain(curve: Sequence[Scored], weights: np.ndarray, now: Target, then: Target) -> np.ndarray:
    """What is settled then beyond now along each of FORMS, the contents weighing so much."""
    sizes = np.array([scored.size for scored in curve])
    settled = np.empty((2, len(FORMS)))
    for row, target in zip(settled, (now, then), strict=True):
        measured = [scored.settled(weights, target.miss) for scored in curve]
        for number, form in enumerate(FORMS):
            slope, start = np.polyfit(form(sizes), measured, 1)
            row[number] = np.clip(start + slope * form(np.array(target.size)), 0, 1)
    return np.asarray(settled[1] - settled[0])
