"""A Ray of two nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from support.ray_cluster import ATTEMPTS, started_ray


class Nodes:
    """A Ray cluster of two nodes on this machine; the second is killed and comes back."""

    def __init__(self) -> None:
        self.cluster = started_ray()
        self.second = self._added()
        self.env = os.environ | {"RAY_ADDRESS": self.cluster.address}

    def kill_second(self) -> None:
        """SIGKILL the second node's raylet; its workers end by themselves, another node joins."""
        raylet = psutil.Process(self.second.all_processes["raylet"][0].process.pid)
        workers = [
            process
            for process in raylet.children(recursive=True)
            if "ray::MapWorker" in " ".join(process.cmdline())
        ]
        raylet.kill()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive, f"workers that outlived their raylet: {alive}"
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self._added()

    def _added(self) -> Any:
        for _ in range(ATTEMPTS - 1):
            with suppress(Exception):  # on a busy machine it does not come up in time
                return self.cluster.add_node(num_cpus=2)
        return self.cluster.add_node(num_cpus=2)

    def actors(self) -> list[psutil.Process]:
        """Workers of this cluster that host an engine."""
        hosts = []
        for pid in self.raylets():
            for process in psutil.Process(pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # one that has just ended
                    hosts += [process] if "MapBatches(Judge)" in " ".join(process.cmdline()) else []
        return hosts

    def raylets(self) -> list[int]:
        """Their processes' numbers."""
        return [
            raylet.process.pid
            for node in self.cluster.list_all_nodes()
            for raylet in node.all_processes.get("raylet", [])
        ]


@contextmanager
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    try:
        yield started
    finally:
        started.cluster.shutdown()
