"""Ray under a run: joining or starting it, and an end for orphaned workers."""

from __future__ import annotations

import atexit
import functools
import logging
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moderay.core import ray_loss
from moderay.core.errors import ModerayError, TryAgainError, UserError
from moderay.core.storage import exhausted, shown
from moderay.core.wording import counted

# Environment variable that names the Ray to join.
ADDRESS = "RAY_ADDRESS"
# Seconds for which a head that takes no connections is waited for.
HEAD_S = 10.0
# Characters that are kept of what Ray says.
REASON_CHARS = 300
# What Ray says of a node whose raylet does not come up.
_NO_RAYLET = "node timed out during startup"
# What it says of a Ray or Python that is not of the cluster's version.
_OTHER_VERSION = "Version mismatch: "
# Seconds between two looks whether a worker's raylet still lives.
LIFELINE_S = 1.0
# What Ray Data calls the thread that runs a dataset.
_EXECUTOR = "StreamingExecutor"


def coming_ray() -> str:
    """What `start_ray` is going to do, for people; empty where this process is connected."""
    if ray.is_initialized():
        return ""
    address = _address()
    if address == "local":
        return "starting Ray on this machine"
    return f"joining the Ray at {shown(address)} ({ADDRESS})"


def _address() -> str:
    return os.environ.get(ADDRESS) or "local"


def starts_its_own() -> bool:
    """Whether `start_ray` would start a Ray on this machine, and not join one."""
    return not ray.is_initialized() and _address() == "local"


def start_ray() -> str:
    """Join the Ray that RAY_ADDRESS names, or start one of this process's own.

    A Ray that merely runs on this machine is somebody else's: RAY_ADDRESS=auto joins it. What Ray
    starts itself, a submitted job's driver or a worker, has the address from it, or is connected.

    Returns:
        Which it is, for people; empty where this process was connected already.

    Raises:
        UserError: The address is none, or another token is wanted.
        NoRoomError: There is no room for its files.
        TryAgainError: It could not be joined or started.
    """
    if ray.is_initialized():
        return ""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = _address()
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    # Ray's own C++ log would go to the user's terminal; what matters of it comes back as an
    # exception. That it is off is the one line it still prints.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if "://" in address and not address.startswith("ray://"):
        raise UserError(
            f"{ADDRESS}={shown(address)} is no address of Ray's: HOST:PORT is wanted, such as "
            "HEAD:6379. A dashboard's is for `moderay submit --address`"
        )
    try:
        _await_head(address)
        with _no_stderr():
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _not_started(address, error) from error
    except Exception as error:
        # Of no class of its own, where the raylet ends before it has registered (Ray 2.60).
        if _NO_RAYLET not in str(error):
            raise
        raise _not_started(address, error) from error
    _silence_ray_data()
    if address == "local":
        return f"started its own Ray ({_size()}); {ADDRESS} would join another"
    return f"joined the Ray at {ray.get_runtime_context().gcs_address} ({ADDRESS}): {_size()}"


def _size() -> str:
    """How much a cluster has, for people."""
    gpus, cpus, _ = resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    machines = [counted(nodes, "node")] if nodes > 1 else []
    gpu = counted(gpus, "GPU") if gpus else "no GPU"
    return ", ".join([*machines, gpu, f"{cpus:g} {'CPU' if cpus == 1 else 'CPUs'}"])


def _await_head(address: str) -> None:
    """Wait a little for whoever takes connections there; Ray itself would wait for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        return
    until = time.monotonic() + HEAD_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


def _silence_ray_data() -> None:
    """What it says on the terminal, tracebacks included; its file in Ray's session has it all."""
    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)


def _not_started(address: str, error: Exception) -> ModerayError:
    """What to say where Ray could not be joined or started."""
    if (limit := exhausted(tempfile.gettempdir(), error)) is not None:
        return limit
    reasons = f"{error} {error.__cause__}"
    if isinstance(error, ray.exceptions.AuthenticationError) or "AuthToken" in reasons:
        return UserError(
            f"the Ray at {address} ({ADDRESS}) lets nobody in without its token: set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH where the token is "
            "not in ~/.ray/auth_token"
        )
    reason = " ".join(str(error).split())[:REASON_CHARS] or type(error).__name__
    if address == "local":
        return TryAgainError(f"Ray could not be started on this machine: {reason}")
    if _OTHER_VERSION in reason:
        return UserError(
            f"the Ray at {address} ({ADDRESS}) is of another version: {reason}; install the same "
            f"ones here, or leave {ADDRESS} out: a run then starts its own"
        )
    return TryAgainError(
        f"Ray could not be joined at {address} ({ADDRESS}): {reason}; is it running? Without "
        f"{ADDRESS}, a run starts its own"
    )


class Resources(NamedTuple):
    """What a cluster has, as Ray counts it: GPUs, cores, and cores of its largest node."""

    gpus: int
    cpus: float
    node_cpus: float


def resources() -> Resources:
    """Of the cluster that this process is connected to."""
    available = ray.cluster_resources()
    of_nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return Resources(
        int(available.get("GPU", 0)), float(available.get("CPU", 0)), max(of_nodes, default=0.0)
    )


def this_node() -> NodeAffinitySchedulingStrategy:
    """For an actor beside its driver: it dies with that."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


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


def _leave(status: int = 0) -> None:
    """End the process past the exit handler of Ray 2.60, in which a worker deadlocks now and then.

    What is left in its queue is destroyed there, and a publisher that is among it posts into that
    queue. By then Ray has let go of the worker, and nobody would ever end it.
    """
    for child in multiprocessing.active_children():
        child.kill()
    # Where `multiprocessing` keeps its sockets; it has no chance to remove it itself.
    process: Any = multiprocessing.current_process()
    if (sockets := process._config.get("tempdir")) is not None:
        shutil.rmtree(sockets, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LIFELINE_S)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


def leave_lost(status: int) -> None:
    """In a driver's process, as it ends: end it here where Ray cannot be taken down in good order.

    Ray is gone, or a thread of Ray Data waits in it, which nothing wakes. The exit handler of Ray
    2.60 frees what that thread works with: the process would end by SIGSEGV now and then. What is
    left of a Ray of its own ends with this process; its agents last, after a minute.
    """
    is_waited_in = any(thread.name.startswith(_EXECUTOR) for thread in threading.enumerate())
    if ray.is_initialized() and (is_waited_in or ray_loss.is_gone()):
        _leave(status)


def earlier_attempts() -> int:
    """How often the task that this is called in was begun before.

    Its worker died each time, or its node.
    """
    worker: Any = ray._private.worker.global_worker
    return int(worker.core_worker.get_current_task_attempt_number())


def was_restarted() -> bool:
    """Whether the actor that this is called in was lost before, and is asked again what it was."""
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def whereabouts() -> str:
    """Of the process this is called in: its host and id."""
    return f"process {os.getpid()} on {os.uname().nodename}"
