"""How often the summary's intervals cover figures that are planted: the first 1,000 seeds.

Gold has the sizes of the benchmarks' sets, and judges err on the rows that a seed chooses: the
figure is then known, and what each seed finds is counted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom
from support.planted import UNKNOWN, Errors, keys_of

from moderay.labels.analysis.metrics.confusion import Binary, Figure
from moderay.labels.analysis.metrics.estimate import Estimate, estimate, share
from moderay.labels.analysis.metrics.score_estimates import score_estimates
from moderay.labels.analysis.metrics.scores import ScoreHistogram

SEEDS, CONFIDENCE = 1_000, 0.95
RATES = ((0.02, 0.005), (0.2, 0.05))
# Rows of the 2022 moderation set, and of which people said that they violate and that they do not.
ROWS = 1_680
MODERATION = {
    "sexual": (237, 747),
    "hate": (162, 609),
    "violence": (94, 1356),
    "harassment": (76, 1368),
    "self_harm": (51, 1396),
    "sexual_minors": (85, 909),
    "hate_threatening": (41, 720),
    "violence_graphic": (24, 1423),
}
HATECHECK = (2563, 1165)
# All hateful, or all not.
FUNCTIONALITIES = (189, 173, 144, 141, 140, 133, 126, 100, 81, 65, 62, 30)
# Half of 10,165 prompts, 7.33% of them toxic.
TOXIC_CHAT = (373, 4709)
# By label of the spam pack.
SPAM_PACK = (18, 7, 8, 7)
P = 0.9

# Name, what is true, and for each seed an interval or None.
Cell = tuple[str, float, list[Estimate | None]]


def gold_of(violating: int, safe: int) -> np.ndarray:
    return np.repeat([1, 0], (violating, safe))


def said_by_seed(name: str, gold: np.ndarray, miss: float, false: float) -> np.ndarray:
    """Whether the judge flags each row: bool, seeds x rows."""
    keys = keys_of(name, [f"row {row}" for row in range(len(gold))])
    return np.stack([Errors(miss, false, seed).said(keys, gold) for seed in range(SEEDS)])


def tables_of(gold: np.ndarray, said: np.ndarray) -> np.ndarray:
    """TP, FP, FN, TN by seed; `said` may be chances."""
    flagged = said.astype(float)
    violates, safe = gold == 1, gold == 0
    tp, fp = flagged[:, violates].sum(axis=1), flagged[:, safe].sum(axis=1)
    return np.stack([tp, fp, violates.sum() - tp, safe.sum() - fp], axis=1)


# Many seeds find the same counts.
found = functools.cache(lambda figure, table: estimate(figure, Binary(*table), CONFIDENCE))
found_share = functools.cache(lambda right, rows: share(right, rows, CONFIDENCE))


def average_precisions(gold: np.ndarray, said: np.ndarray) -> list[Estimate | None]:
    """By seed; P(violates) is spread, since the order of rows with the same one is not known."""
    rng = np.random.default_rng(0)
    found = []
    for flags in said:
        scores = np.where(flags, P, 1 - P) + rng.uniform(-0.05, 0.05, len(gold))
        histogram = ScoreHistogram.of(scores, gold == 1)
        found.append(score_estimates(histogram, CONFIDENCE)["average_precision"])
    return found


def binary_cells(
    name: str, gold: np.ndarray, said: np.ndarray, chance: np.ndarray, figures: tuple[Figure, ...]
) -> Iterator[Cell]:
    """Figures of a binary table; the truth is that of the counts that are expected."""
    [expected] = tables_of(gold, chance[None])
    tables = [tuple(table) for table in tables_of(gold, said).tolist()]
    for figure in figures:
        true = Binary(*expected).figure(figure)
        assert true is not None
        yield f"{name} {figure}", true, [found(figure, table) for table in tables]


def moderation_cells(miss: float, false: float) -> Iterator[Cell]:
    rng = np.random.default_rng(0)
    golds, saids, chances = [], [], []
    for name, (violating, safe) in MODERATION.items():
        unknown = ROWS - violating - safe
        gold = rng.permutation(np.repeat([1, 0, UNKNOWN], (violating, safe, unknown)))
        said, chance = said_by_seed(name, gold, miss, false), Errors(miss, false).chance(gold)
        yield from binary_cells(name, gold, said, chance, ("f1",))
        golds.append(gold)
        saids.append(said)
        chances.append(chance)
    gold = np.stack(golds)
    any_gold = np.where((gold == 1).any(axis=0), 1, gold.min(axis=0))
    any_chance = 1 - np.prod(1 - np.stack(chances), axis=0)
    any_said = np.logical_or.reduce(saids)
    yield from binary_cells("any of them", any_gold, any_said, any_chance, ("f1",))
    # Of rows that are known throughout; a set so full of gaps has none by chance.
    full = np.where(gold == UNKNOWN, 0, gold)
    right = np.where(full == 1, 1 - miss, 1 - false).prod(axis=0).mean()
    is_right = np.logical_and.reduce([s == (g == 1) for s, g in zip(saids, full, strict=True)])
    counts = is_right.sum(axis=1).tolist()
    yield "every policy right", float(right), [found_share(count, ROWS) for count in counts]


def spam_pack_cells(miss: float, false: float) -> Iterator[Cell]:
    """A miss is answered with the first label, a false alarm with the second."""
    labels = np.repeat(np.arange(4), SPAM_PACK)
    gold = (labels > 0).astype(int)
    said = said_by_seed("spam_pack", gold, miss, false)
    answers = np.where(said, np.maximum(labels, 1), 0)
    rows = len(labels)
    right = 1 - (gold.sum() * miss + (rows - gold.sum()) * false) / rows
    counts = (answers == labels).sum(axis=1).tolist()
    yield "right labels", float(right), [found_share(count, rows) for count in counts]
    graver = (labels >= 2).astype(int)
    chance = np.where(graver == 1, 1 - miss, 0.0)
    yield from binary_cells("SP3 and above", graver, answers >= 2, chance, ("recall", "f1"))


def toxic_chat_cells(miss: float, false: float) -> Iterator[Cell]:
    gold = gold_of(*TOXIC_CHAT)
    said, chance = said_by_seed("toxic", gold, miss, false), Errors(miss, false).chance(gold)
    figures: tuple[Figure, ...] = ("f1", "precision", "recall")
    yield from binary_cells("toxic_chat", gold, said, chance, figures)
    [[tp, fp, fn, tn]] = tables_of(gold, chance[None])
    # Flagged rows come first, in any order, then the others: precision at each violation.
    x = np.linspace(0, 1, 10_001)
    below = float(((tp + x * fn) / (tp + fp + x * (fn + tn))).mean())
    recall = tp / (tp + fn)
    true = float(recall * tp / (tp + fp) + (1 - recall) * below)
    yield "average precision", true, average_precisions(gold, said)


def hatecheck_cells(miss: float, false: float) -> Iterator[Cell]:
    gold = gold_of(*HATECHECK)
    said, chance = said_by_seed("hate", gold, miss, false), Errors(miss, false).chance(gold)
    yield from binary_cells("hatecheck", gold, said, chance, ("f1",))
    for size, violates in product(FUNCTIONALITIES, (0, 1)):
        name = f"{size} rows of {violates}"
        gold = np.full(size, violates)
        said, chance = said_by_seed(name, gold, miss, false), Errors(miss, false).chance(gold)
        yield from binary_cells(name, gold, said, chance, ("accuracy",))


def covered(cells: list[Cell]) -> Iterator[tuple[str, int, int]]:
    """A cell's name, how many seeds' intervals cover, of how many that have one."""
    for name, true, intervals in cells:
        defined = [each for each in intervals if each is not None]
        inside = sum(each.low - 1e-9 <= true <= each.high + 1e-9 for each in defined)
        yield name, inside, len(defined)


@pytest.mark.slow
def test_no_cell_of_the_summary_covers_less_than_it_says() -> None:
    rows = [
        (f"{rates}: {name}", inside, n)
        for rates in RATES
        for make in (moderation_cells, hatecheck_cells, spam_pack_cells, toxic_chat_cells)
        for name, inside, n in covered(list(make(*rates)))
    ]
    assert len(rows) == 2 * (10 + 25 + 3 + 4)
    assert all(n == SEEDS for _, _, n in rows)
    under = [
        f"{name}: {inside} of {n}"
        for name, inside, n in rows
        if binom.cdf(inside, n, CONFIDENCE) < 0.001 / len(rows)
    ]
    assert not under
