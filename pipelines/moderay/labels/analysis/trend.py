"""Nights side by side: what each brought, what differs since when, and what of that rings.

A night is what the runs of one date published for the first time or judged anew, so that a shard
that is published again does not count twice. A change rings where it is both as large as the job's
`alarms:` say and more than chance: with 10^7 rows the smallest change is certain, and no reason to
wake anybody; with a hundred, a large one says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np

from moderay.config.job import Alarms
from moderay.core.errors import UserError
from moderay.core.records import RecordPart
from moderay.core.storage import filesystem, is_glob, plain_errors, shown
from moderay.core.wording import counted
from moderay.labels.analysis.changes import Change, Drift, Share, change, drift, shares
from moderay.labels.counts import CountsTotal, PolicyCounts
from moderay.labels.decisions import EDGES
from moderay.labels.layout import Layout
from moderay.labels.manifest_record import Manifest, NewLabels, RunRecord
from moderay.labels.manifest_store import outputs, read_manifest
from moderay.labels.prevalence_records import PrevalenceEstimate
from moderay.labels.prevalence_store import read_estimates

# By policy and label.
LabelTitles: TypeAlias = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Night:
    """What the runs of one date added; the costs are without those of runs that were killed.

    Attributes:
        date: ISO 8601.
        rows: that were judged.
        shards: published for the first time.
        changed: shards published again.
        flagged: rows that violate some policy.
        policies: counts of these rows by policy.
        requests: to the engines.
        tokens: of prompts and answers.
        gpu_s: seconds of a GPU.
    """

    date: str
    rows: int
    shards: int
    changed: int
    flagged: int
    policies: Mapping[str, PolicyCounts]
    requests: int = 0
    tokens: int = 0
    gpu_s: float = 0.0


@dataclass(frozen=True)
class Series:
    """One policy through the nights that judged rows under it.

    Attributes:
        dates: of these nights.
        flagged: shares of the rows with a verdict.
        labels: shares of the rows with a verdict, by label.
        failed: shares of all its rows.
        forced: shares of the rows with a verdict.
        reasons: why rows failed on the last night and on no other.
        change: of the flagged share.
        drift: of P(violates).
    """

    dates: tuple[str, ...]
    flagged: tuple[Share, ...]
    labels: Mapping[str, tuple[Share, ...]]
    failed: tuple[Share, ...]
    forced: tuple[Share, ...]
    reasons: tuple[str, ...]
    change: Change | None
    drift: Drift | None


@dataclass(frozen=True)
class Alarm:
    """Something to look at.

    Attributes:
        text: a sentence.
        policy: which is not what it was; None for what concerns all.
        since: the night from which on that is so; None for what concerns the last night alone.
    """

    text: str
    policy: str | None = None
    since: str | None = None

    def __str__(self) -> str:
        """The sentence."""
        return self.text


@dataclass(frozen=True)
class Trend:
    """Nights side by side.

    Attributes:
        nights: in order.
        policies: by id.
        alarms: about what still holds on the last night.
        label_titles: what labels mean, by policy and label, where an output says it.
        prevalence: how much truly violates, by people's reviews, in the order of the plans.
    """

    nights: tuple[Night, ...]
    policies: Mapping[str, Series]
    alarms: tuple[Alarm, ...]
    label_titles: LabelTitles = field(default_factory=dict)
    prevalence: tuple[PrevalenceEstimate, ...] = ()


def read_nights(urls: Sequence[str], storage: Mapping[str, Any]) -> tuple[list[Night], LabelTitles]:
    """The nights of these outputs; a URL may also be a folder of outputs, or a glob.

    Returns:
        The nights by date, and what the labels of their policies mean.

    Raises:
        UserError: there are none.
    """
    manifests = [manifest for url in urls for _, manifest in _outputs(url, storage)]
    titles: dict[str, dict[str, str]] = {}
    for manifest in manifests:
        for name, policy in manifest.policies.items():
            titles.setdefault(name, {}).update(policy.label_titles)
    if by_date := nights(run for manifest in manifests for run in manifest.runs):
        return by_date, titles
    raise UserError(
        f"{', '.join(map(shown, urls))}: no run of these outputs has ended yet, so that there is "
        "no night to look at"
    )


def read_prevalence(
    urls: Sequence[str], storage: Mapping[str, Any]
) -> tuple[PrevalenceEstimate, ...]:
    """What people's reviews said of these outputs, the last word on each plan, by the plans' times.

    Raises:
        UserError: there is no output.
    """
    found = [
        estimate
        for url in urls
        for layout, _ in _outputs(url, storage)
        for estimate in read_estimates(layout)
        if estimate.corpus is not None
    ]
    return tuple(sorted(found, key=lambda estimate: (estimate.planned, estimate.plan)))


def _outputs(url: str, storage: Mapping[str, Any]) -> list[tuple[Layout, Manifest]]:
    """The output of this URL, or those below it."""
    with plain_errors(url):
        layout = Layout(url, storage)
        manifest = None if is_glob(*filesystem(url, storage)) else read_manifest(layout)
        if manifest is not None:
            return [(layout, manifest)]
        below = outputs(
            url if is_glob(*filesystem(url, storage)) else f"{url.rstrip('/')}/*", storage
        )
        layouts = [Layout(output, storage) for output in below]
        found = [
            (layout, manifest)
            for layout in layouts
            if (manifest := read_manifest(layout)) is not None
        ]
    if not found:
        raise UserError(
            f"{shown(url)} holds no labels of moderay, nor does a folder in it: there is no "
            "_moderay/manifest-N.json"
        )
    return found


def nights(runs: Iterable[RunRecord]) -> list[Night]:
    """The nights of these runs, by date."""
    by_date: dict[str, list[tuple[RunRecord, NewLabels]]] = {}
    for run in runs:
        if run.new is not None and run.date is not None:
            by_date.setdefault(run.date, []).append((run, run.new))
    return [_night(date, ran) for date, ran in sorted(by_date.items())]


def _night(date: str, runs: Sequence[tuple[RunRecord, NewLabels]]) -> Night:
    policies: dict[str, CountsTotal] = {}
    for _, new in runs:
        for name, counts in new.policies.items():
            policies.setdefault(name, CountsTotal()).add(counts)
    usage = [run.usage for run, _ in runs]
    gpus = [(run.seconds, run.hardware.gpus) for run, _ in runs if run.hardware is not None]
    return Night(
        date,
        rows=sum(new.rows for _, new in runs),
        shards=sum(new.shards for _, new in runs),
        changed=sum(new.changed for _, new in runs),
        flagged=sum(new.flagged for _, new in runs),
        policies={name: total.counts() for name, total in policies.items()},
        requests=sum(used.get("requests", 0) for used in usage),
        tokens=sum(used.get("prompt_tokens", 0) + used.get("output_tokens", 0) for used in usage),
        gpu_s=sum(seconds * count for seconds, count in gpus),
    )


def trend_json(trend: Trend) -> str:
    """A trend as one JSON object, for machines."""

    def as_json(record: RecordPart) -> dict[str, Any]:
        return record.model_dump(mode="json")

    return json.dumps(asdict(trend), default=as_json, ensure_ascii=False)


def trend(nights: Sequence[Night], rules: Alarms, label_titles: LabelTitles | None = None) -> Trend:
    """What differs among nights, in order; alarms are about what still holds on the last one."""
    titles = label_titles or {}
    if not nights:
        return Trend((), {}, (), titles)
    policies = {
        name: _series(nights, name)
        for name in dict.fromkeys(name for night in nights for name in night.policies)
    }
    alarms = [
        alarm
        for name, series in policies.items()
        if series.dates[-1:] == (nights[-1].date,)
        for alarm in _alarms(name, series, rules)
    ]
    return Trend(tuple(nights), policies, (*alarms, *_token_alarm(nights, rules)), titles)


def _series(nights: Sequence[Night], policy: str) -> Series:
    mine = [night for night in nights if policy in night.policies and night.rows]
    dates = tuple(night.date for night in mine)
    counts = [night.policies[policy] for night in mine]
    judged = [count.ok for count in counts]
    flagged = [count.flagged for count in counts]
    labels = sorted({label for count in counts for label in count.labels})
    bins = [[count.bins.get(number, 0) for number in range(len(EDGES) + 1)] for count in counts]
    return Series(
        dates,
        flagged=shares(flagged, judged),
        labels={
            label: shares([count.labels.get(label, 0) for count in counts], judged)
            for label in labels
        },
        failed=shares([count.failed for count in counts], [count.rows for count in counts]),
        forced=shares([count.forced for count in counts], judged),
        reasons=_new_reasons(counts),
        change=change(dates, np.array(flagged), np.array(judged)),
        drift=drift(dates, np.array(bins)),
    )


def _new_reasons(counts: Sequence[PolicyCounts]) -> tuple[str, ...]:
    """Of the last night, and of no other."""
    if not counts:
        return ()
    before = {reason for count in counts[:-1] for reason in count.reasons}
    return tuple(sorted(counts[-1].reasons.keys() - before))


def _alarms(policy: str, series: Series, rules: Alarms) -> Iterable[Alarm]:
    change = series.change
    drift = series.drift
    if rules.flagged is not None and change is not None and change.beyond(rules.flagged):
        low, times, high = change.ratio
        text = (
            f"{policy}: flagged are {change.after.value:.2%} of "
            f"{counted(change.after.of, 'row')} since {change.since}, "
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
    yield from _night_alarms(policy, series, rules)


def _night_alarms(policy: str, series: Series, rules: Alarms) -> Iterable[Alarm]:
    """Of the last night alone."""
    failed, forced = series.failed[-1], series.forced[-1]
    if rules.failed is not None and failed.low > rules.failed:
        yield Alarm(
            f"{policy}: {failed.value:.2%} of {counted(failed.of, 'row')} of {series.dates[-1]} "
            f"failed; limit {rules.failed:.2%}",
            policy,
        )
    if rules.forced is not None and forced.low > rules.forced:
        yield Alarm(
            f"{policy}: {forced.value:.2%} of {counted(forced.of, 'verdict')} of "
            f"{series.dates[-1]} were forced, since the reasoning ran out of its budget or the "
            f"answer did not parse; limit {rules.forced:.2%}: raise the budget of reason, or lower "
            "model.effort",
            policy,
        )


def _token_alarm(nights: Sequence[Night], rules: Alarms) -> Iterable[Alarm]:
    """Of what a row costs nothing is left to chance: the last night against all others."""
    *before, last = nights
    rows = sum(night.rows for night in before)
    if rules.tokens is None or not rows or not last.rows:
        return
    usual, now = sum(night.tokens for night in before) / rows, last.tokens / last.rows
    if now > (1 + rules.tokens) * usual:
        yield Alarm(
            f"{now:,.1f} tokens a row on {last.date}, {usual:,.1f} before; limit "
            f"{1 + rules.tokens:g} times as many"
        )
