"""The engine of a Python worker of Spark: one for a process, for as long as that lives.

Spark gives a worker one task after the other, and ends it when it was idle for a while, by a
signal that no program can hear. What the engine has started then, and a GPU's memory with it, is
ended by a small process that waits for nothing else.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from moderay.core.collector import rest_collector
from moderay.core.events import event
from moderay.engines.base import EngineSpec
from moderay.engines.host import EngineHost
from moderay.tasks.spark.gpus import Claim

T = TypeVar("T")

# Waits for the end of its input, which is that of the worker, and ends what the engine has started;
# until they are gone, ten seconds at most, it holds what it has inherited: the claim on GPUs.
_KEEPER = """
cat >/dev/null
kill -9 "$@" 2>/dev/null
tries=0
for pid in "$@"; do
    while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
done
"""
# Seconds between two looks whether another worker waits for an idle one's GPUs.
LOOK_S = 0.5

_current: ProcessEngine | None = None


def engine_of_this_process(spec: EngineSpec, gpus: Sequence[str]) -> ProcessEngine:
    """The engine for a task that begins: the one that is there, where it is of this kind.

    Another one is ended first, so that what it holds is free. The engine starts when it is asked.

    Args:
        spec: Of the engine that the task needs.
        gpus: Addresses of those that Spark gives to the task. An engine that is there already
            stays on its own.
    """
    global _current  # noqa: PLW0603  a worker is a process
    if _current is not None and not (_current.spec == spec and _current.work()):
        _current.end()
        _current = None
    if _current is None:
        _current = ProcessEngine(spec, gpus)
    return _current


class ProcessEngine:
    """An engine, and the loop in which it is asked, in a thread of its own.

    Attributes:
        spec: Of the engine.
        host: Keeps the engine alive.
    """

    def __init__(self, spec: EngineSpec, gpus: Sequence[str]) -> None:
        """Wait until no other process holds the GPUs; the engine starts when it is asked.

        Args:
            spec: Of the engine.
            gpus: Addresses of its GPUs, as the system numbers them; none: it runs on a CPU.
        """
        self.spec = spec
        self._claim = Claim(gpus)
        if gpus:
            # Before vLLM is imported. Spark finds GPUs by nvidia-smi, which counts them so.
            os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        self.host = EngineHost(spec, self._started)
        self._start: asyncio.Future[None] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._is_working, self._is_over = True, False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        if gpus:
            threading.Thread(target=self._watch, name="claim", daemon=True).start()

    @property
    def seats(self) -> int:
        """Requests that the engine works on at once."""
        return self.spec.max_num_seqs

    def work(self) -> bool:
        """Begin a task. False: the engine is over."""
        with self._turn:
            self._is_working = not self._is_over
            return self._is_working

    def rest(self) -> None:
        """End a task: the engine stays for the next."""
        with self._turn:
            self._is_working = False

    async def start(self) -> None:
        """Build the engine, unless that was done; whoever is cancelled, it is built once.

        Raises:
            ModerayError: It could not be built.
        """
        if self._start is None:
            self._start = asyncio.ensure_future(self.host.start())
        await asyncio.shield(self._start)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have work done in the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def end(self) -> None:
        """End the engine; what it held is free afterwards."""
        with self._turn:
            self._end()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.submit(self._closed()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._dismiss_keeper()
        self._claim.release()
        event("engine ended")

    async def _closed(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.host.close()

    def _started(self, seconds: float, way: str) -> None:
        """An engine is there, the first or one after it died: its processes are looked after."""
        rest_collector()
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        event("worker has an engine", process=os.getpid(), gpus=gpus, probability_by=way)
        self._dismiss_keeper()
        pids = [str(process.pid) for process in multiprocessing.active_children()]
        if pids:
            self._keeper = subprocess.Popen(
                ["sh", "-c", _KEEPER, "sh", *pids],
                stdin=subprocess.PIPE,
                pass_fds=self._claim.descriptors,
                start_new_session=True,
            )

    def _dismiss_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.communicate()
            self._keeper = None

    def _watch(self) -> None:
        """Leave the GPUs to a worker that waits for them, as soon as no task is at work here."""
        while not self._is_over:
            with self._turn:
                if not self._is_working and self._claim.is_wanted():
                    self._end()
            threading.Event().wait(LOOK_S)
