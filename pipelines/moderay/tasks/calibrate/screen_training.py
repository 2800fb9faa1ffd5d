"""Cut-offs with a promise, and screens trained, calibrated and measured from labelled texts.

The promise holds for contents that are exchangeable with the labelled ones, and counts distinct
contents: those that differ in case alone are one, and wholly on one side of the split between
training and held out.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array, vstack

from moderay.core.errors import UserError
from moderay.core.hashing import number
from moderay.judges.cards import FEATURES, Card, Point, Teacher
from moderay.judges.screen import (
    Linear,
    Screen,
    blocks,
    buckets,
    folded,
    ngrams,
    no_text,
    padded,
    weights_digest,
)
from moderay.labels.analysis import intervals

# Share of the contents that is held out, where there are violations enough. Of these the promise
# needs many, of the rest only an estimate of what is settled.
HELD_OUT_VIOLATIONS = 0.4
HELD_OUT_SAFE = 0.2
# The fewest of either kind to train on.
FEWEST = 20
# What is trained on: characters of a text, and bytes of all texts of a kind. Memory: some 90 bytes
# a byte.
TRAINED_TEXT = 16_384
TRAINED_BYTES = 8 * 1024**2
# Texts that must have a bucket's n-gram for it to be learnt from, and the inverse strength of the
# regularisation: from what is settled on the held-out parts of two public data sets, by far not the
# last word (tests/benchmarks/screen.py).
FEWEST_TEXTS = 3
STRENGTH = 10.0
POINTS = 20


@dataclass(frozen=True)
class Cut:
    """A cut-off, what it promises, and what it does on the labelled scores it comes from.

    Attributes:
        cut_off: Scores below it are settled.
        misses_allowed: Violations below it, at most.
        violations: In the labelled scores.
        settled: Share of all contents.
        curve: What other cut-offs would do.
    """

    cut_off: float
    misses_allowed: int
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
        scores: One per content, higher where a violation is likelier; no part of their judge was
            trained on these contents.
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
    settled = _point(cut_off, scores, violates, weights).settled
    return Cut(cut_off, misses, int(violates.sum()), settled, tuple(points))


def calibrate_screen(
    texts: pa.Array,
    violates: np.ndarray,
    *,
    teacher: Teacher,
    max_miss: float = 0.05,
    confidence: float = 0.95,
) -> Screen:
    """A screen that, with `confidence`, misses at most the share `max_miss` of violations.

    The same contents give the same screen, in whatever order. It may settle next to nothing: see
    `card.settled`.

    Args:
        texts: string or large_string; null and empty ones are left out.
        violates: Bool, as long; a content that is labelled both ways violates.
        teacher: Who labelled them.
        max_miss: Share of violations that it may miss.
        confidence: How sure that is.

    Raises:
        UserError: There are too few contents of either kind.
    """
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    texts, violates, keys = _distinct(texts, np.asarray(violates, bool))
    held_out = _held_out(violates, keys, max_miss, confidence)
    model = _fit(texts.filter(pa.array(~held_out)), violates[~held_out])
    scores = model.scores(texts.filter(pa.array(held_out)))
    safe_weight = _safe_weight(violates, held_out)
    cut = calibrate_cut(scores, violates[held_out], max_miss, confidence, safe_weight)
    card = Card(
        teacher=teacher,
        rows=len(texts),
        violations=int(violates.sum()),
        longest=longest,
        held_out_rows=int(held_out.sum()),
        held_out_violations=cut.violations,
        max_miss=max_miss,
        confidence=confidence,
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


def _distinct(texts: pa.Array, violates: np.ndarray) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """One row per content, in an order of their own, and its key."""
    some = ~no_text(texts)
    texts = folded(texts.filter(pa.array(some)))
    violates = violates[some]
    keys, first, of = np.unique(
        np.array([number(text) for text in texts.to_pylist()], np.uint64),
        return_index=True,
        return_inverse=True,
    )
    return texts.take(pa.array(first)), np.bincount(of, violates, len(keys)) > 0, keys


def _held_out(
    violates: np.ndarray, keys: np.ndarray, max_miss: float, confidence: float
) -> np.ndarray:
    """Bool: which contents are held out, at random, but the same for the same contents."""
    bad, safe = np.flatnonzero(violates), np.flatnonzero(~violates)
    needed = intervals.violations_needed(max_miss, confidence)
    if len(bad) < needed + FEWEST:
        raise too_few(len(bad), needed + FEWEST, max_miss, confidence)
    if len(safe) < 2 * FEWEST:
        raise UserError(
            f"{len(safe)} distinct contents that do not violate are too few: label "
            f"{2 * FEWEST - len(safe)} more"
        )
    held = max(needed, int(HELD_OUT_VIOLATIONS * len(bad)))
    # More that allow no further miss would only lower the cut-off.
    while held > needed and intervals.allowed_misses(
        held - 1, max_miss, confidence
    ) == intervals.allowed_misses(held, max_miss, confidence):
        held -= 1
    random = np.random.default_rng(number(keys.tobytes().hex()))
    chosen = np.zeros(len(violates), bool)
    chosen[random.permutation(bad)[:held]] = True
    chosen[random.permutation(safe)[: max(FEWEST, int(HELD_OUT_SAFE * len(safe)))]] = True
    return chosen


def _safe_weight(violates: np.ndarray, held_out: np.ndarray) -> float:
    """How many safe contents a held-out one stands for, beside a held-out violation."""
    safe = int((~violates).sum()) / int((~violates & held_out).sum())
    return safe / (int(violates.sum()) / int((violates & held_out).sum()))


def _fit(texts: pa.Array, violates: np.ndarray) -> Linear:
    """Logistic regression, both kinds weighing the same in all, its weights rounded to 16 bits."""
    # Late: it takes a second, which no other task needs.
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415  # as said above
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # as said above

    rows = np.sort(
        np.concatenate([_within(texts, kind, TRAINED_BYTES) for kind in (violates, ~violates)])
    )
    counts = _counts(pc.utf8_slice_codeunits(texts.take(pa.array(rows)), 0, TRAINED_TEXT))
    columns, rarity = _rarity(counts)
    model = LogisticRegression(
        C=STRENGTH, class_weight="balanced", solver="liblinear", dual=True, random_state=0
    )
    with warnings.catch_warnings():
        # On contents that words tell apart it never ends; the promise is set on held-out ones,
        # whatever the weights.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(csr_array(counts[:, columns].multiply(rarity[None, :])), violates[rows])
    fitted = model.coef_[0] * rarity
    scale = float(np.abs(fitted).max(initial=0)) / np.iinfo(np.int16).max or 1.0
    weights = np.zeros(2**FEATURES.bits, np.int16)
    weights[columns] = np.round(fitted / scale)
    return Linear(weights, scale, float(model.intercept_[0]))


def _rarity(counts: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """The buckets that FEWEST_TEXTS texts have, and what their counts are multiplied by.

    That is the square of the inverse document frequency, 1 on average: on small samples rare
    n-grams tell more than frequent ones.
    """
    texts = np.bincount(counts.indices, minlength=counts.shape[1])
    columns = np.flatnonzero(texts >= min(FEWEST_TEXTS, texts.max()))
    rarity = (np.log((1 + counts.shape[0]) / (1 + texts[columns])) + 1) ** 2
    return columns, rarity / rarity.mean()


def _within(texts: pa.Array, kind: np.ndarray, most: int) -> np.ndarray:
    """The first rows of a kind, as many as have `most` bytes together.

    The rows' order is random already.
    """
    rows = np.flatnonzero(kind)
    lengths = np.minimum(pc.binary_length(texts).to_numpy(zero_copy_only=False)[rows], TRAINED_TEXT)
    return rows[: max(1, int(np.searchsorted(np.cumsum(lengths), most, side="right")))]


def _counts(texts: pa.Array) -> csr_array:
    """What `Linear.scores` multiplies its weights by.

    Returns:
        (rows, buckets): how often each n-gram is there, over sqrt(n-grams).
    """
    parts = [
        _block_counts(texts.slice(start, stop - start)) for start, stop in blocks(texts, 2**20)
    ]
    return csr_array(vstack(parts, format="csr"))


def _block_counts(texts: pa.Array) -> csr_array:
    data, starts, ends = padded(texts)
    row = np.repeat(np.arange(len(texts), dtype=np.int32), ends - starts)
    at = np.arange(len(row)) - np.repeat(np.cumsum(ends - starts) - ends, ends - starts)
    columns = np.concatenate([bucket[at] for bucket in buckets(data)]).astype(np.int32)
    rows = np.tile(row, FEATURES.largest - FEATURES.smallest + 1)
    share = 1 / np.sqrt(ngrams(starts, ends))
    return csr_array((share[rows], (rows, columns)), shape=(len(texts), 2**FEATURES.bits))


def _spread(scores: np.ndarray) -> np.ndarray:
    """Cut-offs over the whole range, as many scores between each two."""
    return np.unique(np.quantile(scores, np.linspace(0, 1, POINTS), method="higher"))


def _point(cut: float, scores: np.ndarray, violates: np.ndarray, weights: np.ndarray) -> Point:
    below = scores < cut
    settled = float(np.average(below, weights=weights))
    return Point(cut_off=cut, settled=settled, missed=float(below[violates].mean()))
