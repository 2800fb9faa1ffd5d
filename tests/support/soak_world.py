"""A world of a soak: one input and one output, through some episodes of changes and faults.

An episode: the input changes; drivers run while things fail; an output may be damaged; then nothing
fails any more, and a plain run is repeated until it ends well. After that `verify` must find
nothing, the labels must be those that the model of the truth has, and a further run must find
nothing to do.

What is paid: a content is asked for once for every version of a file that has it, unless the labels
of that file hold it already. Beyond that only what fails may cost: a run that does not end with
status 0, an engine or worker or node that is killed costs what is in flight then (`in_flight`), a
file rewritten while it is read the rows of both versions, a label file or marker that is destroyed
its rows, a unit its rows. Where listings are late, each driver may miss all that was saved.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from moderay.cli.app import main
from support import truth as truths
from support.faulty_driver import LEASE_S
from support.ray_nodes import Nodes
from support.s3_running import Proxy
from support.soak_drivers import Drivers, drivers, is_asleep
from support.soak_inputs import Inputs
from support.soak_plan import Change, DriverPlan, Episode, Fault, WorldPlan
from support.stores import Bucket, Folder, Store

# Rows of a unit, answers at once of an engine, questions that a unit waits with (`sizing`).
UNIT, SEQS, QUESTIONS_PER_SEAT = 10, 2, 8
# Seconds that a plain run may take, and how often it is tried.
RUN_S, TRIES = 400, 5
# Megabytes of a disk that is filled at times.
DISK_MB = 24
# A marker's path; the first group is its label file.
_MARKED = re.compile(r"_moderay/shards/(.*?)-[0-9a-f]{16}-.*\.json")


class ViolationError(AssertionError):
    """Something that must not be."""


class StuckError(BaseException):
    """A run does not end."""


@dataclass
class Scene:
    """What worlds share.

    Attributes:
        nodes: The Ray that drivers join.
        proxy: Before the S3 server.
        upstream: The server itself.
        may_mount: Whether a world may have a disk of its own, that can be full.
    """

    nodes: Nodes
    proxy: Proxy
    upstream: str
    may_mount: bool


@dataclass
class Tally:
    """What a soak went through.

    Attributes:
        episodes: That ended well.
        faults: Those that hit, by kind.
        rows: Of label files that were held against the truth.
        answered: Contents that were asked for, each time counted.
        again: Those beyond the first time, and how many of them faults may cost.
    """

    episodes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    answered: int = 0
    again: int = 0
    bound: int = 0


def in_flight(engines: int) -> int:
    """Rows at a driver's engines, none of which may be saved yet."""
    units = math.ceil(QUESTIONS_PER_SEAT * SEQS / UNIT) + 2
    return engines * units * UNIT


class World:
    """One input and one output."""

    def __init__(self, plan: WorldPlan, folder: Path, scene: Scene, tally: Tally) -> None:
        self.plan, self.folder, self._scene, self._tally = plan, folder, scene, tally
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        if scene.may_mount:
            size = ("-o", f"size={DISK_MB}M")
            subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", str(self.disk)], check=True)
        self.truth = truths.Truth()
        self.outputs = self._store("out", plan.output_on_store)
        self._inputs = Inputs(self._store("in", plan.input_on_store), plan.suffix, self.truth)
        self._contents = folder / "contents.jsonl"
        self._contents.touch()
        self._job = self._write_job("job", {"mean_s": 0.03, "sigma": 0.5})
        self._peace = self._write_job("peace", {})
        for number in range(plan.files):
            self._inputs.change(Change("new", 0.0, number))

    def _store(self, name: str, on_store: bool) -> Store:
        if not on_store:
            (self.disk / name).mkdir()
            return Folder(self.disk / name)
        return Bucket(f"s3://data/{self.folder.name}/{name}", self._scene.upstream)

    def _write_job(self, name: str, delay: Mapping[str, float]) -> Path:
        script = truths.script() | {
            "delay": delay,
            "notes": self.plan.answers == 1,
            "contents": str(self._contents),
        }
        (self.folder / f"{name}-script.yaml").write_text(yaml.safe_dump(script))
        job = {
            "name": "soak",
            "input": {"path": self._inputs.url, "content": "text"},
            "output": {
                "path": self.outputs.url,
                "columns": "all" if self.plan.carried else ["id"],
            },
            "policies": [truths.policy()],
            "model": {
                "source": f"scripted:{name}-script.yaml",
                "engine": {"max_num_seqs": SEQS},
                "replicas": self.plan.engines,
            },
            "unit": {"rows": UNIT},
            "limits": {"stall_s": 60, "max_failed": 1.0},
        }
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
        return self.folder / f"{name}.yaml"

    def close(self) -> None:
        if self._scene.may_mount:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False)

    def keep(self, kept: Path) -> None:
        """Copy all that there is of this world."""
        shutil.copytree(self.folder, kept, dirs_exist_ok=True)
        for name in self.outputs.names() if isinstance(self.outputs, Bucket) else ():
            (kept / "out" / name).parent.mkdir(parents=True, exist_ok=True)
            (kept / "out" / name).write_bytes(self.outputs.read(name))

    def play(self, episode: Episode) -> None:
        """One episode.

        Raises:
            ViolationError: Something is not as it must be.
        """
        offset = self._contents.stat().st_size
        for change in episode.changes:
            self._tally.faults[f"input {change.kind}"] += self._inputs.change(change)
        since = self.truth.alive()
        cost = self._disturbed(episode)
        self._raise_wrong(self.truth.wrong_ever(self.labels()))
        cost += self._damage(episode)
        cost += self._in_peace(episode)
        labels = self.labels()
        self._raise_wrong(self.truth.wrong_now(labels, episode.prune))
        self._settle()
        self._paid(offset, since, cost)
        self.truth.settle(labels)
        self._tally.rows += sum(map(len, labels.values()))
        self._tally.episodes += 1

    def labels(self) -> dict[str, pa.Table]:
        """All label files of the output."""
        return {
            name: pq.read_table(io.BytesIO(self.outputs.read(name)), partitioning=None)
            for name in self.outputs.names()
            if name.endswith(".parquet") and not name.startswith("_moderay/")
        }

    def _raise_wrong(self, wrong: Any) -> None:
        if reasons := list(wrong):
            raise ViolationError("; ".join(reasons[:5]))

    def _disturbed(self, episode: Episode) -> int:
        """Drivers at work while things fail; rows that this may cost."""
        before = self._scene.proxy.done()
        self._scene.proxy.set(episode.rate, episode.kinds, episode.late)
        cost = 0
        try:
            with drivers(self._job, self._scene.nodes, episode.own_ray) as started:
                for driver in episode.drivers:
                    started.start(driver)
                    self._tally.faults["clock"] += driver.clock != 0
                self._await_claims(started)
                began = time.monotonic()
                for fault in episode.faults:
                    while started.running and time.monotonic() < began + fault.after_s:
                        time.sleep(0.05)
                    cost += self._fault(fault, started)
                self._wake(started)
                if not started.wait():
                    raise ViolationError("a driver does not end")
                cost += self._ends(episode, started)
        finally:
            self._scene.proxy.set()
        done = Counter(self._scene.proxy.done())
        done.subtract(before)
        for kind, count in done.items():
            if kind != "calls" and count:
                self._tally.faults[f"storage {kind}"] += count
        if done["late"]:
            cost += len(started.all) * sum(len(one.contents) for one in self.truth.now.values())
        return cost

    def _await_claims(self, started: Drivers) -> None:
        until = time.monotonic() + 30
        while started.running and time.monotonic() < until:
            if any(name.startswith("_moderay/leases/") for name in self.outputs.names()):
                return
            time.sleep(0.1)

    def _fault(self, fault: Fault, started: Drivers) -> int:
        """Do it, if there is anything left to do it to; rows that it costs beyond drivers' ends."""
        rng = random.Random(fault.which)
        awake = [driver for driver in started.running if not is_asleep(driver)]
        if not awake:
            return 0
        driver = rng.choice(awake)
        hit, cost = True, 0
        match fault.kind:
            case "driver":
                driver.kill()
                driver.wait()
                if fault.which < 0.5:
                    started.start(DriverPlan(None))
            case "stop":
                started.sleep(driver, rng)
            case "actor" | "worker":
                find = started.engines if fault.kind == "actor" else started.workers
                hit = _kill_one(find, rng)
                cost = in_flight(self.plan.engines)
            case "node":
                self._scene.nodes.kill_second()
                cost = in_flight(self.plan.engines)
            case "raylet":
                _await(started.workers, 10 * rng.random())
                hit = started.kill_raylet(driver)
            case "rewrite":
                hit, cost = self._rewrite(fault, rng)
            case "full":
                self._fill(rng)
        self._tally.faults[fault.kind] += hit
        return cost if hit else 0

    def _rewrite(self, fault: Fault, rng: random.Random) -> tuple[bool, int]:
        before = {name: len(versions) for name, versions in self.truth.ever.items()}
        rows = {truths.label_name(name): len(one.texts) for name, one in self.truth.now.items()}
        if rng.random() < 0.3:
            self._inputs.half(fault.change)
            hit = True
        else:
            hit = self._inputs.change(fault.change)
        return hit, sum(
            rows.get(name, 0) + sum(len(one.texts) for one in versions[before.get(name, 0) :])
            for name, versions in self.truth.ever.items()
            if len(versions) > before.get(name, 0)
        )

    def _fill(self, rng: random.Random) -> None:
        """Leave next to nothing on the disk for a while."""
        if not self._scene.may_mount:
            return
        ballast = self.disk / "ballast"
        room = os.statvfs(self.disk)
        size = room.f_bavail * room.f_frsize - rng.choice((0, 8_000, 40_000))
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, size))
        time.sleep(rng.uniform(1.0, 4.0))
        ballast.unlink()

    def _wake(self, started: Drivers) -> None:
        """Those that still sleep wake when another one has taken over, or has ended."""
        asleep = [driver for driver in started.running if is_asleep(driver)]
        if not asleep:
            return
        self._tally.faults["asleep as it writes"] += len(asleep)
        time.sleep(LEASE_S + 0.5)
        other = started.start(DriverPlan(None))
        until = time.monotonic() + 20
        while other.poll() is None and time.monotonic() < until:
            time.sleep(0.1)

    def _ends(self, episode: Episode, started: Drivers) -> int:
        """Rows that drivers which did not end well may cost.

        Raises:
            ViolationError: One ended in another way than one that people can mend.
        """
        cost = 0
        for status, printed in started.ended():
            if "Traceback" in printed or status not in (0, 1, 2, 3, -signal.SIGKILL):
                raise ViolationError(f"a driver ended with status {status}: {printed[-700:]}")
            cost += in_flight(self.plan.engines) if status else 0
            self._tally.faults[f"(drivers that ended with {status})"] += 1
        killed = sum(driver.write > 0 and driver.signal == 9 for driver in episode.drivers)
        self._tally.faults["killed as it writes"] += killed
        return cost

    def _damage(self, episode: Episode) -> int:
        """Damage one file of the output; rows that this may cost."""
        labels = {truths.label_name(name): one for name, one in self.truth.now.items()}
        names = self.outputs.names()
        kinds: dict[str, list[str]] = {
            "label": [name for name in names if name in labels],
            "unit": [name for name in names if name.startswith("_moderay/units/")],
            # Of what is gone, nobody makes the labels again.
            "marker": [name for name in names if _MARKED.sub(r"\1", unquote(name)) in labels],
            "beat": [name for name in names if name.endswith(".beat")],
        }
        subject, _, way = episode.damage.partition(" ")
        some = kinds.get(subject, [])
        if not some or (way == "ahead" and not isinstance(self.outputs, Folder)):
            return 0
        name = some[int(episode.which * len(some))]
        data = self.outputs.read(name)
        if way == "gone":
            self.outputs.remove(name)
        elif way == "ahead":
            ahead = time.time_ns() + 3600 * 10**9
            self.outputs.write(name, data, ahead)
        else:
            self.outputs.write(name, data[: len(data) // 2] if way == "cut" else b"")
        self._tally.faults[f"damage: {episode.damage}"] += 1
        most = max(len(one.texts) for versions in self.truth.ever.values() for one in versions)
        return {"label": most, "marker": most, "unit": UNIT}.get(subject, 0)

    def _in_peace(self, episode: Episode) -> int:
        """Nothing fails any more; rows that plain runs which did not end well may cost.

        Raises:
            ViolationError: A plain run does not end well, or `verify` does not.
        """
        if episode.repair:
            plain("verify", self.outputs.url, "--repair")
        prune = ["--prune"] if episode.prune else []
        for attempt in range(1, TRIES + 1):
            status, printed = plain("run", self._peace, *prune)
            if status == 0:
                break
            if attempt == TRIES:
                raise ViolationError(f"a plain run ends with status {status}: {printed[-700:]}")
            if status == 2:
                plain("verify", self.outputs.url, "--repair")
            elif status == 3:
                time.sleep(LEASE_S / 2)
        status, printed = plain("verify", self.outputs.url)
        if status:
            raise ViolationError(f"verify ends with status {status}: {printed[-700:]}")
        status, printed = plain("run", self._peace, *prune)
        if status or "nothing to do" not in printed:
            raise ViolationError(f"the next run ends with status {status}: {printed[-700:]}")
        return (attempt - 1) * in_flight(self.plan.engines)

    def _settle(self) -> None:
        """Until engines that outlived their drivers have ended."""
        until = time.monotonic() + 20
        while self._scene.nodes.actors() and time.monotonic() < until:
            time.sleep(0.1)

    def _paid(self, offset: int, since: Mapping[str, int], cost: int) -> None:
        with open(self._contents, "rb") as file:
            file.seek(offset)
            answers = Counter(json.loads(line) for line in file)
        each = self.plan.answers
        asked = Counter({one: math.ceil(count / each) for one, count in answers.items()})
        again = (asked - self.truth.to_pay(since)).total()
        self._tally.answered += asked.total()
        self._tally.again += again
        self._tally.bound += cost
        if again > cost:
            raise ViolationError(f"{again} rows were paid once more, and faults cost {cost}")


def _kill_one(find: Callable[[], list[Any]], rng: random.Random) -> bool:
    """SIGKILL one of some processes, once there are any; whether there were in time."""
    if some := _await(find, 5):
        rng.choice(some).kill()
    return bool(some)


def _await(find: Callable[[], list[Any]], seconds: float) -> list[Any]:
    until = time.monotonic() + seconds
    while not (some := find()) and time.monotonic() < until:
        time.sleep(0.05)
    return some


def plain(*args: object) -> tuple[int, str]:
    """`moderay` in this process, with the workers that it has; its status, and what it printed.

    Raises:
        ViolationError: It does not end, or ends in a traceback.
        KeyboardInterrupt: Somebody wants it to end.
    """

    def stuck(_: int, frame: FrameType | None) -> None:
        raise StuckError

    printed = io.StringIO()
    before, argv = signal.signal(signal.SIGALRM, stuck), sys.argv
    sys.argv = ["moderay", *map(str, args)]
    signal.alarm(RUN_S)
    status = 0
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            main()
    except SystemExit as end:
        status = int(end.code or 0)
    except StuckError:
        raise ViolationError(f"{' '.join(sys.argv)} does not end: {printed.getvalue()}") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        sys.argv = argv
    text = printed.getvalue()
    if re.search("stopped by SIG(INT|TERM)", text):
        raise KeyboardInterrupt
    if "Traceback" in text or status not in (0, 1, 2, 3):
        raise ViolationError(f"{' '.join(map(str, args))} ended with {status}: {text[-700:]}")
    return status, text
