"""The pipeline, from top to bottom; the one file that knows Ray Data.

golden sets, where the job has a gate: judged before all else, on the same engines
what is not published yet -> spans -> read and prepare (CPU tasks) -> judge (engine actors) -> units
on storage -> one row of statistics each to the driver -> a shard whose units are all in is
published (a task) -> manifest
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import ray
from ray.data import DataContext, Dataset, ExecutionResources
from ray.data.context import AutoscalingConfig

from moderay.config.job import Job, UnitSize
from moderay.core import ray_loss
from moderay.core.errors import StoppedError
from moderay.core.events import event, of_run
from moderay.core.ray_logs import told_with_logs
from moderay.core.ray_loss import ray_errors
from moderay.core.ray_runtime import Resources, coming_ray, resources, start_ray, starts_its_own
from moderay.core.storage import plain_errors, remove, shown
from moderay.core.wording import counted
from moderay.corpus.content import template_columns
from moderay.corpus.shard import Shard
from moderay.labels.data_files import name_data_files
from moderay.labels.earlier_outputs import LabelFile, own_label_files
from moderay.labels.footer_cache import keep_footers
from moderay.labels.index import Index, start_index
from moderay.labels.index_loading import Loading, start_loading
from moderay.labels.layout import Layout, slot
from moderay.labels.lease import (
    WHOLE,
    HeldError,
    Lease,
    Part,
    assert_held,
    is_abandoned,
    slots_of,
)
from moderay.labels.manifest_record import Manifest, RateRecord, RunEnd
from moderay.labels.manifest_store import append_manifest
from moderay.labels.reviews import ReviewStore
from moderay.pipeline import manifest as manifests
from moderay.pipeline.check import Checked
from moderay.pipeline.control import executions, unit_size
from moderay.pipeline.control.board import BoardState, start_board
from moderay.pipeline.control.gatekeeper import start_gatekeeper
from moderay.pipeline.control.incoming import Incoming, Quiet
from moderay.pipeline.control.limits import Brakes
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.control.sizing import (
    FEWER_ENGINES_AT,
    MORE_ENGINES_AT,
    Engines,
    hosted,
    publishing_tasks,
)
from moderay.pipeline.control.tracker import Tracker
from moderay.pipeline.control.watch import Action, Watch
from moderay.pipeline.golden import Gate
from moderay.pipeline.messages.spans import Reading, span_table
from moderay.pipeline.messages.units import UnitDone, units_done
from moderay.pipeline.outcome import Outcome, RunOptions
from moderay.pipeline.plan import Plan, assert_same_cascade, earlier_manifests, make_plan
from moderay.pipeline.stages.batches import Together, read_together
from moderay.pipeline.stages.judge_actor import Judge
from moderay.pipeline.stages.publish_tasks import Publisher
from moderay.pipeline.stages.read_task import read_task
from moderay.pipeline.stages.save import RunContext
from moderay.pipeline.stages.spans import spans

# Seconds for which a unit is waited before limits and signals are looked at again.
WAIT_S = 0.5


def label_rest(checked: Checked, options: RunOptions, plan: Plan, progress: Progress) -> Outcome:
    """Label everything that `plan` shows to be left.

    Args:
        checked: The job and its input.
        options: What else is done.
        plan: Of before the lease is taken.
        progress: Shows how far the run is.

    Raises:
        ModerayError: What a person can mend.
    """
    if plan.rows_left and starts_its_own():
        checked.assert_hosted_here()
    worked: set[int] = set()
    outcome = _round(checked, options, plan.next_run, worked, progress)
    held: set[Part] = set()
    while (part := _next_part(options.part, outcome.left_slots, held)) is not None:
        rest = RunOptions(options.replace, part=part)
        try:
            more = _round(checked, rest, plan.next_run, worked, progress.anew())
            outcome = _together(outcome, more)
        except HeldError:
            held.add(part)
    missed = outcome.missed or (outcome.left > 0 and options.part == WHOLE)
    return replace(outcome, missed=missed)


def _next_part(own: Part, left: Container[int], held: Container[Part]) -> Part | None:
    """The next part in which something is left: one at a time, so that late drivers find theirs."""
    number, parts = own
    for step in range(1, parts + 1):
        part = ((number + step) % parts, parts)
        if part not in held and any(slot in left for slot in slots_of(part)):
            return part
    return None


def _round(
    checked: Checked, options: RunOptions, least: int, worked: set[int], progress: Progress
) -> Outcome:
    """Take the lease on what is free of a part, and label what is left there.

    Args:
        checked: The job and its input.
        options: What is done.
        least: The run's number at least.
        worked: Slots that this process has been through; those of this round are added.
        progress: Of this round.

    Raises:
        HeldError: Other drivers hold all that is left.
    """
    layout = Layout(checked.job.output.path, checked.job.storage)
    with (
        plain_errors(layout.url),
        Lease(layout, options.part, least) as lease,
        of_run(checked.job.name, lease.run, progress.log),
        told_with_logs(),
        ray_errors(),
    ):
        for output in checked.reused:
            ReviewStore(layout).adopt(ReviewStore(output.layout))
        # What another driver has done meanwhile need not be done again.
        plan = make_plan(checked, options.replace, options.retry_failed)
        plan = plan.of(lease.slots - worked)
        if worked and not plan.todo:
            raise HeldError("nothing that is left is free")
        worked |= lease.slots
        _clean(plan, lease)
        keep_footers(plan.layout, template_columns(checked.job.input.content), checked.scan.footers)
        for shard in plan.lost:
            progress.note(
                f"{plan.layout.label(shard)} is gone, or not the file that was published: its "
                "rows are labelled again"
            )
        for note in (*plan.people.notes, *_other_thresholds(checked, plan)):
            progress.note(note)
        began = time.monotonic()
        gate = Gate(checked, layout, lease.run) if checked.gated and plan.todo else None
        run = _begun(checked, plan, lease, frozenset(worked), progress, gate)
        return _label(run, options, began)


def _other_thresholds(checked: Checked, plan: Plan) -> Iterator[str]:
    """Where labels that are there are decided again, as `moderay decide` may have done before."""
    if plan.manifest is None or not any(work.redecide for work in plan.todo):
        return
    for policy in checked.policies:
        before = plan.manifest.policies.get(policy.id)
        if before is not None and before.threshold != policy.threshold:
            yield (
                f"{policy.id}: labels are decided again under this job's threshold, "
                f"{policy.threshold:g}; they were under {before.threshold:g}"
            )


def _together(first: Outcome, second: Outcome) -> Outcome:
    """Two rounds of one process as one."""
    return replace(
        second,
        worked=first.worked or second.worked,
        judged=first.judged + second.judged,
        seconds=first.seconds + second.seconds,
        pruned=first.pruned,
        gate=first.gate or second.gate,
        missed=first.missed or second.missed,
    )


@dataclass(frozen=True)
class _Run:
    """A run under way, as its driver knows it.

    Attributes:
        checked: The job and its input.
        plan: What is left to do.
        lease: Of the output.
        worked: Slots that this process is through with when it ends.
        progress: What was judged so far.
        engines: What is hosted; None where neither a row nor a golden case is left to be judged.
        gpus: Of the cluster.
        tracker: Rows that have not come back.
        publisher: Of shards that are whole.
        gate: What has to open before anything is judged or published; None where nothing has.
        unit: How large units are.
    """

    checked: Checked
    plan: Plan
    lease: Lease
    worked: frozenset[int]
    progress: Progress
    engines: Engines | None
    gpus: int
    tracker: Tracker
    publisher: Publisher
    gate: Gate | None
    unit: UnitSize

    @property
    def is_outstanding(self) -> bool:
        """Whether rows or golden cases have not come back."""
        return self.tracker.outstanding > 0 or (self.gate is not None and self.gate.is_waiting)


def _label(run: _Run, options: RunOptions, began: float) -> Outcome:
    """Under the lease: the manifest as the run begins, the labels, the manifest as it ends."""
    plan, progress = run.plan, run.progress
    engines = 0 if run.engines is None else run.engines.most
    start = manifests.RunStart(
        run.lease.run,
        options.part,
        run.lease.others.keys(),
        manifests.hardware(run.gpus, engines),
    )
    name_data_files(plan.layout)

    def begun(before: Manifest | None) -> Manifest:
        # Another driver may have begun since this one has looked.
        if not options.replace:
            assert_same_cascade(run.checked, before, alive=run.lease.living)
        return manifests.begun(before, run.checked, plan.cascade, start)

    append_manifest(plan.layout, begun)
    event("run started", rows=plan.rows_left, shards=len(plan.todo), engines=engines)
    progress.start(plan.rows_left, engines, _judge_of(run.checked.job))
    if run.gate is not None and run.gate.is_waiting:
        progress.stage(f"judging {counted(run.gate.cases, 'golden case')} first")
    if run.gate is None or run.gate.is_open:
        _publish_saved(run)
    seen, stopped = _judge(run)
    failed = _failed_shards(run, stopped is not None)
    progress.stop()
    seconds = time.monotonic() - began
    pruned = () if stopped is not None or failed or not options.prune else _pruned(plan)
    ended = _Ended(run, options, _run_end(run, seen, seconds, stopped, pruned), failed)
    manifest = append_manifest(plan.layout, ended.manifest)
    if stopped is not None:
        raise stopped
    for note in _unexplained(run.checked, manifest):
        progress.note(note)
    for alarm in manifest.alarms:
        event("alarm", logging.WARNING, alarm=alarm)
    event("run ended", rows=progress.rows, seconds=ended.end.seconds, complete=manifest.complete)
    missed = bool(failed or run.checked.scan.unreadable)
    rates = progress.rates()
    return Outcome(
        manifest,
        True,
        progress.rows,
        seconds,
        rates,
        pruned,
        len(ended.left),
        frozenset(slot(shard.name) for shard in ended.left),
        missed,
        ended.end.gate,
        unapplied=run.plan.people.digest != manifest.corrections,
        total=ended.total,
    )


def _unexplained(checked: Checked, manifest: Manifest) -> Iterator[str]:
    """Where rows are flagged under a threshold below which no rationale was asked for."""
    if checked.job.output.rationale != "flagged":
        return
    for policy in checked.policies:
        counts = manifest.counts.get(policy.id)
        if counts is not None and counts.unexplained and policy.answer == "rationale":
            yield (
                f"{policy.id}: {counted(counts.unexplained, 'flagged row')} without a rationale: "
                f"none was asked for at that P when they were judged; output.rationale_from: "
                f"{policy.threshold:g} asks for those of contents that are judged from now on, and "
                "output.rationale: all, which is another judge, for all"
            )


@dataclass
class _Ended:
    """A run that has ended, and what its output holds then.

    Attributes:
        run: The run.
        options: What it did.
        end: What it says of itself.
        failed: Input files of its shards that could not be published, and why.
        left: Shards that are left to other drivers.
        total: What the markers add up to.
    """

    run: _Run
    options: RunOptions
    end: RunEnd
    failed: Mapping[str, str]
    left: Sequence[Shard] = ()
    total: manifests.OutputTotal | None = None

    def manifest(self, before: Manifest | None) -> Manifest:
        """The manifest that follows another one, from all that is published now."""
        assert before is not None, "the run's own beginning is written"
        run, checked = self.run, self.run.checked
        # As the store has it: a driver that slept is woken before it has renewed its lease.
        assert_held(run.plan.layout, run.lease.run)
        now = make_plan(checked, self.options.replace)
        self.left = [work.shard for work in now.todo if slot(work.shard.name) not in run.worked]
        theirs = {shard.file for shard in self.left}
        failed = {file: reason for file, reason in before.failed.items() if file in theirs}
        faults = manifests.Faults(
            dict(checked.scan.unreadable),
            failed | dict(self.failed),
            tuple(now.gone),
            len(now.todo),
        )
        paths = [path for _, path in now.done]
        self.total = run.publisher.total_of(paths)
        people = run.plan.people.digest
        is_held = before.corrections == people or run.publisher.has_published(paths)
        corrections = people if is_held else None
        finish = manifests.RunFinish(run.lease.run, self.end, faults, corrections)
        return manifests.ended(before, checked, finish, self.total)


def _begun(  # noqa: PLR0913, PLR0917  # all that a run is made of
    checked: Checked,
    plan: Plan,
    lease: Lease,
    worked: frozenset[int],
    progress: Progress,
    gate: Gate | None,
) -> _Run:
    """With Ray, where there is anything to do for it."""
    needs_ray = bool(plan.todo) and (gate is None or gate.closed is None)
    needs_engine = plan.rows_left > 0 or (gate is not None and gate.is_waiting)
    if needs_ray:
        if coming := coming_ray():
            progress.stage(coming)
        if which := start_ray():
            progress.note(which)
        ray_loss.assert_there()
    has = resources() if needs_ray else Resources(0, 0.0, 0.0)
    unit, why = unit_size.chosen(checked.job.unit, earlier_manifests(checked, plan))
    if why and plan.rows_left:
        progress.note(why)
    engines = (
        hosted(checked.job, checked.cascades, has, unit) if needs_ray and needs_engine else None
    )
    return _Run(
        checked,
        plan,
        lease,
        worked,
        progress,
        engines,
        has.gpus,
        Tracker(plan.todo),
        Publisher(checked, plan, lease.run, publishing_tasks(has.cpus)),
        gate,
        unit,
    )


def _judge_of(job: Job) -> str:
    """The model that is asked, for people."""
    model = job.model
    return shown(model.source) if model.endpoint is None else f"{model.name} at {model.endpoint}"


def _failed_shards(run: _Run, stopped: bool) -> dict[str, str]:
    """Input files that could not be published, and why, when all others are."""
    files = {work.shard.name: work.shard.file for work in run.plan.todo}
    reasons = {**run.publisher.finish(stopped), **run.tracker.failed}
    return {files[name]: reason for name, reason in reasons.items()}


def _run_end(
    run: _Run,
    seen: BoardState,
    seconds: float,
    stopped: StoppedError | None,
    pruned: Sequence[str],
) -> RunEnd:
    """What the manifest says of how this run ended."""
    progress = run.progress
    return RunEnd(
        seconds=round(seconds, 1),
        judged=progress.rows,
        reused_verdicts=progress.reused,
        engine_restarts=progress.restarts,
        usage=dict(progress.usage),
        actors=seen.actors,
        most_bytes_ahead=seen.most_ahead,
        rates={name: RateRecord(**rate._asdict()) for name, rate in progress.rates().items()},
        probability_by=seen.probability_by,
        stopped=str(stopped) if stopped else None,
        pruned=tuple(pruned),
        gate=() if run.gate is None else run.gate.figures,
    )


def _judge(run: _Run) -> tuple[BoardState, StoppedError | None]:
    """Judge what is missing and publish each shard that is whole.

    Returns:
        The board as it was seen last, and why the run stopped early.
    """
    gate = run.gate
    if gate is not None and gate.closed is not None:
        return BoardState(), gate.closed
    if run.engines is None:
        return BoardState(), None
    checked = run.checked
    index, loading = _index(run)
    context = RunContext(
        checked.job.model_copy(update={"unit": run.unit}),
        run.engines.spec,
        run.engines.cascades,
        run.plan.outputs,
        index,
        run.lease.run,
        start_board(),
        None if gate is None or gate.is_open else start_gatekeeper(),
    )
    rows = run.plan.rows_left * (checked.job.input.sample or 1)
    brakes = Brakes(checked.job.limits, run.gpus, run.engines.most, run.progress, rows)
    stopped: StoppedError | None = None
    try:
        with brakes.on_signals():
            stream = _stream(context, loading, run, run.engines)
            for units in _watched(run, stream, brakes, context):
                for unit in units:
                    run.progress.add(unit)
                    if unit.gate is not None:
                        _judged_golden(run, unit, brakes, context)
                    elif finished := run.tracker.add(unit):
                        run.publisher.start(*finished)
                run.publisher.collect()
        if gate is not None and gate.closed is not None:
            raise gate.closed
        for shard, reason in ray_loss.get(context.board.state.remote()).given_up:
            run.tracker.give_up(shard, reason)
        run.tracker.assert_complete()
        assert not run.is_outstanding, "golden cases were sent to be judged and never came back"
    except StoppedError as stop:
        stopped = stop
    seen = ray_loss.get(context.board.state.remote())
    for shard, reason in loading.so_far().unreadable.items():
        run.progress.note(f"earlier verdicts of {shard} are not used: {reason}")
    for actor in (context.board, context.gate, *context.index.partitions):
        # The handles that tasks were given would keep them while this process is connected.
        if actor is not None:
            ray.kill(actor)
    return seen, stopped


def _publish_saved(run: _Run) -> None:
    """Publish the shards of which no row is left to be judged."""
    for work in run.plan.todo:
        if not work.missing:
            run.publisher.start(work, work.saved)


def _judged_golden(run: _Run, unit: UnitDone, brakes: Brakes, context: RunContext) -> None:
    """Take in golden cases; with the last ones the gate opens, or the run ends."""
    assert run.gate is not None
    run.gate.add(unit)
    if run.gate.closed is not None:
        brakes.stop(run.gate.closed)
    elif run.gate.is_open:
        run.progress.stage("the gate is open: every policy has passed its floors")
        context.gate.open.remote()
        _publish_saved(run)


def _watched(
    run: _Run, stream: Dataset, brakes: Brakes, context: RunContext
) -> Iterator[list[UnitDone]]:
    """The units as they come in, those together that a message says of.

    A run in which none comes in can be stopped all the same.

    Raises:
        StoppedError: A limit is reached, or a signal has come.
        RayLostError: Ray is gone.
        LeaseLostError: Another driver has taken over.
    """
    watch = Watch()
    seen = BoardState()
    board, gatekeeper = context.board, context.gate
    with Incoming(_units(stream), partial(executions.end, stream)) as incoming:
        while True:
            run.lease.assert_held()
            ray_loss.assert_there()
            watch, steps = watch.before_wait(
                time.monotonic(),
                outstanding=run.is_outstanding,
                signalled=brakes.stopping,
            )
            for step in steps:
                match step:
                    case Action.STOP_BOARD:
                        board.stop.remote()
                        if gatekeeper is not None:
                            gatekeeper.stop.remote()
                    case Action.LOOK:
                        seen = ray_loss.get(board.state.remote())
                        if gatekeeper is not None and run.gate is not None and run.gate.is_open:
                            # Again, since one that was restarted knows nothing of it.
                            gatekeeper.open.remote()
                    case Action.CHECK:
                        brakes.check(seen, run.tracker)
            run.progress.look(seen)
            units = incoming.wait(WAIT_S)
            if not isinstance(units, Quiet):
                yield [unit for unit in units if unit.fatal is None]
                for unit in units:
                    unit.raise_fatal()
                continue
            step = watch.after_quiet(
                units, outstanding=run.is_outstanding, at_work=bool(seen.at_work)
            )
            if step is Action.END_STOPPED:
                brakes.end()
            if step is Action.FINISH:
                return


def _pruned(plan: Plan) -> tuple[str, ...]:
    """Remove the labels of what the input no longer has, which ones these were.

    At the end: until then, rows that stand in another file now take their verdicts from them.
    """
    for paths in plan.gone.values():
        for path in paths:
            remove(plan.layout.fs, path)
    return tuple(plan.gone)


def _clean(plan: Plan, lease: Lease) -> None:
    """Remove what killed drivers left."""
    layout = plan.layout
    for moved in plan.moved:
        layout.create(moved.new_path, moved.marker.to_json())
    leftovers = [path for paths in plan.leftovers.values() for path in paths]
    scratch = [path for path in plan.scratch if is_abandoned(layout, path, lease.run)]
    for path in [*leftovers, *[moved.path for moved in plan.moved], *scratch]:
        remove(layout.fs, path)


def _stream(context: RunContext, loading: Loading, run: _Run, engines: Engines) -> Dataset:
    """Every missing unit through Ray Data, which `_units` begins; a `UnitDone` each, as they end.

    Units of golden sets come first; until they have passed, `read_task` lets nothing else follow.
    """
    golden = [] if run.gate is None else run.gate.units
    readings = _readings(run, context)
    units = len(golden) + sum(reading.span.units for reading in readings)
    size = Together(engines.together, context.job.unit.bytes, engines.most)
    failed = set() if run.plan.manifest is None else set(run.plan.manifest.failed)
    alone = [reading.span.shard.file in failed for reading in readings]
    numbers = [
        *[[-number] for number in range(1, len(golden) + 1)],
        *read_together(readings, alone, size),
    ]
    _configure_ray_data(engines.read_ahead(context.job.unit))
    source = ray.data.from_items(
        [{"spans": together} for together in numbers], override_num_blocks=len(numbers)
    )
    # Put once, not sent with each task: screens and long lists of literals are large, and a table
    # that is cut into blocks costs a millisecond for each.
    read = source.map_batches(
        read_task,
        fn_kwargs={
            "run": ray.put(context),
            "spans": ray.put(span_table(readings)),
            "golden": ray.put(golden),
            "answers": ray.put(run.publisher.answers),
            "together": size,
        },
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=engines.read_cpus,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged = read.map_batches(
            Judge,
            fn_constructor_args=(context, loading.for_workers(), _needs_engine(run, loading)),
            # A message is a row; for actors with GPUs, Ray Data takes no other size than a number.
            batch_size=1,
            batch_format="pyarrow",
            **engines.options(units, engines.messages),
        )
    return executions.noted(judged)


def _readings(run: _Run, context: RunContext) -> list[Reading]:
    """All spans that are missing, in order, each with the number of units behind it."""
    wanted = [
        Reading(span, work.units, context.run, work.earlier)
        for work in run.plan.todo
        for span in spans(work.shard, work.missing, context.job.unit)
    ]
    behind = 0
    readings = []
    for reading in reversed(wanted):
        readings.append(replace(reading, behind=behind))
        behind += reading.span.units
    return readings[::-1]


def _units(stream: Dataset) -> Generator[list[UnitDone], None, None]:
    with closing(
        iter(stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    ) as batches:
        for batch in batches:
            yield units_done(batch)


def _needs_engine(run: _Run, loading: Loading) -> bool:
    """Whether it is sure that an engine is asked: not where all may have been paid for before."""
    is_new = not loading.calls and any(work.missing and not work.earlier for work in run.plan.todo)
    return is_new or (run.gate is not None and run.gate.is_waiting)


def _index(run: _Run) -> tuple[Index, Loading]:
    """Where verdicts lie, by content.

    At first those of files that are gone, of a table's other files, and of the outputs that are
    reused, which it is told while units are read and engines start; then this run's own, as units
    are saved.
    """
    plan, checked = run.plan, run.checked
    own, own_rows = own_label_files(plan.layout, plan.known, checked.cascades)
    contents = plan.contents_left + own_rows + sum(output.rows for output in checked.reused)
    index = start_index(contents, [cascade.policy.id for cascade in checked.cascades])
    files = own + [
        LabelFile(number, shard, usable)
        for number, output in enumerate(checked.reused, start=1)
        for shard, usable in output.shards.items()
    ]
    for output in checked.reused:
        for note in output.notes:
            run.progress.note(note)
    return index, start_loading(index, plan.outputs, files)


def _configure_ray_data(read_ahead: int) -> None:
    """Every message is a block of its own, reading waits for judging, and engines come and go.

    Args:
        read_ahead: Bytes of units that Ray Data may hold.
    """
    context = DataContext.get_current()
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=read_ahead
    )
    context.autoscaling_config = AutoscalingConfig(MORE_ENGINES_AT, FEWER_ENGINES_AT)
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    # It would start a thread for every unit that looks at the process's memory, for a figure of Ray
    # Data's own.
    context.memory_usage_poll_interval_s = None
    context._max_num_blocks_in_streaming_gen_buffer = 2
