"""Nights side by side: what each brought, what differs since when, and what of that rings.

A night is what the runs of one date published for the first time or judged anew, so that a shard
that is published again does not count twice. A change is looked for where it is likeliest to have
begun. It rings where it is both as large as the job's `alarms:` say and more than chance: with 10^7
rows the smallest change is certain, and no reason to wake anybody; with a hundred, a large one says
nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtrc, chdtri, ndtri, stdtrit, xlogy

from moderay.config.job import Alarms
from moderay.core.errors import UserError
from moderay.core.storage import filesystem, is_glob, plain_errors, shown
from moderay.core.verdicts import RETRYABLE, Status
from moderay.labels.analysis.intervals import interval
from moderay.labels.decisions import EDGES
from moderay.labels.layout import Layout, outputs, read_manifest

Counts = np.ndarray

# How often chance alone may look like a change, over all nights from which on it may have begun.
CHANCE = 0.001
# Nights before a change: with fewer it is not known how much they differ among themselves.
BEFORE = 3
# Nights that differ among themselves by what chance makes more seldom than this do so by nature.
WOBBLE = 0.01
# Of the intervals that are shown.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Night:
    """What the runs of one date added. `shards`: published for the first time, `changed`: published
    again; `policies`: counts of `decisions.summary` and `decisions.distribution`. `requests`,
    `tokens` (prompts and answers) and `gpu_s` (seconds of a GPU) are what these runs cost, without
    those that were killed.
    """

    date: str
    rows: int
    shards: int
    changed: int
    flagged: int
    policies: Mapping[str, Mapping[str, int]]
    requests: int = 0
    tokens: int = 0
    gpu_s: float = 0.0


@dataclass(frozen=True)
class Share:
    """`count` of `of` rows. `low` and `high`: 95% confidence (Clopper-Pearson)."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True)
class Change:
    """A share before the night `since`, and from it on. `ratio`: of the two, as [low, estimate,
    high].
    """

    since: str
    before: Share
    after: Share
    ratio: tuple[float, float, float]

    def beyond(self, limit: float) -> bool:
        """Whether the change is as large as that, and not chance."""
        low, times, high = self.ratio
        return (low > 1 and times > 1 + limit) or (high < 1 and times < 1 / (1 + limit))


@dataclass(frozen=True)
class Drift:
    """How far the distribution of P(violates) from the night `since` on is from the one before:
    Jensen-Shannon distance, 0 for the same and 1 for nothing in common, whatever the number of
    rows. `certain`: more than chance makes.
    """

    since: str
    distance: float
    certain: bool


@dataclass(frozen=True)
class Series:
    """One policy through the nights that judged rows under it. `flagged` and `labels`: shares of
    the rows with a verdict; `failed`: of all its rows; `reasons`: why rows failed on the last night
    and on no other.
    """

    dates: tuple[str, ...]
    flagged: tuple[Share, ...]
    labels: Mapping[str, tuple[Share, ...]]
    failed: tuple[Share, ...]
    reasons: tuple[str, ...]
    change: Change | None
    drift: Drift | None


@dataclass(frozen=True)
class Alarm:
    """`since`: the night from which on `policy` is not what it was; None for what is said of the
    last night alone, and no policy for what is said of all.
    """

    text: str
    policy: str | None = None
    since: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Trend:
    nights: tuple[Night, ...]
    policies: Mapping[str, Series]
    alarms: tuple[Alarm, ...]


def found_nights(urls: Sequence[str], storage: Mapping[str, Any]) -> list[Night]:
    """The nights of these outputs; a URL may also be a folder of outputs, or a glob. Raises
    `UserError` where there are none.
    """
    manifests = [manifest for url in urls for manifest in _manifests(url, storage)]
    if found := nights(manifests):
        return found
    raise UserError(
        f"{', '.join(map(shown, urls))}: no run of these outputs has ended yet, so that there is "
        "no night to look at"
    )


def _manifests(url: str, storage: Mapping[str, Any]) -> list[dict[str, Any]]:
    with plain_errors(url):
        manifest = (
            None if is_glob(*filesystem(url, storage)) else read_manifest(Layout(url, storage))
        )
        if manifest is not None:
            return [manifest]
        below = outputs(
            url if is_glob(*filesystem(url, storage)) else f"{url.rstrip('/')}/*", storage
        )
        found = [
            manifest
            for output in below
            if (manifest := read_manifest(Layout(output, storage))) is not None
        ]
    if not found:
        raise UserError(
            f"{shown(url)} holds no labels of moderay, nor does a folder in it: there is no "
            "_moderay/manifest.json"
        )
    return found


def nights(manifests: Iterable[Mapping[str, Any]]) -> list[Night]:
    """The nights of these outputs' manifests, by date."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for manifest in manifests:
        for run in manifest["runs"]:
            if "new" in run:
                found.setdefault(run["date"], []).append(run)
    return [_night(date, runs) for date, runs in sorted(found.items())]


def _night(date: str, runs: Sequence[Mapping[str, Any]]) -> Night:
    policies: dict[str, Counter[str]] = {}
    for run in runs:
        for name, counts in run["new"]["policies"].items():
            policies.setdefault(name, Counter()).update(counts)
    rows, shards, changed, flagged = (
        sum(run["new"][name] for run in runs) for name in ("rows", "shards", "changed", "flagged")
    )
    requests, prompts, answers = (
        sum(run.get("usage", {}).get(name, 0) for run in runs)
        for name in ("requests", "prompt_tokens", "output_tokens")
    )
    gpu_s = sum(run.get("seconds", 0.0) * run["hardware"]["gpus"] for run in runs)
    return Night(
        date,
        rows,
        shards,
        changed,
        flagged,
        {name: dict(counts) for name, counts in policies.items()},
        requests,
        prompts + answers,
        gpu_s,
    )


def trend(found: Sequence[Night], rules: Alarms) -> Trend:
    """What differs among nights, in order; alarms are about what still holds on the last one."""
    if not found:
        return Trend((), {}, ())
    policies = {
        name: _series(found, name)
        for name in dict.fromkeys(name for night in found for name in night.policies)
    }
    alarms = [
        alarm
        for name, series in policies.items()
        if series.dates[-1:] == (found[-1].date,)
        for alarm in _alarms(name, series, rules)
    ]
    return Trend(tuple(found), policies, (*alarms, *_token_alarm(found, rules)))


def _series(found: Sequence[Night], policy: str) -> Series:
    mine = [
        (night.date, night.policies[policy])
        for night in found
        if policy in night.policies and night.rows
    ]
    dates, counts = tuple(date for date, _ in mine), [said for _, said in mine]
    labels = sorted({name for said in counts for name in said if name.startswith("label.")})
    judged = [said.get("ok", 0) for said in counts]
    flagged = [said.get("flagged", 0) for said in counts]
    failed = [sum(said.get(status.value, 0) for status in RETRYABLE) for said in counts]
    rows = [sum(said.get(status.value, 0) for status in Status) for said in counts]
    return Series(
        dates,
        shares(flagged, judged),
        {
            name.removeprefix("label."): shares([said.get(name, 0) for said in counts], judged)
            for name in labels
        },
        shares(failed, rows),
        _new_reasons(counts),
        change(dates, np.array(flagged), np.array(judged)),
        drift(
            dates,
            np.array(
                [
                    [said.get(f"p.{number}", 0) for number in range(len(EDGES) + 1)]
                    for said in counts
                ]
            ),
        ),
    )


def _new_reasons(counts: Sequence[Mapping[str, int]]) -> tuple[str, ...]:
    *before, last = [
        {name.removeprefix("reason.") for name in said if name.startswith("reason.")}
        for said in counts
    ] or [set()]
    return tuple(sorted(last.difference(*before)))


def shares(counts: Sequence[int], of: Sequence[int]) -> tuple[Share, ...]:
    return tuple(Share(k, n, *interval(k, n, CONFIDENCE)) for k, n in zip(counts, of, strict=True))


def change(dates: Sequence[str], hits: Counts, of: Counts) -> Change | None:
    """The change of a share that is likeliest among these nights; None for a single one.

    Its ratio has Katz's interval for a ratio of two shares (https://doi.org/10.2307/2530610), with
    half a hit more on either side, so that none is no problem, and wider where the nights before
    and after differ among themselves by more than chance: a share that goes up and down every week
    has not changed.
    """
    table = np.stack([hits, of - hits], axis=1)
    split = _split(table)
    if split is None:
        return None
    (x0, y0), (x1, y1) = table[:split].sum(axis=0), table[split:].sum(axis=0)
    before, after = shares([int(x0), int(x1)], [int(x0 + y0), int(x1 + y1)])
    ratio = ((x1 + 0.5) / (x1 + y1 + 0.5)) / ((x0 + 0.5) / (x0 + y0 + 0.5))
    variance = 1 / (x1 + 0.5) - 1 / (x1 + y1 + 0.5) + 1 / (x0 + 0.5) - 1 / (x0 + y0 + 0.5)
    wide = math.exp(_deviations(table, split) * math.sqrt(variance))
    return Change(dates[split], before, after, (ratio / wide, ratio, ratio * wide))


def drift(dates: Sequence[str], bins: Counts) -> Drift | None:
    """The change of a distribution that is likeliest among these nights; None for a single one, or
    without probabilities. `bins`: rows by night and bin.
    """
    bins = bins[:, bins.sum(axis=0) > 0]
    split = _split(bins)
    if split is None:
        return None
    before, after = (part.sum(axis=0) / part.sum() for part in (bins[:split], bins[split:]))
    middle = (before + after) / 2
    divergence = (_information(before) + _information(after)) / 2 - _information(middle)
    least = chdtri(max(1, bins.shape[1] - 1), CHANCE / _splits(len(bins)))
    return Drift(
        dates[split],
        math.sqrt(max(0.0, divergence / math.log(2))),
        bool(_likelihood_ratios(bins)[split - 1] > least),
    )


def _split(table: Counts) -> int | None:
    """The night from which on the counts (by night and kind) differ most from those before: where
    the likelihood ratio of two distributions against one is largest. None where there is too little
    to compare.
    """
    with_rows = np.flatnonzero(table.sum(axis=1))
    if len(with_rows) <= BEFORE:
        return None
    # Behind BEFORE nights with rows, and not behind the last.
    first = int(with_rows[BEFORE - 1])
    return first + 1 + int(np.argmax(_likelihood_ratios(table)[first : with_rows[-1]]))


def _splits(nights: int) -> int:
    return max(1, nights - BEFORE)


def _likelihood_ratios(table: Counts) -> np.ndarray:
    """For each split, at index `split - 1`: G, twice the logarithm of the likelihood ratio, of the
    summed counts before and after.
    """
    before = np.cumsum(table, axis=0)[:-1]
    after = table.sum(axis=0) - before
    return np.asarray(
        2 * (_information(before) + _information(after) - _information(table.sum(axis=0)))
    )


def _information(counts: Counts) -> np.ndarray:
    """Sum of x ln(x / n) over the last axis."""
    return np.asarray(
        xlogy(counts, counts).sum(axis=-1) - xlogy(counts.sum(axis=-1), counts.sum(axis=-1))
    )


def _deviations(table: Counts, split: int) -> float:
    """Standard deviations of chance that a change must go beyond. Where the nights on either side
    differ among themselves by more than chance, its variance is multiplied by Pearson's statistic
    over its degrees of freedom, and the quantile is Student's, since that was estimated
    (quasi-likelihood: McCullagh and Nelder, Generalized Linear Models, 4.5).
    """
    level = 1 - CHANCE / 2 / _splits(len(table))
    statistic, freedom = 0.0, -2
    for part in (table[:split], table[split:]):
        expected = np.outer(part.sum(axis=1), part.sum(axis=0)) / part.sum()
        likely = expected > 0
        statistic += float(((part - expected)[likely] ** 2 / expected[likely]).sum())
        freedom += int((part.sum(axis=1) > 0).sum())
    if chdtrc(freedom, statistic) > WOBBLE:
        return float(ndtri(level))
    return float(stdtrit(freedom, level)) * math.sqrt(statistic / freedom)


def _alarms(policy: str, series: Series, rules: Alarms) -> Iterable[Alarm]:
    change, drift, failed = series.change, series.drift, series.failed[-1]
    if rules.flagged is not None and change is not None and change.beyond(rules.flagged):
        low, times, high = change.ratio
        text = (
            f"{policy}: flagged are {change.after.value:.2%} of {change.after.of:,} rows since "
            f"{change.since}, "
            f"{change.before.value:.2%} of {change.before.of:,} before: {times:.2f} times as "
            f"many ({low:.2f} to {high:.2f})"
        )
        yield Alarm(text, policy, change.since)
    if (
        rules.drift is not None
        and drift is not None
        and drift.certain
        and drift.distance > rules.drift
    ):
        text = (
            f"{policy}: P(violates) is distributed otherwise since {drift.since}: distance "
            f"{drift.distance:.2f}, limit {rules.drift:g}"
        )
        yield Alarm(text, policy, drift.since)
    if rules.failed is not None and failed.low > rules.failed:
        yield Alarm(
            (
                f"{policy}: {failed.value:.2%} of {failed.of:,} rows of {series.dates[-1]} failed; "
                f"limit {rules.failed:.2%}"
            ),
            policy,
        )


def _token_alarm(found: Sequence[Night], rules: Alarms) -> Iterable[Alarm]:
    """Of what a row costs nothing is left to chance: the last night against all others."""
    *before, last = found
    rows = sum(night.rows for night in before)
    if rules.tokens is None or not rows or not last.rows:
        return
    usual, now = sum(night.tokens for night in before) / rows, last.tokens / last.rows
    if now > (1 + rules.tokens) * usual:
        yield Alarm(
            f"{now:,.1f} tokens a row on {last.date}, {usual:,.1f} before; limit "
            f"{1 + rules.tokens:g} times as many"
        )
