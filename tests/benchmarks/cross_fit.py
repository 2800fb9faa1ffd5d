"""What cross-fitted screens settle beside today's, whether they keep their promise, and whether
the learning curve foretells what more labels settle.

On SPLITS random splits of each set a screen is calibrated both ways on one part (half of the set,
LABELS at most; 5% of violations missed at most, with confidence 0.95) and measured on the rest.
The rest is a sample too: a screen of today's that keeps its promise exceeds 5% there in a share of
splits that is known exactly (beta-binomial distribution), and is shown beside. For a cross-fitted
one nothing predicts it: that is what is measured.

The curve is drawn on CURVE_SPLITS parts of a set, and held against screens made from as many more
labels of it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import betabinom
from support.project import SHARED

from moderay.judges.cards import Teacher
from moderay.judges.screen import Screen
from moderay.tasks.calibrate.learning_curve import NoGain, gain_of_more
from moderay.tasks.calibrate.screen_training import calibrate_screen, cross_fitted_screen

MAX_MISS, CONFIDENCE = 0.05, 0.95
LABELS = 3000
TEACHER = Teacher(policy="bench", threshold=0.5, policy_key="none", source="people, as published")
CATEGORIES = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")
WAYS = {"today": calibrate_screen, "cross-fitted": cross_fitted_screen}


@dataclass(frozen=True)
class Labelled:
    """Texts, and which of them violate."""

    texts: pa.Array
    violates: np.ndarray

    def at(self, rows: np.ndarray) -> Labelled:
        return Labelled(self.texts.take(pa.array(rows)), self.violates[rows])


def _tweets(table: pa.Table) -> Labelled:
    return _labelled(table, table.column("label").to_numpy() != "neither")


def _sexual(table: pa.Table) -> Labelled:
    table = table.filter(table.column("S").is_valid())
    return _labelled(table, table.column("S").to_numpy() == 1)


def _any_of(table: pa.Table) -> Labelled:
    """What violates in any category; what is not known to counts as safe."""
    known = [table.column(name).fill_null(0).to_numpy() == 1 for name in CATEGORIES]
    return _labelled(table, np.any(known, axis=0))


def _hateful(table: pa.Table) -> Labelled:
    return _labelled(table, table.column("label").to_numpy() == "hateful")


def _labelled(table: pa.Table, violates: np.ndarray) -> Labelled:
    return Labelled(table.column("text").combine_chunks(), violates)


# Name, folder, and how it is read.
SETS: dict[str, tuple[str, Callable[[pa.Table], Labelled]]] = {
    "hatecheck": ("hatecheck", _hateful),
    "moderation S": ("openai_moderation", _sexual),
    "moderation any-of": ("openai_moderation", _any_of),
    "tweets": ("tweets", _tweets),
}


def read(name: str, data: Path) -> Labelled | None:
    """A set, or None where its folder is not there."""
    folder, labelled = SETS[name]
    files = sorted((data / folder).glob("*.parquet"))
    if not files:
        print(f"{name}: skipped, no Parquet in {folder} of the folder with the data", flush=True)
        return None
    return labelled(pa.concat_tables([pq.read_table(file, partitioning=None) for file in files]))


@dataclass(frozen=True)
class Measured:
    """What a screen does on contents that it has not seen."""

    missed: float
    settled: float
    predicted: float  # chance that a screen with the exact promise exceeds it on these contents

    @property
    def exceeded(self) -> bool:
        return self.missed > MAX_MISS + 1e-12


def measure(screen: Screen, test: Labelled) -> Measured:
    below = np.asarray(screen.settle(test.texts, pa.table({})).is_valid())
    bad = test.violates
    # The most misses that are no more than the share, whatever the rounding of the product.
    most = math.floor(MAX_MISS * bad.sum() + 1e-9)
    held, allowed = screen.card.held_out_violations, screen.card.misses_allowed
    return Measured(
        below[bad].mean(),
        below.mean(),
        betabinom.sf(most, bad.sum(), allowed + 1, held - allowed),
    )


def shuffled(all_: Labelled, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(all_.texts))


def made(way: str, labels: Labelled) -> Screen:
    return WAYS[way](
        labels.texts,
        labels.violates,
        teacher=TEACHER,
        max_miss=MAX_MISS,
        confidence=CONFIDENCE,
    )


def promise(name: str, all_: Labelled, splits: int) -> None:
    size = min(LABELS, len(all_.texts) // 2)
    started = time.process_time()
    results: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for seed in range(splits):
        order = shuffled(all_, seed)
        labels, test = all_.at(order[:size]), all_.at(order[size:])
        for way, found in results.items():
            found.append(measure(made(way, labels), test))
    print(
        f"{name}: {splits} splits, {size:,} of {len(all_.texts):,} labelled, "
        f"{all_.violates.mean():.0%} violate; {time.process_time() - started:.0f} s of CPU",
        flush=True,
    )
    for way, found in results.items():
        settled = np.array([one.settled for one in found])
        print(
            f"  {way:12} settled {settled.mean():.3f} "
            f"({np.quantile(settled, 0.05):.3f} to {np.quantile(settled, 0.95):.3f}), "
            f"missed {np.mean([one.missed for one in found]):.2%}, "
            f"promise exceeded in {np.mean([one.exceeded for one in found]):.1%}"
            + (f" ({np.mean([one.predicted for one in found]):.1%} predicted)" * (way == "today")),
            flush=True,
        )
    today, crossed = (np.mean([one.settled for one in found]) for found in results.values())
    print(f"  settled more: {crossed / today - 1:+.0%}", flush=True)


def curve(name: str, all_: Labelled, splits: int) -> None:
    """Half of the labels that `promise` has, and what as many more give."""
    more = min(1000, len(all_.texts) // 4)
    for way in WAYS:
        told, found, low, high = [], [], [], []
        started = time.process_time()
        for seed in range(splits):
            order = shuffled(all_, seed)
            few, many = all_.at(order[:more]), all_.at(order[: 2 * more])
            test = all_.at(order[2 * more :])
            screens = [made(way, few), made(way, many)]
            gain = gain_of_more(few.texts, few.violates, screens[0].card, more)
            if isinstance(gain, NoGain):
                print(f"{name}, {way}: {gain}", flush=True)
                return
            before, after = (measure(screen, test).settled for screen in screens)
            told.append(gain.estimate)
            found.append(after - before)
            low.append(gain.low)
            high.append(gain.high)
        mean = np.mean(found)
        covered = np.mean((np.array(low) <= mean) & (mean <= np.array(high)))
        print(
            f"{name}, {way}: {more:,} labels more than {more:,}, {splits} splits: foretold "
            f"{100 * np.mean(told):+.1f} points (sd {100 * np.std(told):.1f}), found "
            f"{100 * mean:+.1f} (sd {100 * np.std(found):.1f}); the mean found lies within the "
            f"spread in {covered:.0%}; {time.process_time() - started:.0f} s of CPU",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--curve-splits", type=int, default=8)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--data", type=Path, default=SHARED)
    options = parser.parse_args()
    for name in options.sets:
        labelled = read(name, options.data)
        if labelled is None:
            continue
        if options.splits:
            promise(name, labelled, options.splits)
        if options.curve_splits:
            curve(name, labelled, options.curve_splits)


if __name__ == "__main__":
    main()
