"""The pipeline, from top to bottom; the one file that knows Ray Data.

what is not published yet -> spans -> read and prepare (CPU tasks) -> judge (engine actors) -> units on storage
-> one row of statistics each to the driver -> a shard whose units are all in is published (a task) -> manifest
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import pickle
import queue
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import ActorPoolStrategy, DataContext

from moderay import manifest as manifests
from moderay.brakes import Brakes
from moderay.check import Checked, engine_and_judges
from moderay.content import contents
from moderay.decide import decide, flagged, summary
from moderay.engines import EngineDead, EngineHost, EngineSpec
from moderay.errors import ModerayError, Stopped, TryAgain, UserError
from moderay.job import Job, Replicas, UnitSize
from moderay.judges.reason import Reason
from moderay.judges.unit import judge_unit
from moderay.plan import Plan, Work, make_plan
from moderay.policy import Policy
from moderay.progress import Progress, Rate
from moderay.prompt import Vocabulary, vocabulary
from moderay.publish import Publication, ShardFailed, publish, republish
from moderay.records import CONTENT_HASH
from moderay.state import Layout, Lease, LeaseLost, Range, gaps, tiling
from moderay.storage import plain_errors
from moderay.units import PREPARED, Span, prepared, read_span, spans

PUBLISHING = 4


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `manifest`: what the output now says of itself. `worked`: whether there was anything to do.
    `judged`: rows; `seconds`: of the whole run, its start included; `rates`: by policy id."""

    manifest: Mapping[str, Any]
    worked: bool
    judged: int
    seconds: float
    rates: Mapping[str, Rate]

    @property
    def exit_status(self) -> int:
        return 0 if self.manifest.get("complete") else 1


def run(checked: Checked, replace_labels: bool = False, progress: Progress | None = None) -> Outcome:
    """Label everything that is selected and not published yet. Raises `ModerayError` for what a person can mend."""
    plan = make_plan(checked, replace_labels)
    if not plan.todo and plan.manifest is not None and plan.manifest["runs"][-1]["status"] == "finished":
        # A shard that has become unreadable since is told again; nothing is written.
        return Outcome({**plan.manifest, **_complete(checked, {})}, False, 0, 0.0, {})
    with plain_errors(checked.job.output.path), Lease(plan.layout) as lease:
        _clean(plan.layout)
        return _run(checked, make_plan(checked, replace_labels), lease.epoch, progress or Progress(None))


def _run(checked: Checked, plan: Plan, epoch: int, progress: Progress) -> Outcome:
    began = time.monotonic()
    judging = any(work.missing for work in plan.todo)
    start_ray()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    manifest = manifests.begun(checked, plan, epoch, manifests.local_hardware() | {"gpus": gpus})
    manifests.write(plan.layout, manifest)
    publisher = _Publisher(checked, plan, epoch)
    tracker = _Tracker(plan.todo)
    for work in plan.todo:
        if work.redecide or not work.missing:
            publisher.start(work, work.saved)
    progress.start(plan.rows_left)
    brakes = Brakes(checked.job.limits, gpus, progress)
    stopped: Stopped | None = None
    try:
        with brakes.on_signals():
            for unit in _watched(_units(checked.job, checked.policies, plan, gpus, epoch), brakes, tracker) if judging else ():
                progress.add(unit)
                if finished := tracker.add(unit):
                    publisher.start(*finished)
                publisher.collect()
    except Stopped as stop:
        stopped = stop
    failed = {**tracker.failed, **publisher.finish()}
    if stopped is None:
        tracker.assert_complete()
    progress.stop()
    markers = [*manifests.read_markers(plan.layout, [path for _, path in plan.done]), *publisher.markers]
    seconds, rates = time.monotonic() - began, progress.rates()
    shown = {name: rate._asdict() for name, rate in rates.items()}
    ending = {
        "status": "stopped" if stopped else "finished",
        "seconds": round(seconds, 1),
        "judged": progress.rows,
        "engine_restarts": progress.restarts,
        "rates": shown,
    }
    manifest = manifests.ended(manifest, markers, ending, _complete(checked, failed), str(stopped or ""))
    manifests.write(plan.layout, manifest)
    if stopped is not None:
        raise stopped
    return Outcome(manifest, True, progress.rows, seconds, rates)


def _watched(units: Generator[UnitDone, None, None], brakes: Brakes, tracker: _Tracker) -> Iterator[UnitDone]:
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

    threading.Thread(target=pump, name="units", daemon=True).start()
    try:
        while True:
            if tracker.outstanding:
                brakes.check(tracker.waiting_for)
            try:
                item = found.get(timeout=1.0)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


def _complete(checked: Checked, failed: Mapping[str, str]) -> dict[str, Any]:
    return {"unreadable": dict(checked.scan.unreadable), "failed": dict(failed)}


def _clean(layout: Layout) -> None:
    """What a killed driver left half-written."""
    if layout.fs.exists(layout.private("tmp")):
        layout.fs.rm(layout.private("tmp"), recursive=True)


def start_ray() -> None:
    """Join the cluster this process is told of, else start a local one."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    # Ray's own C++ log would go to the user's terminal; what matters of it comes back as an exception. That it is off is
    # the one line it still prints.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with _no_stderr():
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """For code that is not Python's: file descriptor 2 goes nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclass(frozen=True)
class UnitDone:
    """What the driver hears of a unit: its counts by policy; or why its span could not be read. `restarts`: of its engine,
    since the unit before."""

    shard: str
    rows: Range
    selected: int
    counts: Mapping[str, Mapping[str, int]]
    flagged: int
    restarts: int
    error: str | None = None


# What an actor says instead of raising: Ray would hand on the text of an error, and not what to do about it.
_FATAL: Mapping[str, type[ModerayError]] = {"UserError": UserError, "TryAgain": TryAgain, "LeaseLost": LeaseLost}


def _units(job: Job, policies: Sequence[Policy], plan: Plan, gpus: int, epoch: int) -> Generator[UnitDone, None, None]:
    """Stream every missing unit through Ray Data; one `UnitDone` each, as they end."""
    spec, judges = engine_and_judges(job, policies, gpus)
    keys = {work.shard.name: work.key for work in plan.todo}
    todo = [span for work in plan.todo for span in spans(work.shard, work.missing, job.unit)]
    size, pool = _pool(job, spec, gpus, len(policies), sum(len(span.units) for span in todo))
    _context(todo, size)
    source = ray.data.from_items([{"span": pickle.dumps(span)} for span in todo], override_num_blocks=len(todo))
    read = source.map_batches(
        _read, fn_kwargs={"job": job, "keys": keys, "vocabulary_source": spec.vocabulary_source}, batch_size=None, batch_format="pyarrow", num_cpus=0.5
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged = read.map_batches(
            _Judge,
            fn_constructor_args=(spec, judges, plan.layout, epoch),
            batch_size=None,
            batch_format="pyarrow",
            compute=pool,
            num_cpus=1,
            num_gpus=spec.gpus,
            max_concurrency=size,
        )
    with closing(iter(judged.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))) as batches:
        for batch in batches:
            for row in batch.to_pylist():
                if row["fatal"]:
                    raise _FATAL[row["fatal"]](row["error"])
                counts, rows = json.loads(row["counts"]), (row["start"], row["end"])
                yield UnitDone(row["shard"], rows, row["selected"], counts, row["flagged"], row["restarts"], row["error"])


def _pool(job: Job, spec: EngineSpec, gpus: int, policies: int, units: int) -> tuple[int, ActorPoolStrategy]:
    """Units in flight at one engine, and the engines. Requests of at least twice `max_num_seqs` are in flight, and two
    units at least, so that no engine drains between two units."""
    in_flight = max(2, math.ceil(2 * spec.max_num_seqs / (job.unit.rows * policies)) + 1)
    most = max(1, gpus // spec.gpus) if spec.gpus else 1
    wanted = job.model.replicas
    low, high = (wanted.min, wanted.max) if isinstance(wanted, Replicas) else (wanted, wanted) if wanted else (most, most)
    if spec.gpus and low > most:
        raise UserError(f"model.replicas asks for {low} engines of {spec.gpus} GPUs, but the cluster has {gpus} GPUs")
    return in_flight, ActorPoolStrategy(min_size=min(low, units), max_size=min(high, units), max_tasks_in_flight_per_actor=in_flight)


def _context(todo: Sequence[Span], in_flight: int) -> None:
    """Every unit is a block of its own (a row that holds the whole unit), and reading waits for judging."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context._max_num_blocks_in_streaming_gen_buffer = 2


def _read(batch: pa.Table, job: Job, keys: Mapping[str, str], vocabulary_source: str | None) -> Iterator[pa.Table]:
    """Task: read a span's units and prepare their contents."""
    vocab = vocabulary(vocabulary_source)
    for data in batch.column("span").to_pylist():
        span: Span = pickle.loads(data)  # made by this driver
        done = span.units[0][0]
        try:
            for (start, end), table in read_span(span, job, vocab):
                yield _block(span, keys, (start, end), table, None)
                done = end
        except (pa.ArrowException, OSError) as error:
            yield _block(span, keys, (done, span.units[-1][1]), None, str(error).splitlines()[0])


def _block(span: Span, keys: Mapping[str, str], rows: Range, table: pa.Table | None, error: str | None) -> pa.Table:
    sink = pa.BufferOutputStream()
    if table is not None:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    name = span.shard.name
    columns = {"shard": [name], "key": [keys[name]], "start": [rows[0]], "end": [rows[1]]}
    return pa.table({**columns, "unit": pa.array([sink.getvalue().to_pybytes()], pa.large_binary()), "error": pa.array([error], pa.string())})


class _Judge:
    """Actor: one engine, and as many units at once as keep it full."""

    def __init__(self, spec: EngineSpec, judges: Sequence[Reason], layout: Layout, epoch: int) -> None:
        self._judges, self._layout, self._epoch = judges, layout, epoch
        self._host, self._told = EngineHost(spec), 0

    async def __call__(self, block: pa.Table) -> Any:
        row = {name: block.column(name)[0].as_py() for name in ("shard", "key", "start", "end", "error")}
        said: dict[str, Any] = {**row, "selected": 0, "flagged": 0, "counts": "{}", "fatal": ""}
        try:
            if row["error"] is None:
                said |= await self._judge(row, block.column("unit")[0].as_buffer())
        except EngineDead as error:
            said |= {"fatal": "TryAgain", "error": f"the engine died ({error}); what was judged is saved, and the same command goes on from there"}
        except ModerayError as error:
            said |= {"fatal": type(error).__name__, "error": str(error)}
        said["restarts"], self._told = self._host.restarts - self._told, self._host.restarts
        yield pa.table({**{name: [value] for name, value in said.items()}, "error": pa.array([said["error"]], pa.string())})

    async def _judge(self, row: Mapping[str, Any], data: pa.Buffer) -> dict[str, Any]:
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        unit = await judge_unit(self._host, self._judges, table, self._epoch)
        await asyncio.to_thread(self._save, row, unit)
        decisions = [decide(unit.column(judge.policy.id).combine_chunks(), judge.policy) for judge in self._judges]
        counts = {judge.policy.id: summary(decision) for judge, decision in zip(self._judges, decisions, strict=True)}
        return {"selected": unit.num_rows, "flagged": pc.sum(flagged(decisions)).as_py() or 0, "counts": json.dumps(counts)}

    def _save(self, row: Mapping[str, Any], unit: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, unit.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(unit)
        self._layout.write(self._layout.unit(row["shard"], (row["start"], row["end"]), row["key"]), sink.getvalue().to_pybytes())


def _cause(error: ray.exceptions.RayError) -> BaseException:
    """What a task raised, where it is an error of ours or the storage's."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, (ModerayError, OSError)) else error


class _Tracker:
    """Counts units per shard, and knows when a shard is whole. `outstanding`: rows that have not come back."""

    def __init__(self, todo: Sequence[Work]) -> None:
        self._work = {work.shard.name: work for work in todo if work.missing}
        self._left = {name: sum(end - start for start, end in work.missing) for name, work in self._work.items()}
        self.outstanding = sum(self._left.values())
        self._done: dict[str, list[Range]] = {name: list(work.saved) for name, work in self._work.items()}
        self.failed: dict[str, str] = {}
        self._heard = False

    def add(self, unit: UnitDone) -> tuple[Work, tuple[Range, ...]] | None:
        """The shard and its ranges, when this was the last unit it waited for."""
        self._heard = True
        if unit.error is not None:
            self.failed[unit.shard] = unit.error
            return None
        start, end = unit.rows
        self._done[unit.shard].append(unit.rows)
        self._left[unit.shard] -= end - start
        self.outstanding -= end - start
        if self._left[unit.shard] or unit.shard in self.failed:
            return None
        return self._work[unit.shard], tiling(self._done.pop(unit.shard))

    def waiting_for(self) -> str:
        """What has not come back, for a person who asks why nothing happens."""
        name = next((name for name, rows in self._left.items() if rows and name not in self.failed), None)
        if name is None:
            return "shards to be published"
        first = gaps(self._work[name].shard.rows, tiling(self._done[name]))[0]
        stage = "a judge" if self._heard else "the engines to start"
        return f"{stage}; first, {name} from row {first[0]:,}, {self.outstanding:,} rows in all"

    def assert_complete(self) -> None:
        """Units out = units in. Raises AssertionError."""
        lost = {name: rows for name, rows in self._left.items() if rows and name not in self.failed}
        assert not lost, f"rows that were sent to be judged and never came back: {lost}"


class _Publisher:
    """Publishing tasks, a few at a time."""

    def __init__(self, checked: Checked, plan: Plan, epoch: int) -> None:
        self._checked, self._plan, self._epoch = checked, plan, epoch
        self._pending: dict[Any, str] = {}
        self._failed: dict[str, str] = {}
        self._publish, self._republish = ray.remote(num_cpus=0)(publish), ray.remote(num_cpus=0)(republish)
        self.markers: list[dict[str, Any]] = []

    def start(self, work: Work, units: Sequence[Range]) -> None:
        while len(self._pending) >= PUBLISHING:
            self.collect(wait=True)
        job = self._checked.job
        publication = Publication(
            self._plan.layout, work.shard, work.key, self._plan.decision, self._checked.policies, self._checked.scan.columns, job.output.reasoning,
            self._epoch, job.storage,
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
                if not isinstance(cause, ShardFailed):
                    raise cause from error
                self._failed[shard] = str(cause)

    def finish(self) -> dict[str, str]:
        """Wait for all; the shards that failed, and why."""
        while self._pending:
            self.collect(wait=True)
        return self._failed


def label_dataset(ds: ray.data.Dataset, job: Job, policies: Sequence[Policy]) -> ray.data.Dataset:
    """Somebody's own Dataset with `content_hash`, `flagged` and a verdict column per policy added; lazy, as Ray's are."""
    start_ray()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    spec, judges = engine_and_judges(job, policies, gpus)
    size, pool = _pool(job, spec, gpus, len(policies), units=2**31)
    return ds.map_batches(
        _Labeller, fn_constructor_args=(spec, judges, job), batch_size=job.unit.rows, batch_format="pyarrow", compute=pool, num_cpus=1, num_gpus=spec.gpus,
        max_concurrency=size,
    )  # fmt: skip


class _Labeller:
    """Actor: adds the verdict columns to a batch."""

    def __init__(self, spec: EngineSpec, judges: Sequence[Reason], job: Job) -> None:
        self._judges, self._job, self._host = judges, job, EngineHost(spec)
        self._vocab = vocabulary(spec.vocabulary_source)

    async def __call__(self, batch: pa.Table) -> Any:
        rows = prepared(range(batch.num_rows), contents(batch, self._job.input.content), self._job, self._vocab)
        yield add_verdicts(batch, await judge_unit(self._host, self._judges, rows, 0), self._judges)


def add_verdicts(table: pa.Table, unit: pa.Table, judges: Sequence[Reason]) -> pa.Table:
    """A table with the decisions of a judged unit beside its rows."""
    decisions = [decide(unit.column(judge.policy.id).combine_chunks(), judge.policy) for judge in judges]
    table = table.append_column(CONTENT_HASH, unit.column(CONTENT_HASH.name)).append_column("flagged", flagged(decisions))
    for judge, decision in zip(judges, decisions, strict=True):
        table = table.append_column(judge.policy.id, decision)
    return table


def first_rows(checked: Checked, count: int, vocab: Vocabulary) -> pa.Table:
    """The first selected rows of the input, as `units.PREPARED`."""
    job, found = checked.job, PREPARED.empty_table()
    for shard in checked.scan.shards:
        for span in spans(shard, [(0, shard.rows)], UnitSize(rows=count)):
            for _, rows in read_span(span, job, vocab):
                found = pa.concat_tables([found, rows.slice(0, count - len(found))])
                if len(found) == count:
                    return found
    return found


def judge_here(job: Job, policies: Sequence[Policy], rows: pa.Table) -> pa.Table:
    """Judge a few rows (`units.PREPARED`) in this process, without Ray: what `label` and `run --limit` show."""
    spec, judges = engine_and_judges(job, policies, gpus=0)

    async def judged() -> pa.Table:
        host = EngineHost(spec)
        try:
            return await judge_unit(host, judges, rows, 0)
        finally:
            host.close()

    return add_verdicts(rows.drop_columns([CONTENT_HASH.name]), asyncio.run(judged()), judges)
