"""Drivers of a soak, and what is done to them and to the processes below them."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from support.faulty_driver import LEASE_S
from support.project import ROOT
from support.ray_nodes import Nodes
from support.soak_plan import DriverPlan

SCRIPT = ROOT / "tests/support/faulty_driver.py"
# Of a raylet's children; without its agents, nothing of Ray's node goes on.
_BUSY = re.compile(r"ray::(?!IDLE|\w*Agent)")
# Seconds in which a driver ends once nothing fails any more.
ENDS_S = 300.0


class Drivers:
    """Those of one episode; none of them outlives it."""

    def __init__(self, job: Path, nodes: Nodes, own_ray: bool) -> None:
        self._job, self._nodes, self._own_ray = job, nodes, own_ray
        self._logs: list[Path] = []
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self, plan: DriverPlan) -> subprocess.Popen[bytes]:
        options = [f"--part={plan.part}"] if plan.part else []
        options += [f"--clock={plan.clock}"] if plan.clock else []
        options += [f"--write={plan.write}", f"--signal={plan.signal}"] if plan.write else []
        options += ["--after"] if plan.after else []
        self._logs.append(self._job.parent / f"driver-{time.monotonic_ns()}.log")
        with open(self._logs[-1], "wb") as log:
            driver = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(self._job), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._nodes.env | ({"RAY_ADDRESS": "local"} if self._own_ray else {}),
            )
        self.all.append(driver)
        return driver

    @property
    def running(self) -> list[subprocess.Popen[bytes]]:
        return [driver for driver in self.all if driver.poll() is None]

    def ended(self) -> Iterator[tuple[int, str]]:
        """Status and words of those that have ended, in order."""
        for driver, log in zip(self.all, self._logs, strict=True):
            if driver.poll() is not None:
                yield driver.returncode, log.read_text(errors="replace")

    def wake(self) -> None:
        for driver in self.running:
            driver.send_signal(signal.SIGCONT)

    def wait(self, seconds: float = ENDS_S) -> bool:
        """Wake those that sleep until all have ended; whether they have in time."""
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            self.wake()
            time.sleep(0.2)
        return not self.running

    def engines(self) -> list[psutil.Process]:
        return [one for one in self.workers() if "MapBatches(Judge)" in _command(one)]

    def workers(self) -> list[psutil.Process]:
        """Ray's workers that do something."""
        mine = [driver.pid for driver in self.running]
        workers = []
        for pid in mine if self._own_ray else self._nodes.raylets():
            with suppress(psutil.NoSuchProcess):
                workers += psutil.Process(pid).children(recursive=True)
        return [one for one in workers if _BUSY.match(_command(one))]

    def sleep(self, driver: subprocess.Popen[bytes], rng: random.Random) -> None:
        """Stop a driver for longer than its lease; another takes over, and it wakes again."""
        driver.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_S + 0.5)
        other = self.start(DriverPlan(None))
        until = time.monotonic() + rng.uniform(0.0, 8.0)
        while time.monotonic() < until and other.poll() is None:
            time.sleep(0.1)
        driver.send_signal(signal.SIGCONT)

    def kill_raylet(self, driver: subprocess.Popen[bytes]) -> bool:
        """The raylet of a driver's own Ray; whether there was one."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(driver.pid).children(recursive=True):
                if process.name() == "raylet":
                    process.kill()
                    return True
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def drivers(job: Path, nodes: Nodes, own_ray: bool) -> Iterator[Drivers]:
    started = Drivers(job, nodes, own_ray)
    try:
        yield started
    finally:
        for driver in started.running:
            driver.send_signal(signal.SIGKILL)  # a stopped one ends of it, too
            driver.wait()


def is_asleep(driver: subprocess.Popen[bytes]) -> bool:
    try:
        return bool(psutil.Process(driver.pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
