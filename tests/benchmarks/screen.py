"""Does a screen keep its promise on real labels, what does it settle, and how fast?

On SPLITS random halvings of each data set a screen is calibrated on one half (5% of violations
missed at most, with confidence 0.95) and measured on the other. A test half is a sample too: even a
screen that keeps its promise exceeds 5% there in a share of splits that is known exactly, from the
negative hypergeometric (beta-binomial) distribution. The speed is that of one core, beside
scikit-learn's own n-grams of the same sizes and number of buckets.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import betabinom
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from support.project import SHARED

from moderay.judges.cards import FEATURES, Teacher
from moderay.judges.screen import Screen
from moderay.tasks.calibrate.screen_training import calibrate_screen

DATA = SHARED
MAX_MISS, CONFIDENCE = 0.05, 0.95
TEACHER = Teacher(policy="bench", threshold=0.5, policy_key="none", source="people, as published")
# Mean share of the test half that is settled.
GOALS = {"tweets": 0.15, "openai_moderation": 0.28}


def labelled(name: str) -> tuple[pa.Array, np.ndarray]:
    """Texts, and which of them violate: hate or offensive (tweets), sexual (openai_moderation,
    where that is known).
    """
    table = pa.concat_tables(
        [pq.read_table(file, partitioning=None) for file in sorted((DATA / name).glob("*.parquet"))]
    )
    if name == "tweets":
        return table.column("text").combine_chunks(), table.column("label").to_numpy() != "neither"
    table = table.filter(table.column("S").is_valid())
    return table.column("text").combine_chunks(), table.column("S").to_numpy() == 1


def one_split(texts: pa.Array, violates: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Of a test half: the share of violations missed, the predicted chance that it is above
    MAX_MISS, the share settled.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    half, test = np.split(order, [len(order) // 2])
    screen = calibrate_screen(
        texts.take(pa.array(half)),
        violates[half],
        teacher=TEACHER,
        max_miss=MAX_MISS,
        confidence=CONFIDENCE,
    )
    below = np.asarray(screen.settle(texts.take(pa.array(test)), pa.table({})).is_valid())
    held_out, allowed, bad = (
        screen.card.held_out_violations,
        screen.card.misses_allowed,
        violates[test],
    )
    # The most misses that are no more than the share, whatever the rounding of the product.
    most = math.floor(MAX_MISS * bad.sum() + 1e-9)
    return (
        below[bad].mean(),
        betabinom.sf(most, bad.sum(), allowed + 1, held_out - allowed),
        below.mean(),
    )


def promise(name: str, splits: int) -> None:
    texts, violates = labelled(name)
    started = time.perf_counter()
    missed, predicted, settled = np.array(
        [one_split(texts, violates, seed) for seed in range(splits)]
    ).T
    above = (missed > MAX_MISS + 1e-12).mean()
    print(
        f"{name}: {splits} splits, {above:.1%} miss more than {MAX_MISS:.0%}, "
        f"{predicted.mean():.1%} predicted "
        f"(goal: at most {predicted.mean() + 0.05:.1%}); missed {missed.mean():.2%} on average; "
        f"settled {settled.mean():.3f} (goal {GOALS[name]}), 5th to 95th percentile "
        f"{np.quantile(settled, 0.05):.3f} to {np.quantile(settled, 0.95):.3f}; "
        f"{(time.perf_counter() - started) / splits:.2f} s a split",
        flush=True,
    )


def speed(rounds: int) -> None:
    texts, violates = labelled("tweets")
    screen: Screen = calibrate_screen(texts, violates, teacher=TEACHER)
    vectorizer = HashingVectorizer(
        analyzer="char",
        ngram_range=(FEATURES.smallest, FEATURES.largest),
        n_features=2**FEATURES.bits,
    )
    theirs = make_pipeline(vectorizer, LogisticRegression(solver="liblinear", dual=True))
    words, known = texts.to_pylist(), np.arange(0, len(texts), 10)
    theirs.fit([words[i] for i in known], violates[known])
    for number in range(rounds):
        ours, sklearns = (
            _rate(lambda: screen.settle(texts, pa.table({})), len(words)),
            _rate(lambda: theirs.decision_function(words), len(words)),
        )
        print(
            (
                f"round {number + 1}: screen {ours:,.0f} rows/s, scikit-learn {sklearns:,.0f} "
                f"rows/s, {ours / sklearns:.1f} times as fast"
            ),
            flush=True,
        )


def _rate(call: Callable[[], object], rows: int) -> float:
    started = time.perf_counter()
    call()
    return rows / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    speed(options.rounds)
    for name in GOALS:
        promise(name, options.splits)


if __name__ == "__main__":
    main()
