"""How far people agree, among themselves and with a model.

Votes are indices of labels, (rows, people), and MISSING where somebody gave none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from moderay.labels.analysis.metrics.bootstrap import bootstrap
from moderay.labels.analysis.metrics.confusion import Confusion, Floats, Ints, kappa_of
from moderay.labels.analysis.metrics.estimate import CONFIDENCE, Estimate, estimate

MISSING = -1


@dataclass(frozen=True)
class Agreement:
    """The model beside people.

    A model is as good as a person where its kappas are among those of people with one another.

    Attributes:
        model: by person, Cohen's kappa of the model with this person; None where it is undefined.
        people: by two people, Cohen's kappa of these two.
        alpha: Krippendorff's alpha of the people.
    """

    model: Mapping[int, Estimate | None]
    people: Mapping[tuple[int, int], Estimate | None]
    alpha: Estimate | None


def agreement(
    votes: Ints,
    said: Ints,
    labels: Sequence[str],
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Agreement:
    """How far the model agrees with each person, and people with one another.

    Args:
        votes: (rows, people).
        said: (rows,), what the model says; MISSING where it has no verdict.
        labels: names.
        confidence: of the intervals.
        seed: of the draws.
    """

    def kappa(a: Ints, b: Ints) -> Estimate | None:
        return kappa_estimate(confusion(a, b, labels), confidence, seed)

    people = range(votes.shape[1])
    return Agreement(
        {person: kappa(votes[:, person], said) for person in people},
        {(a, b): kappa(votes[:, a], votes[:, b]) for a, b in combinations(people, 2)},
        alpha_estimate(vote_counts(votes, len(labels)), confidence, seed),
    )


def confusion(a: Ints, b: Ints, labels: Sequence[str]) -> Confusion:
    """The rows that two raters have both judged.

    Args:
        a: (rows,), indices into `labels`; MISSING where there is no vote.
        b: likewise.
        labels: names.
    """
    both = (a != MISSING) & (b != MISSING)
    return Confusion.of(a[both], b[both], labels)


def kappa_estimate(
    table: Confusion, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate | None:
    """Cohen's kappa of a table with its interval; None where it is undefined.

    That of two labels is `estimate`'s. For more, one row in all is spread evenly over the cells
    beforehand (https://doi.org/10.1214/14-BA915): more of it would draw kappa to 0.
    """
    if len(table.labels) == 2:
        return estimate("kappa", table.at(table.labels[1]), confidence, seed)
    shape = (-1, *table.counts.shape)
    cells = table.counts.ravel()
    prior = np.full(len(cells), 1 / len(cells))
    found = bootstrap(cells, prior, lambda draws: kappa_of(draws.reshape(shape)), confidence, seed)
    return found and Estimate(*found, "bootstrap")


def vote_counts(votes: Ints, labels: int) -> Ints:
    """How many people gave each label to each row.

    Args:
        votes: (rows, people), indices of labels; MISSING where there is no vote.
        labels: how many there are.

    Returns:
        (rows, labels).
    """
    return np.stack([(votes == label).sum(axis=1) for label in range(labels)], axis=1)


def krippendorff_alpha(counts: Ints) -> float | None:
    """Krippendorff's alpha of nominal votes, whoever gave them and however many there are a row.

    1 is full agreement, 0 what chance would bring. Rows with fewer than two votes say nothing.
    https://doi.org/10.1080/19312450709336664 (Hayes and Krippendorff, 2007)

    Args:
        counts: (rows, labels), as of `vote_counts`.

    Returns:
        None where no row has two votes, or where all votes are the same: chance would then agree
        as well.
    """
    value = float(_alpha(counts, np.ones((1, len(counts))))[0])
    return None if np.isnan(value) else value


def alpha_estimate(counts: Ints, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate | None:
    """Krippendorff's alpha with its interval, from draws of rows.

    Rows with the same votes are one cell of the table that is drawn. One row of two votes, spread
    evenly over all that these may be, is added beforehand: people who agree on a few rows are not
    certain to agree on all.

    Args:
        counts: (rows, labels), as of `vote_counts`.
        confidence: of the interval.
        seed: of the draws.

    Returns:
        None where alpha is undefined.
    """
    one = np.eye(counts.shape[1], dtype=np.int64)
    pairs = (one[:, None] + one).reshape(-1, len(one))
    kinds, which = np.unique(np.vstack([counts, pairs]), axis=0, return_inverse=True)
    rows, added = which.ravel()[: len(counts)], which.ravel()[len(counts) :]
    times = np.bincount(rows, minlength=len(kinds))
    prior = np.bincount(added, minlength=len(kinds)) / len(pairs)
    found = bootstrap(times, prior, lambda draws: _alpha(kinds, draws), confidence, seed)
    return found and Estimate(*found, "bootstrap")


def _alpha(counts: Ints, times: Floats) -> Floats:
    """Alpha where each row of votes (rows, labels) stands `times` (draws, rows): (draws,)."""
    votes = counts.sum(axis=1)
    counts, times, votes = counts[votes > 1], times[:, votes > 1], votes[votes > 1]
    differing = (votes**2 - (counts**2).sum(axis=1)) / (votes - 1)
    totals = times @ counts
    n = totals.sum(axis=1)
    expected = n**2 - (totals**2).sum(axis=1)
    observed = times @ differing * (n - 1)
    alpha = np.full(len(n), np.nan)
    np.divide(observed, expected, out=alpha, where=expected > 0)
    return 1 - alpha
