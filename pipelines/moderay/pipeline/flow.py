"""The pipeline, from top to bottom; the one file that knows Ray Data.

what is not published yet -> spans -> read and prepare (CPU tasks) -> judge (engine actors) -> units
on storage -> one row of statistics each to the driver -> a shard whose units are all in is
published (a task) -> manifest
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import DataContext, ExecutionResources
from ray.data.context import AutoscalingConfig

from moderay.core.errors import StoppedError, TryAgainError, first_line
from moderay.core.events import event, of_run
from moderay.core.ray_runtime import resources, start_ray
from moderay.core.storage import plain_errors, remove
from moderay.corpus.content import template_columns
from moderay.labels.footer_cache import keep_footers
from moderay.labels.index import Index, start_index
from moderay.labels.layout import read_markers, write_manifest
from moderay.labels.lease import Lease
from moderay.labels.manifest_record import Manifest, RateRecord, RunEnd
from moderay.labels.reuse import LabelFile, load
from moderay.pipeline import manifest as manifests
from moderay.pipeline.check import Checked
from moderay.pipeline.control.board import BoardState, start_board
from moderay.pipeline.control.incoming import Incoming, Quiet
from moderay.pipeline.control.limits import Brakes
from moderay.pipeline.control.progress import Progress, Rate
from moderay.pipeline.control.sizing import (
    FEWER_ENGINES_AT,
    MORE_ENGINES_AT,
    Engines,
    hosted,
    publishing_tasks,
)
from moderay.pipeline.control.tracker import Tracker
from moderay.pipeline.control.watch import Step, Watch
from moderay.pipeline.messages.spans import Reading, span_table
from moderay.pipeline.messages.units import UnitDone, units_done
from moderay.pipeline.plan import Plan, make_plan
from moderay.pipeline.stages.judge_actor import Judge
from moderay.pipeline.stages.publish_tasks import Publisher
from moderay.pipeline.stages.read_task import read_task
from moderay.pipeline.stages.save import RunContext
from moderay.pipeline.stages.spans import spans

# Seconds for which a unit is waited before limits and signals are looked at again.
WAIT_S = 0.5


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `manifest`: what the output now says of itself. `worked`: whether there was
    anything to do. `judged`: rows; `seconds`: of the whole run, its start included; `rates`: by
    policy id; `pruned`: shards.
    """

    manifest: Manifest
    worked: bool
    judged: int
    seconds: float
    rates: Mapping[str, Rate]
    pruned: Sequence[str] = ()

    @property
    def exit_status(self) -> int:
        return 0 if self.manifest.complete else 1


def run(
    checked: Checked,
    *,
    replace: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Label everything that is selected and not published yet. `replace`: over another cascade's
    labels; `retry_failed`: rows that another attempt may judge as well; `prune`: remove the labels
    of shards that are gone from the input. Raises `ModerayError` for what a person can mend.
    """
    plan = make_plan(checked, replace, retry_failed)
    if not plan.todo and not plan.leftovers and not (prune and plan.gone) and _finished(plan):
        # A shard that has become unreadable since is told again; nothing is written.
        assert plan.manifest is not None
        now = {"unreadable": dict(checked.scan.unreadable), "failed": {}, "gone": tuple(plan.gone)}
        return Outcome(plan.manifest.model_copy(update=now), False, 0, 0.0, {})
    progress = progress or Progress(None)
    with (
        plain_errors(checked.job.output.path),
        Lease(plan.layout) as lease,
        of_run(checked.job.name, lease.epoch, progress.log),
    ):
        plan = make_plan(checked, replace, retry_failed)
        _clean(plan, prune)
        keep_footers(plan.layout, template_columns(checked.job.input.content), checked.scan.footers)
        return _run(checked, plan, lease, progress, prune)


def _finished(plan: Plan) -> bool:
    return plan.manifest is not None and plan.manifest.last_run.status == "finished"


def _run(checked: Checked, plan: Plan, lease: Lease, progress: Progress, prune: bool) -> Outcome:
    """Under the lease: the manifest as the run begins, the labels, the manifest as it ends."""
    began = time.monotonic()
    if plan.todo:
        start_ray()
    gpus, cpus = resources() if plan.todo else (0, 0.0)
    engines = hosted(checked.job, checked.cascades, gpus, cpus) if plan.rows_left else None
    manifest = manifests.begun(
        checked,
        plan,
        lease.epoch,
        manifests.hardware(gpus, engines.most if engines else 0),
    )
    write_manifest(plan.layout, manifest)
    publisher = Publisher(checked, plan, lease.epoch, publishing_tasks(cpus))
    for work in plan.todo:
        if not work.missing:
            publisher.start(work, work.saved)
    event(
        "run started",
        rows=plan.rows_left,
        shards=len(plan.todo),
        engines=engines.most if engines else 0,
    )
    progress.start(plan.rows_left)
    tracker, seen, stopped = Tracker(plan.todo), BoardState(), None
    if engines is not None:
        seen, stopped = _judge(
            checked,
            plan,
            engines,
            lease,
            Brakes(checked.job.limits, gpus, engines.most, progress),
            tracker,
            publisher,
            progress,
        )
    files = {work.shard.name: work.shard.file for work in plan.todo}
    failed = {
        files[name]: reason for name, reason in {**publisher.finish(), **tracker.failed}.items()
    }
    faults = manifests.Faults(
        dict(checked.scan.unreadable), failed, () if prune else tuple(plan.gone)
    )
    progress.stop()
    seconds, rates = time.monotonic() - began, progress.rates()
    end = RunEnd(
        seconds=round(seconds, 1),
        judged=progress.rows,
        reused_verdicts=progress.reused,
        engine_restarts=progress.restarts,
        usage=dict(progress.usage),
        actors=seen.actors,
        most_bytes_ahead=seen.most_ahead,
        rates={name: RateRecord(**rate._asdict()) for name, rate in rates.items()},
        stopped=str(stopped) if stopped else None,
        pruned=tuple(plan.gone) if prune else (),
    )
    for marker in read_markers(plan.layout, [path for _, path in plan.done]):
        publisher.total.add(marker)
    manifest = manifests.ended(manifest, checked, publisher.total, end, faults)
    write_manifest(plan.layout, manifest)
    if stopped is not None:
        raise stopped
    event("run ended", rows=progress.rows, seconds=round(seconds, 1), complete=manifest.complete)
    return Outcome(manifest, True, progress.rows, seconds, rates, tuple(plan.gone) if prune else ())


def _judge(
    checked: Checked,
    plan: Plan,
    engines: Engines,
    lease: Lease,
    brakes: Brakes,
    tracker: Tracker,
    publisher: Publisher,
    progress: Progress,
) -> tuple[BoardState, StoppedError | None]:
    """Judge what is missing and publish each shard that is whole; the board as it was seen last,
    and why it stopped early.
    """
    run = RunContext(
        checked.job,
        engines.spec,
        engines.cascades,
        plan.outputs,
        _index(checked, plan, progress),
        lease.epoch,
        start_board(),
    )
    stopped: StoppedError | None = None
    try:
        with brakes.on_signals():
            for unit in _watched(_units(run, plan, engines), brakes, tracker, run.board, lease):
                progress.add(unit)
                if finished := tracker.add(unit):
                    publisher.start(*finished)
                publisher.collect()
        tracker.assert_complete()
    except StoppedError as stop:
        stopped = stop
    seen = ray.get(run.board.state.remote())
    for actor in (run.board, *run.index.partitions):
        # The handles that tasks were given would keep them while this process is connected.
        ray.kill(actor)
    return seen, stopped


def _watched(
    units: Generator[UnitDone, None, None],
    brakes: Brakes,
    tracker: Tracker,
    board: Any,
    lease: Lease,
) -> Iterator[UnitDone]:
    """The units as they come in; a run in which none comes in can be stopped all the same.

    Raises:
        StoppedError: A limit is reached, or a signal has come.
        TryAgainError: Ray gave up on something.
        LeaseLostError: Another driver has taken over.
    """
    watch = Watch()
    seen = BoardState()
    with Incoming(units) as incoming:
        while True:
            lease.assert_held()
            watch, steps = watch.before_wait(
                time.monotonic(),
                outstanding=tracker.outstanding > 0,
                signalled=brakes.stopping,
            )
            for step in steps:
                match step:
                    case Step.STOP_BOARD:
                        board.stop.remote()
                    case Step.LOOK:
                        seen = ray.get(board.state.remote())
                    case Step.CHECK:
                        brakes.check(seen, tracker)
            unit = _next(incoming)
            if not isinstance(unit, Quiet):
                yield unit
                continue
            step = watch.after_quiet(
                unit, outstanding=tracker.outstanding > 0, at_work=bool(seen.at_work)
            )
            if step is Step.END_STOPPED:
                brakes.end()
            if step is Step.FINISH:
                return


def _next(incoming: Incoming[UnitDone]) -> UnitDone | Quiet:
    try:
        return incoming.wait(WAIT_S)
    except _LOST as error:
        raise TryAgainError(
            f"Ray lost what the run needs ({first_line(error)}); what is complete is saved, and "
            "the same command goes on from there"
        ) from error


def _clean(plan: Plan, prune: bool) -> None:
    """What a killed driver left half-written or lying, and with `prune` what the input no longer
    has.
    """
    layout = plan.layout
    if layout.fs.exists(layout.private("tmp")):
        layout.fs.rm(layout.private("tmp"), recursive=True)
    gone = [path for paths in plan.gone.values() for path in paths] if prune else []
    for path in [*plan.leftovers, *gone]:
        remove(layout.fs, path)


# Nodes, workers and objects that Ray gave up on.
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.RaySystemError,
)


def _units(run: RunContext, plan: Plan, engines: Engines) -> Generator[UnitDone, None, None]:
    """Stream every missing unit through Ray Data; one `UnitDone` each, as they end."""
    readings = [
        Reading(
            span,
            work.units,
            plan.layout.marker(work.shard.name, work.key, plan.decision),
            work.earlier,
        )
        for work in plan.todo
        for span in spans(work.shard, work.missing, run.job.unit)
    ]
    _context(engines.read_ahead(run.job.unit))
    source = ray.data.from_arrow(span_table(readings), override_num_blocks=len(readings))
    # Put once, not sent with each task: screens and long lists of literals are large.
    read = source.map_batches(
        read_task,
        fn_kwargs={"run": ray.put(run)},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=engines.read_cpus,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged = read.map_batches(
            Judge,
            fn_constructor_args=(run,),
            batch_size=None,
            batch_format="pyarrow",
            **engines.options(sum(len(reading.span.units) for reading in readings)),
        )
    with closing(
        iter(judged.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    ) as batches:
        for batch in batches:
            for unit in units_done(batch):
                unit.raise_fatal()
                yield unit


def _index(checked: Checked, plan: Plan, progress: Progress) -> Index:
    """Where verdicts lie, by content: at first those of the outputs that are reused; then this
    run's own, as units are saved.
    """
    rows = plan.rows_left + sum(output.rows for output in checked.reused)
    index = start_index(rows, [cascade.policy.id for cascade in checked.cascades])
    files = [
        LabelFile(number, shard, usable)
        for number, output in enumerate(checked.reused, start=1)
        for shard, usable in output.shards.items()
    ]
    for shard, reason in load(index, plan.outputs, files).unreadable.items():
        progress.note(f"earlier verdicts of {shard} are not used: {reason}")
    return index


def _context(read_ahead: int) -> None:
    """Every unit is a block of its own (a row that holds the whole unit), reading waits for
    judging, and engines come and go.
    """
    context = DataContext.get_current()
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=read_ahead
    )
    context.autoscaling_config = AutoscalingConfig(MORE_ENGINES_AT, FEWER_ENGINES_AT)
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context._max_num_blocks_in_streaming_gen_buffer = 2
