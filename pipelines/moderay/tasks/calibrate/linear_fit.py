"""The linear classifier of a screen, fitted on labelled texts or on parts of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array, vstack

from moderay.judges.cards import FEATURES
from moderay.judges.screen import Linear, blocks, buckets, ngrams, padded

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


@dataclass(frozen=True, eq=False)
class TrainingTexts:
    """Labelled texts whose n-grams are counted, so that several models cost one count.

    Attributes:
        rows: Which of the texts, rising: as many as memory holds of either kind.
        counts: What `Linear.scores` multiplies its weights by, (rows, buckets): how often each
            n-gram is there, over sqrt(n-grams).
        violates: Bool, of each of these rows.
    """

    rows: np.ndarray
    counts: csr_array
    violates: np.ndarray


def training_texts(texts: pa.Array, violates: np.ndarray) -> TrainingTexts:
    """What can be fitted on.

    Args:
        texts: As of `Contents`.
        violates: Bool, as long.
    """
    rows = np.sort(
        np.concatenate([_within(texts, kind, TRAINED_BYTES) for kind in (violates, ~violates)])
    )
    counts = _counts(pc.utf8_slice_codeunits(texts.take(pa.array(rows)), 0, TRAINED_TEXT))
    return TrainingTexts(rows, counts, violates[rows])


def fit(texts: TrainingTexts, chosen: np.ndarray | None = None) -> Linear:
    """Logistic regression, both kinds weighing the same in all, its weights rounded to 16 bits.

    Args:
        texts: What there is.
        chosen: Bool, of each text that `training_texts` was given: what to fit on. Default: all.
    """
    # Late: it takes a second, which no other task needs.
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415  # as said above
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # as said above

    counts, violates = texts.counts, texts.violates
    if chosen is not None:
        within = chosen[texts.rows]
        counts, violates = counts[np.flatnonzero(within)], violates[within]
    columns, rarity = _rarity(counts)
    model = LogisticRegression(
        C=STRENGTH, class_weight="balanced", solver="liblinear", dual=True, random_state=0
    )
    with warnings.catch_warnings():
        # On contents that words tell apart it never ends; the promise is set on held-out ones,
        # whatever the weights.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(csr_array(counts[:, columns].multiply(rarity[None, :])), violates)
    weights = np.zeros(2**FEATURES.bits)
    weights[columns] = model.coef_[0] * rarity
    return _rounded(weights, float(model.intercept_[0]))


def mean_of(models: Sequence[Linear]) -> Linear:
    """The model whose score is the mean of theirs, up to the rounding of its weights.

    The mean of log-odds is linear again: it scores as fast as one of them, from a file as large.
    A mean of probabilities would not, and would have to carry them all.
    """
    weights = np.mean([model.weights * model.scale for model in models], axis=0)
    return _rounded(weights, float(np.mean([model.intercept for model in models])))


def _rounded(weights: np.ndarray, intercept: float) -> Linear:
    scale = float(np.abs(weights).max(initial=0)) / np.iinfo(np.int16).max or 1.0
    return Linear(np.round(weights / scale).astype(np.int16), scale, intercept)


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
    """As `TrainingTexts.counts`."""
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
