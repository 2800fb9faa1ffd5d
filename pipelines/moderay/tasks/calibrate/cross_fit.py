"""Cross-fitting: every labelled content is scored by a model that was not trained on it.

Contents are dealt into folds; for each fold a model is fitted on the others and scores it. So all
violations set the cut-off, and all contents train the screen, which is the mean of the models.

The mean is not the model that gave any of the scores, so the exact bound of a held-out sample
(`labels.analysis.intervals`) does not hold for it: what it promises is an estimate. Since a mean
varies less than each of its models, the estimate is mostly on the safe side;
tests/benchmarks/cross_fit.py measures how often it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from moderay.judges.screen import Linear
from moderay.tasks.calibrate.contents import Contents
from moderay.tasks.calibrate.linear_fit import FEWEST, fit, mean_of, training_texts

FOLDS = 5
# The fewest of either kind that leave FEWEST to train on when a fold is left out.
FEWEST_TO_FOLD = -(-FEWEST * FOLDS // (FOLDS - 1))


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What cross-fitting gives.

    Attributes:
        model: The mean of the folds' models.
        scores: float32, of each text: by the one model that was not trained on it.
    """

    model: Linear
    scores: np.ndarray


def cross_fit(contents: Contents) -> CrossFit:
    """Fit a model for each fold on the others, and score the fold by it."""
    fold = deal(contents)
    training = training_texts(contents.texts, contents.violates)
    models = [fit(training, fold != left_out) for left_out in range(FOLDS)]
    scores = np.empty(len(contents.texts), np.float32)
    for left_out, model in enumerate(models):
        here = fold == left_out
        scores[here] = model.scores(contents.texts.filter(pa.array(here)))
    return CrossFit(mean_of(models), scores)


def deal(contents: Contents) -> np.ndarray:
    """The fold of each content, from 0.

    At random, but the same for the same contents; each fold has its share of either kind.
    """
    random = contents.random()
    fold = np.empty(len(contents.violates), np.int64)
    for kind in (contents.violates, ~contents.violates):
        rows = random.permutation(np.flatnonzero(kind))
        fold[rows] = np.arange(len(rows)) % FOLDS
    return fold
