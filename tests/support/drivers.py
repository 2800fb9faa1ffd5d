"""Drivers without a cluster: the real `run`, which judges and publishes in its own process.

What is replaced is what Ray would do elsewhere: a unit is judged by what its rows are, and
publishing is called, not sent. Every listing, lease, unit, label file, marker and manifest is real.
"""

from __future__ import annotations

import functools
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import ModerayError
from moderay.core.storage import filesystem, get
from moderay.core.verdicts import Status, Verdict, unit_schema, verdict_array
from moderay.corpus.content import content_hash
from moderay.corpus.ranges import Range
from moderay.corpus.shard import Shard
from moderay.labels import lease
from moderay.labels.layout import Layout, list_state
from moderay.labels.lease import beat_path, claims
from moderay.labels.manifest_record import Manifest
from moderay.labels.shard_writer import ShardFailedError, publish, republish
from moderay.labels.unit_file import unit_bytes
from moderay.pipeline import flow
from moderay.pipeline import run as runs
from moderay.pipeline.check import Checked
from moderay.pipeline.control.board import BoardState
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.control.tracker import Tracker
from moderay.pipeline.messages.spans import Span
from moderay.pipeline.messages.units import UnitDone
from moderay.pipeline.outcome import Outcome, RunOptions
from moderay.pipeline.plan import Plan, Work
from moderay.pipeline.stages.publish_tasks import Publisher
from moderay.pipeline.stages.spans import spans
from moderay.tasks.verify.verify import verify
from support.scripted import write_job
from support.steps import Driver, World, stepping

# Rows of a unit.
UNIT = 3


class InlinePublisher(Publisher):
    """Publishes where it is called."""

    def __init__(self, checked: Checked, plan: Plan, run: int) -> None:
        super().__init__(checked, plan, run, most=1)
        self._wrong: dict[str, str] = {}

    def start(self, work: Work, units: Sequence[Range]) -> None:
        publication = self.publication(work)
        try:
            if work.redecide:
                self.add(republish(publication, work.old))
            else:
                self.add(publish(publication, units, work.old))
        except ShardFailedError as error:
            self._wrong[work.shard.name] = str(error)

    def finish(self, stopped: bool = False) -> dict[str, str]:
        return self._wrong


def _begun(
    checked: Checked,
    plan: Plan,
    held: lease.Lease,
    worked: frozenset[int],
    progress: Progress,
    gate: None,
) -> Any:
    publisher = InlinePublisher(checked, plan, held.run)
    tracker, unit = Tracker(plan.todo), checked.job.unit
    return flow._Run(checked, plan, held, worked, progress, None, 0, tracker, publisher, gate, unit)


def _judge(paid: Counter[tuple[str, Range]], run: Any) -> tuple[BoardState, None]:
    """Judge each missing unit."""
    for work in run.plan.todo:
        for span in spans(work.shard, work.missing, run.checked.job.unit):
            for rows in _units(span):
                paid[work.shard.name, rows] += 1
                path = run.plan.layout.unit(work.shard.name, rows, work.units)
                run.plan.layout.write(path, unit_bytes(judged(rows, run.lease.run), rows))
                if finished := run.tracker.add(UnitDone(work.shard.name, rows)):
                    run.publisher.start(*finished)
    run.tracker.assert_complete()
    return BoardState(), None


def _units(span: Span) -> Iterator[Range]:
    for start, end in span.missing:
        yield from ((at, min(at + span.step, end)) for at in range(start, end, span.step))


def judged(rows: Range, run: int) -> pa.Table:
    """A unit in which every third row is spam; its reasons name the run that judged it."""
    numbers = range(*rows)
    verdicts = [
        Verdict(
            Status.OK,
            scores=[0.1, 0.0, 0.9] if row % 3 == 0 else [0.9, 0.1, 0.0],
            rationale=f"row {row}",
            answer="SP4" if row % 3 == 0 else "SP0",
            decided_by="reason",
        )
        for row in numbers
    ]
    columns = [
        pa.array(numbers),
        pa.array([content_hash([text(row)]) for row in numbers]),
        verdict_array(verdicts, run),
    ]
    return pa.Table.from_arrays(columns, schema=unit_schema(["spam"]))


def text(row: int) -> str:
    """The content of a shard's row."""
    return f"text {row}"


def job_file(folder: Path, shards: int, rows: int) -> Path:
    """A job over shards of so many rows, judged three at a time."""
    (folder / "in").mkdir()
    for number in range(shards):
        texts = pa.table({"text": [text(row) for row in range(rows)]})
        pq.write_table(texts, folder / f"in/{number}.parquet")
    output = {"path": "memory://nowhere", "reasoning": "all"}
    return write_job(folder, output=output, unit={"rows": UNIT})


class PointlessError(Exception):
    """A letter of a schedule does nothing where it stands: a shorter schedule says the same."""


class Drivers:
    """Two drivers of one job, a and b, over one store.

    A schedule's letters: `a`, `b`: that driver writes once; it is started before, where there is
    none. `A`, `B`: it is killed before its next write. `t`: the time of a lease passes.

    Attributes:
        world: What they share.
        paid: How often each unit of a shard was judged.
        faults: Kills, and leases that passed.
    """

    def __init__(
        self, checked: Checked, url: str, *, conditional: bool = True, parts: int = 1
    ) -> None:
        """Of a job.

        Args:
            checked: It.
            url: A folder of any store, for its output.
            conditional: Whether the store refuses to create what is there.
            parts: Of how many parts each driver is to label one.
        """
        output = checked.job.output.model_copy(update={"path": url})
        self._checked = replace(checked, job=checked.job.model_copy(update={"output": output}))
        self._parts = {"a": (0, parts), "b": (parts - 1, parts), "c": lease.WHOLE}
        self._layout = Layout(url, checked.job.storage)
        self.world = World(conditional)
        self.paid = Counter[tuple[str, Range]]()
        self.faults = 0

    @classmethod
    def played(
        cls,
        checked: Checked,
        store: str,
        schedule: str,
        *,
        strict: bool = False,
        conditional: bool = True,
        parts: int = 1,
    ) -> None:
        """Play a schedule in a new folder of a store, and one more run: all must be there then.

        Raises:
            PointlessError: As `play`.
            AssertionError: Something is lost or wrong.
        """
        url = f"{store}/{uuid.uuid4().hex}"
        drivers = cls(checked, url, conditional=conditional, parts=parts)
        try:
            drivers.play(schedule, strict)
            drivers.assert_whole()
        finally:
            fs, path = filesystem(url)
            with suppress(FileNotFoundError):  # nothing was written
                fs.rm(path, recursive=True)

    def play(self, schedule: str, strict: bool = False) -> None:
        """What the letters say, and then every driver to its end.

        Args:
            schedule: The letters.
            strict: Whether each of them must do something.

        Raises:
            PointlessError: A letter does nothing, and `strict`.
            AssertionError: A driver ended in an error that no person can mend.
        """
        with self._replaced():
            try:
                for letter in schedule:
                    self._play(letter, strict)
                for name in list(self.world.drivers):
                    self._finish(name)
            finally:
                for driver in self.world.drivers.values():
                    driver.kill()

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        """What a cluster would do is done here, and what is written waits for its turn."""
        with (
            stepping(self.world),
            mock.patch.object(flow, "_begun", _begun),
            mock.patch.object(flow, "_judge", functools.partial(_judge, self.paid)),
        ):
            yield

    def _play(self, letter: str, strict: bool) -> None:
        drivers = self.world.drivers
        if letter not in "ab" and not (drivers if letter == "t" else letter.lower() in drivers):
            if strict:
                raise PointlessError
            return
        if letter == "t":
            self.world.clock += lease.LEASE_S + 1
        elif letter.isupper():
            drivers.pop(letter.lower()).kill()
        else:
            if letter not in drivers:
                drivers[letter] = Driver(lambda: self.run(letter))
                drivers[letter].start()
            self._step(letter)
            if drivers[letter].over:
                self._finish(letter)
        self.faults += letter not in "ab"

    def _step(self, name: str) -> None:
        """A driver that is awake renews its lease, unless it has lost it, and writes."""
        for run in claims(self._layout):
            beat = beat_path(self._layout, run)
            if self.world.written.get(beat, (0, ""))[1] == name:
                self.world.written[beat] = self.world.clock, name
        self.world.drivers[name].step()

    def _finish(self, name: str) -> None:
        driver = self.world.drivers[name]
        while not driver.over:
            self._step(name)
        del self.world.drivers[name]
        if driver.error is not None and not isinstance(driver.error, ModerayError):
            raise AssertionError(f"driver {name}: {driver.error!r}") from driver.error

    def run(self, name: str) -> Outcome:
        """One run of a driver."""
        return runs.run(self._checked, RunOptions(part=self._parts[name]))

    def assert_whole(self) -> None:
        """After the last driver: one more run, and then all is there, as often as it was paid.

        Raises:
            AssertionError: It is not.
        """
        self.world.clock += lease.LEASE_S + 1
        with self._replaced():
            outcome = self.run("c")
            assert outcome.exit_status == 0 and outcome.manifest.complete, outcome
            assert not self.run("c").worked, "there is no end to what is left to do"
        verified = verify(self._layout.url, self._layout.options)
        assert verified.findings == (), verified
        shards = self._checked.scan.shards
        assert verified.shards == len(shards)
        for shard in shards:
            self._assert_right(shard, outcome.manifest)
        assert outcome.manifest.rows == sum(shard.rows for shard in shards)
        assert outcome.manifest.flagged == outcome.manifest.counts["spam"].labels["SP4"]
        assert list_state(self._layout).units == {}
        assert all(times <= 1 + self.faults for times in self.paid.values()), self.paid

    def _assert_right(self, shard: Shard, manifest: Manifest) -> None:
        """Every row once, in order, with the label that it should have, by a run that is known."""
        table = pq.read_table(pa.BufferReader(get(self._layout.fs, self._layout.label(shard.name))))
        assert table.column("row").to_pylist() == list(range(shard.rows))
        expected = ["SP4" if row % 3 == 0 else "SP0" for row in range(shard.rows)]
        assert pc.struct_field(table.column("spam"), "label").to_pylist() == expected
        if not self.world.conditional:
            return  # a driver that wakes may write over the manifest that knows of another's run
        for run in pc.unique(pc.struct_field(table.column("spam"), ["trace", "run"])).to_pylist():
            assert manifest.runs[run].date is not None, f"nobody knows of run {run}"
