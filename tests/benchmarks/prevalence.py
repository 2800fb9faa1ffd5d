"""Whether the intervals of `moderay prevalence` hold, and how wide they are.

`python -m benchmarks.prevalence` (under five minutes on one core) draws reviews with replacement
from corpora of which people said what violates, and from simulated ones, at true shares of 25%, 5%,
1% and 0.2%, with 100, 300 and 1,000 reviews, 1,000 repeats each; the repeats are the first ones of
seed 0. A share is reached by weighing violations against the rest. P is that of a small classifier
that is cross-fitted on the corpus's own labels, so that at another share than the corpus's it is
badly calibrated, as models are. Counted is how often the interval holds the true share: of all
rows, of the kept, of the removed. No cell may fall below 0.95 by a one-sided binomial test at 0.1%,
Bonferroni over the cells. The width is beside that of the exact interval (Clopper-Pearson) of as
many reviews drawn from all rows alike.

`--others` adds ways that were tried and not taken: the cap on n_eff (Korn and Graubard) that the
method began with, and other parts of the reviews dealt by rows alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from scipy.special import betaincinv, expit
from scipy.stats import binom
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from support.project import ROOT

from moderay.labels.analysis.prevalence import allocation
from moderay.labels.analysis.prevalence.allocation import StratumRows, allocate
from moderay.labels.analysis.prevalence.interval import Floats, StratumHits, stratified_interval
from moderay.labels.analysis.prevalence.strata import (
    Strata,
    bins_of,
    midpoints,
    strata_of,
    uncertainty,
)
from moderay.labels.shard_profile import BINS

DATA = ROOT.parent / "shared/data"
SHARES, REVIEWS, REPEATS = (0.25, 0.05, 0.01, 0.002), (100, 300, 1_000), 1_000
THRESHOLD, CONFIDENCE = 0.5, 0.95
# Rows of a corpus, as they are dealt; draws are with replacement.
ROWS = 10**9
# A policy with fewer violations is no corpus.
FEWEST = 20

Interval = Callable[[StratumHits], tuple[Floats, Floats]]
# P of each row, and whether it violates.
Corpus = tuple[Floats, np.ndarray]


@dataclass(frozen=True)
class Cell:
    """A corpus at a share, with so many reviews.

    Attributes:
        name: of the corpus.
        share: of it that violates.
        reviews: how many.
        strata: whose rows are dealt.
        rates: share of each stratum that violates.
        removed: which strata are removed.
    """

    name: str
    share: float
    reviews: int
    strata: StratumRows
    rates: Floats
    removed: np.ndarray


def simulated() -> dict[str, Corpus]:
    """Models that are good, fair, useless, blind to some or all violations, sure and wrong."""
    rng = np.random.default_rng(0)
    n = 40_000
    y = np.arange(n) < n // 2
    good = rng.normal(np.where(y, 4, -6), 2)
    logits = {
        "good": good,
        "fair": rng.normal(np.where(y, 1.5, -4), 2.5),
        "useless": rng.normal(-3, 2, n),
        "blind to 30%": np.where(y & (rng.random(n) < 0.3), rng.normal(-9, 1, n), good),
        "blind to all": rng.normal(-7, 1.5, n),
        "two points": np.where(y ^ (rng.random(n) < 0.05), 4.0, -5.0),
        "sure": np.where(y ^ (rng.random(n) < 0.02), 9.0, -9.0) + rng.normal(0, 0.3, n),
        "the wrong way": rng.normal(np.where(y, -7, -2), 2),
    }
    return {f"simulated: {name}": (expit(each), y) for name, each in logits.items()}


def labelled() -> dict[str, Corpus]:
    """Corpora that people labelled, policy by policy; none where they are not there."""

    def read(folder: str) -> pl.DataFrame:
        return pl.read_parquet(DATA / folder / "*.parquet")

    tweets, checks, mixed = read("tweets"), read("hatecheck"), read("openai_moderation")
    kinds = {
        "tweets: hate": (tweets["text"], tweets["label"] == "hate"),
        "tweets: offensive": (tweets["text"], tweets["label"] != "neither"),
        "hatecheck": (checks["text"], checks["label"] == "hateful"),
    }
    for kind in ("S", "H", "V", "HR", "SH", "S3", "H2", "V2"):
        known = mixed.filter(pl.col(kind).is_not_null())
        kinds[f"moderation: {kind}"] = (known["text"], known[kind] == 1)
    return {
        name: (_cross_fitted(texts.to_list(), said.to_numpy()), said.to_numpy())
        for name, (texts, said) in kinds.items()
        if said.sum() >= FEWEST
    }


def _cross_fitted(texts: Sequence[str], violates: np.ndarray) -> Floats:
    """P of each text by a classifier that did not see its label."""
    words = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), min_df=3, max_features=30_000, sublinear_tf=True
    )
    model = LogisticRegression(C=5, solver="liblinear")
    columns = words.fit_transform(texts)
    p = cross_val_predict(model, columns, violates, cv=3, method="predict_proba")
    return np.asarray(p[:, 1], np.float64)


def cell(name: str, corpus: Corpus, share: float, reviews: int) -> Cell:
    """A corpus weighed to a share."""
    p, violates = corpus
    bins = bins_of(p)
    of_safe, of_violating = (
        np.bincount(bins[mask], minlength=BINS) / mask.sum() for mask in (~violates, violates)
    )
    hits = share * of_violating
    rows = hits + (1 - share) * of_safe
    strata: Strata = strata_of(rows, THRESHOLD)
    middle = midpoints()
    numbers = strata.of(middle, middle >= THRESHOLD)

    def total(values: Floats) -> Floats:
        return np.bincount(numbers, values, minlength=len(strata)).astype(np.float64)

    sizes = total(rows)
    some = sizes > 1 / ROWS
    sizes = sizes[some]
    return Cell(
        name,
        share,
        reviews,
        StratumRows(
            np.round(sizes * ROWS).astype(np.int64),
            total(rows * middle)[some] / sizes,
            total(rows * uncertainty(middle))[some] / sizes,
        ),
        np.clip(total(hits)[some] / sizes, 0, 1),
        strata.is_removed[some],
    )


def cells(corpora: Mapping[str, Corpus]) -> Iterator[Cell]:
    """Every corpus at every share with every number of reviews."""
    for name, corpus in corpora.items():
        for share in SHARES:
            for reviews in REVIEWS:
                yield cell(name, corpus, share, reviews)


def measured(
    of: Cell, repeats: int, interval: Interval, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """Of all rows, the kept and the removed: how often the interval holds, and its mean width."""
    dealt = allocate(of.strata, of.reviews)
    hits = rng.binomial(dealt, of.rates, (repeats, len(dealt)))
    every = np.ones(len(dealt), bool)
    for part, mask in (("all", every), ("kept", ~of.removed), ("removed", of.removed)):
        if not mask.any():
            continue
        sizes = of.strata.rows[mask]
        weights = sizes / sizes.sum()
        true = float(weights @ of.rates[mask])
        # Repeats that came out alike are looked at once.
        outcomes, counts = np.unique(hits[:, mask], axis=0, return_counts=True)
        low, high = interval(StratumHits.of(sizes, dealt[mask], outcomes, drawn=True))
        inside = counts[(low <= true + 1e-12) & (true <= high + 1e-12)].sum()
        # As many reviews of all rows, of which so many fall into this part.
        alike = max(1, round(of.reviews * sizes.sum() / of.strata.rows.sum()))
        yield {
            "corpus": of.name,
            "share": of.share,
            "reviews": of.reviews,
            "of": part,
            "true": true,
            "inside": int(inside),
            "width": float(((high - low) * counts).sum() / repeats),
            "classical": classical_width(alike, true),
        }


def hardest(corpora: Mapping[str, Corpus], interval: Interval) -> float:
    """The lowest coverage where all violations lie in one stratum, at any of many rates; exact.

    There a model is wrong in the way that its strata show least.
    """
    lowest = 1.0
    for of in cells(corpora):
        dealt = allocate(of.strata, of.reviews)
        for number, reviews in enumerate(dealt):
            k = np.arange(reviews + 1)
            hits = np.zeros((len(k), len(dealt)))
            hits[:, number] = k
            sample = StratumHits.of(of.strata.rows, dealt, hits, drawn=True)
            low, high = interval(sample)
            rates = np.unique(np.clip(np.geomspace(0.1, reviews, 60) / reviews, 0, 1))
            true = sample.weights[number] * rates[:, None]
            chance = binom.pmf(k, reviews, rates[:, None])
            covered = (chance * ((low <= true + 1e-12) & (true <= high + 1e-12))).sum(axis=1)
            lowest = min(lowest, float(covered.min()))
    return lowest


def classical_width(reviews: int, share: float) -> float:
    """Mean width of the interval of Clopper and Pearson."""
    k = np.arange(reviews + 1)
    chance = binom.pmf(k, reviews, share)
    low, high = stratified_interval(StratumHits.of([ROWS], [reviews], k[:, None]), CONFIDENCE)
    return float((high - low) @ chance)


def capped(cap: float, sample: StratumHits) -> tuple[Floats, Floats]:
    """The way that was asked for first: Clopper-Pearson at n_eff, at most `cap` times n."""
    n = sample.reviews.sum()
    size = np.where(sample.variance > 0, np.minimum(sample.effective_size, cap * n), n)
    k = sample.share * size
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, betaincinv(k, size - k + 1, 0.025), 0.0)
        high = np.where(k < size, betaincinv(k + 1, size - k, 0.975), 1.0)
    return low, high


def table(
    corpora: Mapping[str, Corpus], interval: Interval, repeats: int = REPEATS
) -> pl.DataFrame:
    """A row for each cell and part."""
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        [row for each in cells(corpora) for row in measured(each, repeats, interval, rng)]
    )


def under(found: pl.DataFrame, repeats: int = REPEATS) -> pl.DataFrame:
    """The rows that cover less than they say, by more than chance."""
    fewest = binom.ppf(0.001 / len(found), repeats, CONFIDENCE)
    return found.filter(pl.col("inside") < fewest)


def summary(found: pl.DataFrame, by: Sequence[str], repeats: int = REPEATS) -> pl.DataFrame:
    """The lowest coverage of some rows, and how their widths are to the classical ones."""
    ratio = pl.col("width") / pl.col("classical")
    return found.group_by(*by, maintain_order=True).agg(
        (pl.col("inside").min() / repeats).alias("lowest coverage"),
        (pl.col("inside").mean() / repeats).round(4).alias("mean coverage"),
        ratio.log().mean().exp().round(3).alias("width to classical"),
        ratio.max().round(3).alias("at worst"),
        (1 / ratio**2).max().round(1).alias("times fewer reviews, at best"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--others", action="store_true", help="Ways that were not taken, too.")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    corpora = {**labelled(), **simulated()}
    ways: dict[str, tuple[float, Interval]] = {"taken": (allocation.BY_ROWS, stratified_interval)}
    if options.others:
        others: dict[str, Interval] = {
            "taken": stratified_interval,
            "n_eff at most 2n": partial(capped, 2.0),
            "n_eff at most n": partial(capped, 1.0),
        }
        ways |= {
            f"{name}, {part:.0%} by rows": (part, interval)
            for part in (0.5, 0.75, 0.9, 1.0)
            for name, interval in others.items()
        }
    failed = False
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=40):
        for name, (part, interval) in ways.items():
            allocation.BY_ROWS = part
            found = table(corpora, interval, options.repeats)
            print(f"\n{name}: {len(found):,} cells of {options.repeats:,} repeats")
            print(summary(found, ["of", "reviews"], options.repeats))
            if name == "taken":
                print(summary(found.filter(pl.col("of") == "all"), ["corpus"], options.repeats))
                print(summary(found.filter(pl.col("of") == "all"), ["share"], options.repeats))
            print(f"all in one stratum, exactly: at least {hardest(corpora, interval):.4f}")
            print(
                f"cells that cover less than {CONFIDENCE:.0%}: {len(under(found, options.repeats))}"
            )
            if len(under(found, options.repeats)):
                print(under(found, options.repeats))
                failed |= name == "taken"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
