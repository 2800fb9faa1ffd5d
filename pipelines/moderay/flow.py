"""The pipeline, from top to bottom; the one file that knows Ray Data.

what is not published yet -> spans -> read and prepare (CPU tasks) -> judge (engine actors) -> units on storage
-> one row of statistics each to the driver -> a shard whose units are all in is published (a task) -> manifest
"""

from __future__ import annotations

import asyncio
import json
import pickle
import queue
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import DataContext, ExecutionResources

from moderay import manifest as manifests
from moderay.brakes import Brakes
from moderay.check import Checked
from moderay.cluster import BoardState, Unit, end_with_raylet, resources, start_board, start_ray, whereabouts
from moderay.decide import decide, flagged, summary
from moderay.engines import EngineDead, EngineHost, EngineSpec
from moderay.errors import ModerayError, Stopped, TryAgain, UserError
from moderay.hosting import READ_CPUS, Engines, hosted
from moderay.job import Job
from moderay.judges.reason import Reason
from moderay.judges.unit import judge_unit
from moderay.plan import Plan, Work, make_plan
from moderay.progress import Progress, Rate
from moderay.prompt import vocabulary
from moderay.publish import Publication, ShardFailed, publish, republish
from moderay.records import Origin, structs
from moderay.reuse import EarlierFile
from moderay.state import Layout, Lease, Range
from moderay.storage import no_credentials, plain_errors, remove
from moderay.tracker import Tracker, UnitDone
from moderay.units import Span, read_span, spans

# Shards that are published at once.
PUBLISHING = 4
# Seconds that Ray Data is given to end after a stop.
END_S = 5.0
# Seconds between two looks at the board.
LOOK_S = 2.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `manifest`: what the output now says of itself. `worked`: whether there was anything to do.
    `judged`: rows; `seconds`: of the whole run, its start included; `rates`: by policy id; `pruned`: shards."""

    manifest: Mapping[str, Any]
    worked: bool
    judged: int
    seconds: float
    rates: Mapping[str, Rate]
    pruned: Sequence[str] = ()

    @property
    def exit_status(self) -> int:
        return 0 if self.manifest.get("complete") else 1


def run(checked: Checked, *, replace: bool = False, retry_failed: bool = False, prune: bool = False, progress: Progress | None = None) -> Outcome:
    """Label everything that is selected and not published yet. `replace`: over another cascade's labels; `retry_failed`:
    rows that another attempt may judge as well; `prune`: remove the labels of shards that are gone from the input. Raises
    `ModerayError` for what a person can mend."""
    plan = make_plan(checked, replace, retry_failed)
    if not plan.todo and not plan.leftovers and not (prune and plan.gone) and _finished(plan):
        # A shard that has become unreadable since is told again; nothing is written.
        assert plan.manifest is not None
        now = {"unreadable": dict(checked.scan.unreadable), "failed": {}, "gone": list(plan.gone)}
        return Outcome({**plan.manifest, **now}, False, 0, 0.0, {})
    with plain_errors(checked.job.output.path), Lease(plan.layout) as lease:
        plan = make_plan(checked, replace, retry_failed)
        _clean(plan, prune)
        return _run(checked, plan, lease, progress or Progress(None), prune)


def _finished(plan: Plan) -> bool:
    return plan.manifest is not None and plan.manifest["runs"][-1]["status"] == "finished"


def _run(checked: Checked, plan: Plan, lease: Lease, progress: Progress, prune: bool) -> Outcome:
    """Under the lease: the manifest as the run begins, the labels, the manifest as it ends."""
    began = time.monotonic()
    if plan.todo:
        start_ray()
    gpus, cpus = resources() if plan.todo else (0, 0.0)
    engines = hosted(checked.job, checked.policies, gpus, cpus) if plan.rows_left else None
    manifest = manifests.begun(checked, plan, lease.epoch, manifests.local_hardware() | {"gpus": gpus})
    manifests.write(plan.layout, manifest)
    publisher = _Publisher(checked, plan, lease.epoch)
    for work in plan.todo:
        if not work.missing:
            publisher.start(work, work.saved)
    progress.start(plan.rows_left)
    tracker, seen, stopped = Tracker(plan.todo), BoardState(), None
    if engines is not None:
        seen, stopped = _judge(checked, plan, engines, lease, Brakes(checked.job.limits, gpus, engines.most, progress), tracker, publisher, progress)
    faults = {"unreadable": dict(checked.scan.unreadable), "failed": {**publisher.finish(), **tracker.failed}}
    progress.stop()
    seconds, rates = time.monotonic() - began, progress.rates()
    ending = {
        "status": "stopped" if stopped else "finished",
        "seconds": round(seconds, 1),
        "judged": progress.rows,
        "reused_verdicts": progress.reused,
        "engine_restarts": progress.restarts,
        "actors": seen.actors,
        "most_bytes_ahead": seen.most_ahead,
        "rates": {name: rate._asdict() for name, rate in rates.items()},
        **({"stopped": str(stopped)} if stopped else {}),
        **({"pruned": list(plan.gone)} if prune and plan.gone else {}),
    }
    markers = [*manifests.read_markers(plan.layout, [path for _, path in plan.done]), *publisher.markers]
    manifest = manifests.ended(manifest, markers, ending, faults, () if prune else plan.gone)
    manifests.write(plan.layout, manifest)
    if stopped is not None:
        raise stopped
    return Outcome(manifest, True, progress.rows, seconds, rates, tuple(plan.gone) if prune else ())


def _judge(
    checked: Checked, plan: Plan, engines: Engines, lease: Lease, brakes: Brakes, tracker: Tracker, publisher: _Publisher, progress: Progress
) -> tuple[BoardState, Stopped | None]:
    """Judge what is missing and publish each shard that is whole; the board as it was seen last, and why it stopped early."""
    board = start_board()
    stopped: Stopped | None = None
    try:
        with brakes.on_signals():
            for unit in _watched(_units(checked.job, plan, engines, lease.epoch, board), brakes, tracker, board, lease):
                progress.add(unit)
                if finished := tracker.add(unit):
                    publisher.start(*finished)
                publisher.collect()
        tracker.assert_complete()
    except Stopped as stop:
        stopped = stop
    return ray.get(board.state.remote()), stopped


def _watched(units: Generator[UnitDone, None, None], brakes: Brakes, tracker: Tracker, board: Any, lease: Lease) -> Iterator[UnitDone]:
    """The units as they come in, from a thread of their own: a run in which nothing comes in can be stopped all the same."""
    found: queue.Queue[UnitDone | BaseException | None] = queue.Queue()
    stop = threading.Event()

    def pump() -> None:
        try:
            # Closed here: left to the garbage collector, Ray Data's threads would be asked to wait for themselves.
            with closing(units):
                for unit in units:
                    found.put(unit)
                    if stop.is_set():
                        break
            found.put(None)
        except BaseException as error:  # raised again below, in the thread that can tell somebody
            found.put(error)

    pumping = threading.Thread(target=pump, name="units", daemon=True)
    pumping.start()
    seen, looked, stopping = BoardState(), 0.0, False
    try:
        while True:
            lease.assert_held()
            if tracker.outstanding:
                if brakes.stopping and not stopping:
                    stopping = True
                    board.stop.remote()
                if stopping or time.monotonic() - looked > LOOK_S:
                    seen, looked = ray.get(board.state.remote()), time.monotonic()
                brakes.check(seen, tracker)
            try:
                item = found.get(timeout=0.5)
            except queue.Empty:
                if stopping and not seen.at_work:
                    brakes.end()
                continue
            if item is None:
                if stopping and tracker.outstanding:
                    brakes.end()  # what is left was passed over
                return
            if isinstance(item, _LOST):
                raise TryAgain(
                    f"Ray lost what the run needs ({_first_line(item)}); what is complete is saved, and the same command goes on from there"
                ) from item
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        pumping.join(END_S)  # with the next unit, if one comes


def _clean(plan: Plan, prune: bool) -> None:
    """What a killed driver left half-written or lying, and with `prune` what the input no longer has."""
    layout = plan.layout
    if layout.fs.exists(layout.private("tmp")):
        layout.fs.rm(layout.private("tmp"), recursive=True)
    gone = [path for paths in plan.gone.values() for path in paths] if prune else []
    for path in [*plan.leftovers, *gone]:
        remove(layout.fs, path)


@dataclass(frozen=True)
class Reading:
    """What a read task is given: a span, the key its units are saved under, and where its rows may have verdicts already."""

    span: Span
    key: str
    earlier: EarlierFile | None


# Nodes, workers and objects that Ray gave up on.
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.RaySystemError,
)

# What an actor says instead of raising: Ray would hand on the text of an error, and not what to do about it.
_FATAL: Mapping[str, Callable[[str], ModerayError]] = {"UserError": UserError, "TryAgain": TryAgain, "Stopped": lambda said: Stopped(said, 3)}


def _units(job: Job, plan: Plan, engines: Engines, epoch: int, board: Any) -> Generator[UnitDone, None, None]:
    """Stream every missing unit through Ray Data; one `UnitDone` each, as they end."""
    todo = [Reading(span, work.units, work.earlier) for work in plan.todo for span in spans(work.shard, work.missing, job.unit)]
    _context(engines.read_ahead(job.unit))
    source = ray.data.from_items([{"reading": pickle.dumps(reading)} for reading in todo], override_num_blocks=len(todo))
    given = {"job": job, "vocabulary_source": engines.spec.vocabulary_source, "board": board}
    read = source.map_batches(_read, fn_kwargs=given, batch_size=None, batch_format="pyarrow", num_cpus=READ_CPUS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged = read.map_batches(
            _Judge,
            fn_constructor_args=(engines.spec, engines.judges, plan.layout, epoch, board),
            batch_size=None,
            batch_format="pyarrow",
            **engines.options(sum(len(reading.span.units) for reading in todo)),
        )
    with closing(iter(judged.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))) as batches:
        for batch in batches:
            for said in batch.column("said").to_pylist():
                row = json.loads(said)
                if "fatal" in row:
                    raise _FATAL[row["fatal"]](row["error"])
                yield UnitDone(**row | {"rows": tuple(row["rows"])})


def _context(read_ahead: int) -> None:
    """Every unit is a block of its own (a row that holds the whole unit), and reading waits for judging."""
    context = DataContext.get_current()
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=read_ahead)
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context._max_num_blocks_in_streaming_gen_buffer = 2


def _read(batch: pa.Table, job: Job, vocabulary_source: str | None, board: Any) -> Iterator[pa.Table]:
    """Task: read a span's units and prepare their contents. What cannot be read ends its shard; what no shard could be
    read without, such as credentials, ends the run."""
    end_with_raylet()
    vocab = vocabulary(vocabulary_source)
    for data in batch.column("reading").to_pylist():
        reading: Reading = pickle.loads(data)  # made by this driver
        left = list(reading.span.units)
        try:
            for rows, table in read_span(reading.span, job, vocab, reading.earlier):
                block = _block(reading, rows, table)
                board.read.remote((reading.span.shard.name, rows), block.nbytes)
                yield block
                left.remove(rows)
        except (pa.ArrowException, OSError) as error:
            for rows in left:
                yield _block(reading, rows, None, {"error": _first_line(error)})
        except Exception as error:
            if (refused := no_credentials(reading.span.shard.url, error)) is None:
                raise
            yield _block(reading, left[0], None, _fatal(refused))


def _block(reading: Reading, rows: Range, table: pa.Table | None, said: Mapping[str, str] | None = None) -> pa.Table:
    """A unit on its way to a judge: its rows, or what there is to say instead."""
    sink = pa.BufferOutputStream()
    if table is not None:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    columns = {"shard": [reading.span.shard.name], "key": [reading.key], "start": [rows[0]], "end": [rows[1]]}
    return pa.table({**columns, "unit": pa.array([sink.getvalue().to_pybytes()], pa.large_binary()), "said": [json.dumps(said or {})]})


class _Judge:
    """Actor: one engine, and as many units at once as keep it full."""

    def __init__(self, spec: EngineSpec, judges: Sequence[Reason], layout: Layout, epoch: int, board: Any) -> None:
        end_with_raylet()
        self._judges, self._layout, self._epoch, self._board = judges, layout, epoch, board
        self._host, self._told, self._name = EngineHost(spec), 0, whereabouts()
        board.joined.remote()

    async def __call__(self, block: pa.Table) -> Any:
        row = {name: block.column(name)[0].as_py() for name in ("shard", "key", "start", "end", "said")}
        unit = (row["shard"], (row["start"], row["end"]))
        said: dict[str, Any] = {"shard": unit[0], "rows": unit[1], **json.loads(row["said"])}
        if row["said"] == "{}":
            if await self._board.begin.remote(unit, self._name):
                said |= await self._outcome(unit, row["key"], block.column("unit")[0].as_buffer())
            else:
                said["skipped"] = True
            self._board.end.remote(unit)
        yield pa.table({"said": [json.dumps(said)]})

    async def _outcome(self, unit: Unit, key: str, data: pa.Buffer) -> dict[str, Any]:
        """Judge and save a unit; what the driver is told of it."""
        try:
            with pa.ipc.open_stream(data) as reader:
                table = reader.read_all()
            judged = await judge_unit(self._host, self._judges, table, self._epoch)
            await asyncio.to_thread(self._save, unit, key, judged)
        except EngineDead as error:
            return _fatal(Stopped(f"the engine died ({error}); what was judged is saved, and the same command goes on from there", 3))
        except TryAgain as error:
            return {"error": str(error)}
        except ModerayError as error:
            return _fatal(error)
        restarts, self._told = self._host.restarts - self._told, self._host.restarts
        return self._counted(judged) | {"restarts": restarts}

    def _counted(self, judged: pa.Table) -> dict[str, Any]:
        decisions = {judge.policy.id: decide(structs(judged.column(judge.policy.id)), judge.policy) for judge in self._judges}
        new = {name: decision.filter(_is_new(decision)) for name, decision in decisions.items()}
        return {
            "selected": judged.num_rows,
            "counts": {name: summary(decision) for name, decision in new.items()},
            "flagged": pc.sum(flagged(list(decisions.values()))).as_py() or 0,
            "reused": sum(len(decision) - len(new[name]) for name, decision in decisions.items()),
        }

    def _save(self, unit: Unit, key: str, judged: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, judged.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(judged)
        with plain_errors(self._layout.url):
            self._layout.write(self._layout.unit(*unit, key), sink.getvalue().to_pybytes())


def _fatal(error: ModerayError) -> dict[str, str]:
    return {"fatal": type(error).__name__, "error": str(error)}


def _is_new(decision: pa.StructArray) -> pa.BooleanArray:
    return pc.fill_null(pc.not_equal(decision.field("origin"), Origin.REUSED.value), True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _cause(error: ray.exceptions.RayError) -> BaseException:
    """What a task raised, where it is an error of ours."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, ModerayError) else error


class _Publisher:
    """Publishing tasks, a few at a time."""

    def __init__(self, checked: Checked, plan: Plan, epoch: int) -> None:
        self._checked, self._plan, self._epoch = checked, plan, epoch
        self._pending: dict[Any, str] = {}
        self._failed: dict[str, str] = {}
        self._publish, self._republish = _task(publish), _task(republish)
        self.markers: list[dict[str, Any]] = []

    def start(self, work: Work, units: Sequence[Range]) -> None:
        while len(self._pending) >= PUBLISHING:
            self.collect(wait=True)
        job = self._checked.job
        publication = Publication(
            self._plan.layout, work.shard, work.key, work.units, self._plan.decision, self._plan.judge_keys, self._checked.policies,
            self._checked.scan.columns, job.output.reasoning, self._epoch, job.storage,
        )  # fmt: skip
        task = self._republish.remote(publication, work.old) if work.redecide else self._publish.remote(publication, units, work.old)
        self._pending[task] = work.shard.name

    def collect(self, wait: bool = False) -> None:
        """Take in what has ended."""
        ready, _ = (
            ray.wait(list(self._pending), num_returns=1 if wait else max(1, len(self._pending)), timeout=None if wait else 0) if self._pending else ([], [])
        )
        for task in ready:
            shard = self._pending.pop(task)
            try:
                self.markers.append(ray.get(task))
            except ray.exceptions.RayError as error:
                cause = _cause(error)
                if not isinstance(cause, (ShardFailed, TryAgain)):
                    raise cause from error
                self._failed[shard] = _first_line(cause)

    def finish(self) -> dict[str, str]:
        """Wait for all; the shards that failed, and why."""
        while self._pending:
            self.collect(wait=True)
        return self._failed


def _task(work: Callable[..., dict[str, Any]]) -> Any:
    """A publishing task: it waits for storage more than it computes."""

    def task(publication: Publication, *args: Any) -> dict[str, Any]:
        end_with_raylet()
        with plain_errors(publication.layout.url):
            return work(publication, *args)

    return ray.remote(num_cpus=0)(task)
