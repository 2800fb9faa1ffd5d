"""What a report says of an output as a whole: what was run, what it cost, night by night."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moderay.config.job import Alarms
from moderay.core.storage import shown
from moderay.core.wording import counted
from moderay.labels.analysis.trend import Night, Series, nights, trend
from moderay.labels.counts import PolicyCounts
from moderay.labels.manifest_record import JudgeRecord, Manifest, ModelRecord, RunRecord
from moderay.tasks.pages import charts
from moderay.tasks.pages.forms import percent

Pairs = Sequence[tuple[str, str]]
# Of a judge, what stands elsewhere on the page.
_ELSEWHERE = ("judge", "policy", "labels", "model")


@dataclass(frozen=True)
class Saving:
    """Verdicts that were not paid for in full.

    Attributes:
        why: In words.
        verdicts: How many.
        share: Of all verdicts.
        tokens: That they would have cost; None where nothing tells.
    """

    why: str
    verdicts: int
    share: float
    tokens: int | None


@dataclass(frozen=True)
class Cost:
    """What all runs together cost, those that were killed left out.

    Attributes:
        seconds: Of the runs.
        gpu_hours: GPUs times hours.
        requests: To engines.
        prompt_tokens: Of prompts.
        cached_tokens: Of these, that were in the prefix cache.
        output_tokens: Of answers.
        verdicts: Of all policies.
        savings: What needed no request, or a small one.
        killed: Runs that never said what they cost.
    """

    seconds: float
    gpu_hours: float
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    verdicts: int
    savings: tuple[Saving, ...]
    killed: int


@dataclass(frozen=True)
class NightsOfPolicy:
    """A policy through the nights.

    Attributes:
        policy: Its id.
        chart: Of the flagged share.
        rows: (night, rows with a verdict, flagged, interval) as texts.
        change: Since when the share is another one, in words; empty where it is not.
    """

    policy: str
    chart: charts.Line
    rows: tuple[tuple[str, str, str, str], ...]
    change: str


def run_facts(manifest: Manifest, output: str) -> Pairs:
    """What was run, on what, with which model: titles and texts."""
    run, selection = manifest.last_run, manifest.selection
    of_input = counted(manifest.input_shards, "input file")
    pairs = [
        ("job", manifest.name),
        ("labels", output),
        ("content", selection.content),
        ("rows selected", _selection(selection.where, selection.sample)),
        ("input", of_input),
        *[("table", f"{table.path}: version {table.version}") for table in run.tables],
        *_model(run.model),
        ("audit", percent(run.audit) if run.audit else "none"),
        ("begun", run.started or "not known"),
        ("runs", counted(len(manifest.runs), "run") + f", the last one {run.status}"),
    ]
    if run.hardware is not None:
        gpus = counted(run.hardware.gpus, "GPU") if run.hardware.gpus else "no GPU"
        pairs.append(("machine", f"{run.hardware.machine}, {run.hardware.cpus} cores, {gpus}"))
    if run.libraries:
        versions = ", ".join(f"{name} {version}" for name, version in run.libraries.items())
        pairs.append(("versions", f"Python {run.python}, {versions}"))
    return pairs


def _selection(where: str | None, sample: float | None) -> str:
    parts = [f"where {where}"] if where else []
    parts += [f"a sample of {percent(sample)}, by content hash"] if sample else []
    return ", ".join(parts) or "all"


def _model(model: ModelRecord | None) -> Iterator[tuple[str, str]]:
    if model is None:
        return
    name = model.name or ""
    if model.endpoint:
        yield "model", f"{name} at {shown(model.endpoint)}"
    else:
        yield "model", shown(model.source or "")
    yield "revision", model.revision or "not pinned"
    if model.engine:
        yield "engine", json.dumps(model.engine)


def judge_facts(judge: JudgeRecord) -> str:
    """All else that can change a judge's verdict, in a line."""
    fields = judge.model_dump(exclude=set(_ELSEWHERE))
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in fields.items()
        if value not in (None, {}, [])
    )


def cost(manifest: Manifest, counts: Mapping[str, PolicyCounts]) -> Cost:
    """What all runs cost, and what was spared."""
    runs = [run for run in manifest.runs if run.ended is not None]
    used = {
        name: sum(run.usage.get(name, 0) for run in runs)
        for name in ("requests", "prompt_tokens", "cached_tokens", "output_tokens")
    }
    seconds = sum(run.seconds for run in runs)
    return Cost(
        seconds=seconds,
        gpu_hours=sum(map(_gpu_seconds, runs)) / 3600,
        **used,
        verdicts=sum(count.ok for count in counts.values()),
        savings=tuple(_savings(manifest, counts, used["prompt_tokens"] + used["output_tokens"])),
        killed=sum(run.status == "killed" for run in manifest.runs),
    )


def _gpu_seconds(run: RunRecord) -> float:
    return run.seconds * (run.hardware.gpus if run.hardware is not None else 0)


def _savings(
    manifest: Manifest, counts: Mapping[str, PolicyCounts], tokens: int
) -> Iterator[Saving]:
    verdicts = sum(count.ok for count in counts.values())
    if not verdicts:
        return
    duplicates = sum(count.duplicates for count in counts.values())
    reused = sum(count.reused for count in counts.values())
    by_judge: dict[str, int] = {}
    for name, policy in manifest.policies.items():
        for judge in policy.cascade[:-1]:
            settled = counts[name].settled.get(judge.judge, 0)
            by_judge[judge.judge] = by_judge.get(judge.judge, 0) + settled
    on_cpu = sum(by_judge.get(judge, 0) for judge in ("rules", "screen"))
    asked = verdicts - duplicates - reused - on_cpu
    each = tokens / asked if asked > 0 and tokens else None

    def saving(why: str, number: int, spared: bool = True) -> Saving:
        worth = None if each is None or not spared else round(number * each)
        return Saving(why, number, number / verdicts, worth)

    yield saving("equal contents, judged once", duplicates)
    yield saving("taken from an earlier run", reused)
    for name, number in by_judge.items():
        if name == "glance":
            yield saving("settled by glance, without reasoning", number, spared=False)
        else:
            yield saving(f"settled by {name}, without a model", number)


def nights_of(manifest: Manifest) -> tuple[list[Night], list[NightsOfPolicy]]:
    """The nights, and each policy through those that judged rows under it, where there are two."""
    by_date = nights(manifest.runs)
    compared = trend(by_date, Alarms())
    return by_date, [
        _nights_of_policy(name, series)
        for name, series in compared.policies.items()
        if len(series.dates) > 1
    ]


def _nights_of_policy(name: str, series: Series) -> NightsOfPolicy:
    shares = [(share.low, share.value, share.high) for share in series.flagged]
    rows = tuple(
        (
            date,
            f"{share.of:,}",
            percent(share.value),
            f"{percent(share.low)} to {percent(share.high)}",
        )
        for date, share in zip(series.dates, series.flagged, strict=True)
    )
    change = ""
    if series.change is not None:
        before, after = series.change.before, series.change.after
        change = (
            f"{percent(after.value)} since {series.change.since}, {percent(before.value)} before"
        )
    texts = [f"{date}: {flagged} of {of}" for date, of, flagged, _ in rows]
    return NightsOfPolicy(name, charts.line(series.dates, shares, texts), rows, change)


def failures(counts: Mapping[str, PolicyCounts]) -> list[tuple[str, str, int]]:
    """(policy, reason, rows), the most frequent first."""
    found = [
        (name, reason, rows)
        for name, count in counts.items()
        for reason, rows in count.reasons.items()
    ]
    return sorted(found, key=lambda row: -row[2])
