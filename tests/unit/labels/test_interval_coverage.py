"""How often intervals cover a figure that is known: for each, the first 1,000 seeds."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from moderay.labels.analysis.metrics.agreement import (
    alpha_estimate,
    kappa_estimate,
    krippendorff_alpha,
    vote_counts,
)
from moderay.labels.analysis.metrics.confusion import FIGURES, Binary, Confusion
from moderay.labels.analysis.metrics.estimate import Estimate, estimates
from moderay.labels.analysis.metrics.mcnemar import Paired, per_million
from moderay.labels.analysis.metrics.score_estimates import SCORE_FIGURES, score_estimates
from moderay.labels.analysis.metrics.scores import ScoreHistogram

SEEDS, CONFIDENCE = 1_000, 0.95
Found = Mapping[str, Estimate | None]
Truth = Mapping[str, float]
# A name, what is true, and what one seed finds.
Cell = tuple[str, Truth, Callable[[int], Found]]


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _table(cells: Any) -> Binary:
    tp, fp, fn, tn = (float(cell) for cell in cells)
    return Binary(tp, fp, fn, tn)


def _binary() -> Iterator[Cell]:
    for n, prevalence, (miss, false) in product((30, 300), (0.1, 0.5), ((0.02, 0.02), (0.2, 0.05))):
        shares = np.array(
            [
                prevalence * (1 - miss),
                (1 - prevalence) * false,
                prevalence * miss,
                (1 - prevalence) * (1 - false),
            ]
        )
        table = _table(shares)
        truth = {name: table.figure(name) or 0.0 for name in FIGURES}

        def found(seed: int, n: int = n, shares: Any = shares) -> Found:
            return dict(estimates(_table(_rng(seed).multinomial(n, shares)), CONFIDENCE, seed))

        yield f"table n={n} prevalence={prevalence} errors={miss},{false}", truth, found


def _graded() -> Iterator[Cell]:
    for n, skew, error in ((30, 1.0, 0.05), (40, 0.4, 0.3), (200, 0.4, 0.05)):
        gold = skew ** np.arange(4)
        shares = (gold / gold.sum())[:, None] * (
            np.full((4, 4), error / 3) + np.eye(4) * (1 - error / 3 * 4)
        )
        labels = ("A", "B", "C", "D")
        expected = float(shares.sum(axis=0) @ shares.sum(axis=1))
        truth = {"kappa": (float(np.trace(shares)) - expected) / (1 - expected)}

        def found(seed: int, n: int = n, shares: Any = shares, labels: Any = labels) -> Found:
            counts = _rng(seed).multinomial(n, shares.ravel()).reshape(4, 4)
            return {"kappa": kappa_estimate(Confusion(labels, counts), CONFIDENCE, seed)}

        yield f"labels n={n} skew={skew} error={error}", truth, found


def _people() -> Iterator[Cell]:
    def votes(seed: int, n: int, error: float) -> Any:
        rng = _rng(seed)
        true = rng.choice(3, p=[0.7, 0.2, 0.1], size=(n, 1))
        given = np.where(rng.random((n, 3)) < error, rng.integers(0, 3, (n, 3)), true)
        return vote_counts(np.where(rng.random((n, 3)) < 0.2, -1, given), 3)

    for n, error in ((40, 0.05), (200, 0.3)):
        truth = {"alpha": krippendorff_alpha(votes(SEEDS, 200_000, error)) or 0.0}

        def found(seed: int, n: int = n, error: float = error) -> Found:
            return {"alpha": alpha_estimate(votes(seed, n, error), CONFIDENCE, seed)}

        yield f"people n={n} error={error}", truth, found


def _versions() -> Iterator[Cell]:
    prevalence = 0.3
    for n, (miss, false) in product((40, 200), ((0.02, 0.02), (0.2, 0.05))):
        # b puts half of a's errors right, and makes some of its own.
        shares = np.zeros((2, 2, 2))
        for y, a, b in product((0, 1), repeat=3):
            error = miss if y else false
            of_b = (0.2 * error if b != y else 1 - 0.2 * error) if a == y else 0.5
            of_a = 1 - error if a == y else error
            shares[y, a, b] = (prevalence if y else 1 - prevalence) * of_a * of_b
        exact: Any = Paired(shares)  # type: ignore[arg-type]
        names = ("recall", "f1")
        truth = {name: exact.b.figure(name) - exact.a.figure(name) for name in names}
        truth["flips"] = 1e6 * float(shares[:, 0, 1].sum() + shares[:, 1, 0].sum())

        def found(seed: int, n: int = n, shares: Any = shares, names: Any = names) -> Found:
            counts = _rng(seed).multinomial(n, shares.ravel()).reshape(2, 2, 2)
            flips = int(counts[:, 0, 1].sum() + counts[:, 1, 0].sum())
            paired = Paired(counts)
            return {name: paired.difference(name, CONFIDENCE, seed) for name in names} | {
                "flips": per_million(flips, n)
            }

        yield f"versions n={n} errors={miss},{false}", truth, found


def _scores() -> Iterator[Cell]:
    def draw(kind: str, n: int, prevalence: float, seed: int) -> ScoreHistogram:
        rng = _rng(seed)
        y = rng.random(n) < prevalence
        if kind == "mixed":
            return ScoreHistogram.of(expit(rng.normal(np.where(y, 1.5, -1.5), 2)), y)
        if kind == "calibrated":
            p = rng.beta(0.5, 0.5 / prevalence - 0.5, n)
            return ScoreHistogram.of(p, rng.random(n) < p)
        miss, false = (0.1, 0.03) if kind == "planted" else (0.02, 0.005)
        said = y ^ (rng.random(n) < np.where(y, miss, false))
        return ScoreHistogram.of(np.where(said, 0.96, 0.02) + rng.uniform(-0.01, 0.01, n), y)

    for kind, (n, prevalence) in product(
        ("mixed", "calibrated", "planted", "rare"), ((40, 0.5), (300, 0.1))
    ):
        large: Any = draw(kind, 200_000, prevalence, SEEDS)
        truth = {name: getattr(large, name).value for name in SCORE_FIGURES}

        def found(seed: int, kind: str = kind, n: int = n, prevalence: float = prevalence) -> Found:
            return dict(score_estimates(draw(kind, n, prevalence, seed), CONFIDENCE, seed))

        yield f"scores {kind} n={n} prevalence={prevalence}", truth, found


def _covered(cell: Cell) -> Iterator[tuple[str, int, int]]:
    """For each figure of a cell: its name, how many seeds cover it, of how many that have it."""
    title, truth, found = cell
    seeds = [found(seed) for seed in range(SEEDS)]
    for name, true in truth.items():
        intervals = [one[name] for one in seeds]
        defined = [one for one in intervals if one]
        inside = sum(one.low - 1e-9 <= true <= one.high + 1e-9 for one in defined)
        yield f"{title}: {name}", inside, len(defined)


@pytest.mark.long
def test_no_interval_covers_less_than_it_says() -> None:
    cells = [*_binary(), *_graded(), *_people(), *_versions(), *_scores()]
    rows = [row for cell in cells for row in _covered(cell)]
    under = [
        f"{name}: {inside} of {n}"
        for name, inside, n in rows
        if binom.cdf(inside, n, CONFIDENCE) < 0.001 / len(rows)
    ]
    assert len(rows) > 90
    assert not under
