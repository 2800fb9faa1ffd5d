"""Rays on this machine: one that tests share, and those of somebody else."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
from ray.cluster_utils import Cluster

# Ray gives a node up that does not answer within 30 s; a busy machine takes longer now and then.
ATTEMPTS = 3
# Workers that have imported everything wait for the next run: by default Ray ends them after a
# second, and a run would spend a quarter of its time on starting others. Not for longer, since one
# that waits takes a hundredth of a core, and starting it takes less than two seconds of one.
KEPT_WORKERS = {"num_workers_soft_limit": 8, "idle_worker_killing_time_threshold_ms": 150_000}

HEAD = {
    "num_cpus": 2,
    "include_dashboard": False,
    # What would print workers' logs, and add nodes, takes a twentieth of two cores, for nobody.
    "include_log_monitor": False,
    "no_monitor": True,
    "_system_config": KEPT_WORKERS,
}


def started_ray() -> Cluster:
    """A Ray of two CPUs, without a dashboard.

    Raises:
        Exception: It did not start in any of three attempts.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Cluster(initialize_head=True, head_node_args=dict(HEAD))
        except Exception as error:
            if attempt == ATTEMPTS or "timed out during startup" not in str(error):
                raise
    raise AssertionError("an attempt returns or raises")


@dataclass(frozen=True)
class ForeignRay:
    """A Ray that somebody else has started on this machine, with `ray start`.

    Attributes:
        address: Of its head.
        env: Where a process looks for a Ray of this machine, and finds this one.
        token: Lets a process in that joins it by its address.
        process: Below which all of its processes run.
    """

    address: str
    env: dict[str, str]
    token: dict[str, str]
    process: subprocess.Popen[str]

    def named(self, name: str) -> psutil.Process:
        """One of its processes: `gcs_server` or `raylet`."""
        return child(self.process.pid, name)


def child(pid: int, name: str) -> psutil.Process:
    """A process below another, by its name."""
    below = psutil.Process(pid).children(recursive=True)
    return next(process for process in below if process.name().startswith(name))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def foreign_ray() -> Iterator[ForeignRay]:
    """A head of two CPUs without a dashboard; its folder is short, since sockets lie in it."""
    folder = tempfile.mkdtemp(prefix="mr-")
    port = free_port()
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    env |= {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    token = {"RAY_AUTH_MODE": "token"}  # it is this user's, in the home folder
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--num-cpus=2", "--include-dashboard=false", "--no-monitor", f"--port={port}"),
        *(
            f"--dashboard-agent-listen-port={free_port()}",
            f"--ray-client-server-port={free_port()}",
        ),
        *("--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 * 2**20}"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ray runtime started" in line:
                break
        assert process.poll() is None, "".join(lines)
        yield ForeignRay(f"127.0.0.1:{port}", env, token, process)
    finally:
        below = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        for one in [process, *below]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
