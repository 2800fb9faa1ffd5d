"""Ray under a run: joining or starting it, and an end for orphaned workers."""

from __future__ import annotations

import atexit
import functools
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from moderay.core.errors import ModerayError, TryAgainError, first_line

# Seconds between two looks whether a worker's raylet still lives.
LIFELINE_S = 1.0


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or one that runs on this machine; else start one.

    RAY_ADDRESS=local asks for a new one.

    Raises:
        TryAgainError: It could not be joined or started.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    is_own = os.environ.get("RAY_ADDRESS", "local") == "local"
    options: dict[str, Any] = {"include_dashboard": False} if is_own else {}
    # Ray's own C++ log would go to the user's terminal; what matters of it comes back as an
    # exception. That it is off is the one line it still prints.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with _no_stderr():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except (OSError, RuntimeError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise TryAgainError(
            f"Ray could not be joined or started at {where}: {first_line(error)}"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def resources() -> tuple[int, float]:
    """GPUs and cores of the cluster."""
    available = ray.cluster_resources()
    return int(available.get("GPU", 0)), float(available.get("CPU", 0))


@contextmanager
def _no_stderr() -> Iterator[None]:
    """For code that is not Python's: file descriptor 2 goes nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def end_with_raylet() -> None:
    """In a worker: end this process, and the engine's below it, soon after its raylet has gone.

    However often it is called, a process watches once. Ray leaves the workers of a raylet that was
    killed alive for a while; until then they hold the GPU's memory and judge what somebody else
    judges by now. It is also how a worker ends in good order, since there Ray may hang (`_leave`).
    """
    _start_lifeline()


@functools.cache
def _start_lifeline() -> threading.Thread:
    atexit.register(_leave)
    lifeline = threading.Thread(target=_watch, args=(os.getppid(),), name="lifeline", daemon=True)
    lifeline.start()
    return lifeline


def _leave() -> None:
    """End the process past the exit handler of Ray 2.60, in which a worker deadlocks now and then.

    What is left in its queue is destroyed there, and a publisher that is among it posts into that
    queue. By then Ray has let go of the worker, and nobody would ever end it.
    """
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LIFELINE_S)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


def earlier_attempts() -> int:
    """How often the task that this is called in was begun before.

    Its worker died each time, or its node.
    """
    worker: Any = ray._private.worker.global_worker
    return int(worker.core_worker.get_current_task_attempt_number())


def whereabouts() -> str:
    """Of the process this is called in: its host and id."""
    return f"process {os.getpid()} on {os.uname().nodename}"


def cause(error: ray.exceptions.RayError) -> BaseException:
    """What a task raised, where it is an error of ours; else Ray's own error."""
    raised = getattr(error, "cause", None)
    return raised if isinstance(raised, ModerayError) else error
