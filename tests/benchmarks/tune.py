"""How often does a certificate of `tune` promise too much, and what does the cascade save?

Gold is what people said of public data sets; what judges say of each content is scripted from it,
with noise, once for each data set. On SPLITS random splits a part is gold to tune with, and the
rest is untouched. A certificate is wrong where the certified cascade's recall, or precision, on all
contents that it was not chosen on (those of the certify part and the untouched ones) is below the
goal: that may happen in 5% of the splits, splits without a certificate included. The untouched ones
alone are a sample too, so a cascade may miss the goal there and reach it on the whole: beside how
often that happens stands the largest chance of it for one cascade, whatever its misses, which is
known exactly from the hypergeometric distribution.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import binom
from support.project import SHARED

from moderay.tasks.gold_parts import SHARES
from moderay.tasks.tune.certificate import Goal, recall_needed, wrong_certificates
from moderay.tasks.tune.choice import choose
from moderay.tasks.tune.columns import Answers, GoldColumns, Shape
from moderay.tasks.tune.search import Candidate, Space, candidate

GOAL = Goal(recall=0.95, precision=0.8, confidence=0.95)
# Of the contents, the share that is gold to tune with: certificates need 59 violations.
TUNED = {"tweets": 0.4, "moderation S": 0.85, "moderation any": 0.8}
# How well judges tell contents apart, in log-odds: the distance of the two means, and the noise;
# and the output tokens of a judge on average.
JUDGES = {
    ("glance", "low"): (5.0, 1.8, 1),
    ("glance", "high"): (5.0, 1.8, 1),
    ("reason", "low"): (10.0, 1.7, 160),
    ("reason", "high"): (11.0, 1.6, 600),
}
# The policy's part of a prompt, and what stands around a content.
PREFIX, AROUND = 600, 10


def labelled(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of distinct contents, and which of them violate."""
    folder = SHARED / ("tweets" if name == "tweets" else "openai_moderation")
    files = sorted(folder.glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
    if name == "tweets":
        violates = table.column("label").to_numpy() == "hate"
    else:
        names = ["S"] if name.endswith(" S") else ["S", "H", "V", "HR", "SH", "S3", "H2", "V2"]
        values = np.stack([table.column(each).to_numpy() for each in names])
        # Not known to violate under any, and not known not to under all, is unknown.
        known = (values == 1).any(axis=0) | (values == 0).all(axis=0)
        table = table.filter(pa.array(known))
        violates = (values[:, known] == 1).any(axis=0)
    texts = table.column("text").to_pylist()
    _, first = np.unique(texts, return_index=True)
    return np.array([len(texts[row].encode()) for row in first]), violates[first]


def scripted(sizes: np.ndarray, violates: np.ndarray) -> GoldColumns:
    """What judges say of the contents; the same each time."""
    rng = np.random.default_rng(0)
    rows = len(violates)
    prompts = PREFIX + AROUND + sizes // 4
    # What is hard for one judge is hard for the others too, in part.
    hard = rng.normal(0, 1, rows)

    def said(distance: float, noise: float, output: int) -> Answers:
        luck = 0.6 * hard + 0.8 * rng.normal(0, 1, rows)
        logit = np.where(violates, distance / 2, -distance / 2) + noise * luck
        written = np.ones(rows) if output == 1 else rng.lognormal(np.log(output) - 0.125, 0.5, rows)
        return Answers(
            (1 / (1 + np.exp(-logit))).astype(np.float32),
            prompts,
            np.full(rows, PREFIX),
            written.round().astype(np.int64),
        )

    judges = {judge: said(*how) for judge, how in JUDGES.items()}
    return GoldColumns(
        violates,
        np.full(rows, np.nan, np.float32),
        None,
        {effort: each for (name, effort), each in judges.items() if name == "glance"},
        {effort: each for (name, effort), each in judges.items() if name == "reason"},
    )


@dataclass(frozen=True)
class Split:
    """What came of one split; of the certified cascade, where there is one.

    Attributes:
        whole: On the contents that it was not chosen on.
        untouched: On the rest alone.
        own: The job's own cascade there.
        chance: The largest chance that one cascade is certified and misses the goal on the rest.
        needed: The true recall that passes in four of five draws.
    """

    whole: Candidate | None
    untouched: Candidate | None
    own: Candidate
    chance: float
    needed: float | None


def one_split(columns: GoldColumns, share: float, seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(len(columns))
    tuned = round(share * len(order))
    cut = round((1 - SHARES["certify"]) * tuned)
    select, certify, rest = np.split(order, [cut, tuned])
    own = Shape("low")
    found = choose(columns.at(select), columns.at(certify), Space(own), GOAL)
    certifying, left = int(columns.violates[certify].sum()), int(columns.violates[rest].sum())
    whole = untouched = None
    if found.chosen is not None:
        chosen = found.tested[found.chosen]
        both = np.concatenate([certify, rest])
        whole = candidate(columns.at(both), chosen.shape, chosen.threshold)
        untouched = candidate(columns.at(rest), chosen.shape, chosen.threshold)
    return Split(
        whole,
        untouched,
        candidate(columns.at(rest), own, 0.5),
        wrong_certificates(certifying, left, GOAL),
        recall_needed(certifying, GOAL),
    )


def _below(found: list[Candidate | None], figure: str, goal: float) -> int:
    return sum(
        each is not None and (getattr(each.found, figure) or 0.0) < goal - 1e-12 for each in found
    )


def certificates(name: str, splits: int) -> None:
    columns = scripted(*labelled(name))
    started = time.perf_counter()
    all_splits = [one_split(columns, TUNED[name], seed) for seed in range(splits)]
    seconds = (time.perf_counter() - started) / splits
    whole = [each.whole for each in all_splits]
    untouched = [each.untouched for each in all_splits]
    wrong = sum(each is not None and not each.reaches(GOAL) for each in whole)
    certified = sum(each is not None for each in untouched)
    needed = [each.needed for each in all_splits if each.needed is not None]
    most = binom.isf(0.001, splits, 1 - GOAL.confidence)
    print(
        f"{name}: {len(columns):,} distinct contents, {columns.violates.mean():.0%} violate; "
        f"{splits} splits, {certified} certified, {splits - len(needed)} with too few violations; "
        f"wrong {wrong} ({wrong / splits:.1%}; goal: 5%, and no more than {most:.0f}, as chance "
        "makes of it once in a thousand times); recall missed on the untouched alone "
        f"{_below(untouched, 'recall', GOAL.recall)} "
        f"({np.mean([each.chance for each in all_splits]):.1%} predicted at most), precision "
        f"{_below(untouched, 'precision', GOAL.precision)}; {seconds:.2f} s a split",
        flush=True,
    )
    if certified:
        _cost(all_splits)
        print(f"  power: a true recall of {np.mean(needed):.3f} passes in four of five draws")


def _cost(all_splits: list[Split]) -> None:
    """Recall and tokens of certified cascades beside the job's own, on the untouched contents."""
    pairs = [(each.untouched, each.own) for each in all_splits if each.untouched is not None]
    recall, own_recall = (
        np.mean([pair[side].found.recall or 0.0 for pair in pairs]) for side in (0, 1)
    )
    tokens, own_tokens = (np.array([pair[side].tokens for pair in pairs]) for side in (0, 1))
    saved = 1 - tokens / own_tokens
    print(
        f"  recall there {recall:.4f} on average, the job's own {own_recall:.4f}; tokens a "
        f"content {tokens.mean():.1f}, the job's own {own_tokens.mean():.1f}: saved "
        f"{saved.mean():.0%}, 5th to 95th percentile {np.quantile(saved, 0.05):.0%} to "
        f"{np.quantile(saved, 0.95):.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=200)
    options = parser.parse_args()
    for name in TUNED:
        if not (SHARED / "tweets").is_dir() or not (SHARED / "openai_moderation").is_dir():
            print(f"{name}: skipped, no data in {SHARED}")
            continue
        certificates(name, options.splits)


if __name__ == "__main__":
    main()
