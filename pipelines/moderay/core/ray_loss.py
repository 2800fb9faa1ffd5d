"""What a driver does when Ray goes away under it: it is told, and does not wait for ever.

`ray.get` and `ray.wait` know nothing of a Ray whose head or whose raylet on this machine is gone:
they wait. `get` and `wait` here look after it meanwhile.
"""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from moderay.core.errors import ModerayError, NoRoomError, TryAgainError, first_line
from moderay.core.storage.disks import OF_THE_MACHINE

# Seconds between two looks at Ray, and for which an answer is waited.
LOOK_S = 1.0
# Seconds for which a head on another machine may be away: one with a store of its own comes back.
# After 60, Ray would end this process itself, and not in good order. A head on this machine that is
# gone does not come back under a run.
AWAY_S = 30.0
GONE_S = 3.0

# Nodes, workers and objects that Ray gave up on, and Ray itself.
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.RaySystemError,
    ray.exceptions.RpcError,
    ray.exceptions.RuntimeEnvSetupError,
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.ActorUnschedulableError,
    ray.exceptions.TaskPlacementGroupRemoved,
    ray.exceptions.ActorPlacementGroupRemoved,
)
# A task's worker died each time that Ray tried: mostly of what it works on.
DIED = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
_HALF_BLOCK = "ray.get should raise an exception"
_FULL = (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError)
_GO_ON = "what is complete is saved, and the same command goes on from there"


class RayLostError(TryAgainError):
    """Ray, or something that only it can give back, is gone."""


@contextmanager
def ray_errors() -> Iterator[None]:
    """What Ray raises in here when it loses something, as one sentence.

    Raises:
        RayLostError: Ray gave up on something, or is gone itself.
        NoRoomError: Its objects do not fit.
        ModerayError: What a task raised, where it is an error of ours.
    """
    try:
        yield
    except ray.exceptions.RayError as error:  # first: one that a task raised is of ours as well
        if (reason := cause(error)) is error:
            raise
        raise reason from error
    except ModerayError:
        raise
    except AssertionError as error:
        # Ray Data's own, where a worker dies between a block and what describes it (Ray 2.60).
        if _HALF_BLOCK not in str(error):
            raise
        raise RayLostError(_sentence("a worker died as it handed on a block")) from error
    except Exception as error:
        # Whatever is raised over a Ray that is not there comes of that.
        if (gone := _gone(at_once=True)) is not None:
            raise RayLostError(_sentence(gone)) from error
        raise


def cause(error: ray.exceptions.RayError) -> Exception:
    """What a person is told of an error of Ray's; the error itself where it is a bug."""
    for below in _chain(error):
        if isinstance(below, ray.exceptions.RayTaskError):
            continue  # it is of the class of what the task raised, too, and its text a traceback
        if isinstance(below, ModerayError):
            return below
        if isinstance(below, _FULL):
            return NoRoomError(
                "Ray's object store is full, and so is the disk it spills to: "
                f"{first_line(below)}; make room below Ray's temporary folder (/tmp/ray as it "
                f"comes): {_GO_ON}"
            )
        if isinstance(below, _LOST):
            return RayLostError(_sentence(first_line(below)))
    unknown: Exception = error
    return unknown


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came of; Ray has a task's in an attribute of its own."""
    seen: set[int] = set()
    below: BaseException | None = error
    while below is not None and id(below) not in seen:
        seen.add(id(below))
        yield below
        below = getattr(below, "cause", None) or below.__cause__


def _sentence(reason: str) -> str:
    return f"Ray lost what the run needs ({reason}); {_GO_ON}"


def get(call: Any) -> Any:
    """As `ray.get`. Raises `RayLostError` once Ray is gone."""
    while True:
        try:
            return ray.get(call, timeout=LOOK_S)
        except ray.exceptions.GetTimeoutError:
            assert_there()


def wait(calls: Sequence[Any], count: int, timeout: float | None = None) -> list[Any]:
    """Those of some calls that have ended: `count` at least, or what there is after `timeout`.

    Raises:
        RayLostError: Ray is gone.
    """
    if timeout is not None:
        ready: list[Any] = ray.wait(calls, num_returns=count, timeout=timeout)[0]
        return ready
    while len(ready := ray.wait(calls, num_returns=count, timeout=LOOK_S)[0]) < count:
        assert_there()
    return ready


def assert_there() -> None:
    """Raises `RayLostError` where the Ray that this process is connected to is gone."""
    if (gone := _gone()) is not None:
        raise RayLostError(_sentence(gone))


def is_gone() -> bool:
    """Whether nobody answers at the Ray that this process is connected to, this moment."""
    return _gone(at_once=True) is not None


def _gone(at_once: bool = False) -> str | None:
    """What of Ray is gone; None where all of it is there, or may come back.

    Args:
        at_once: Something has failed already: nothing is expected to come back.
    """
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return _connection(context.gcs_address, context.get_node_id()).gone(at_once)


class _Connection:
    """The processes of Ray without which a driver is nothing: the head's, and its own raylet."""

    def __init__(self, head: str, raylet: str | None) -> None:
        self._head = head
        self._raylet = raylet
        is_here = raylet is not None and _host(raylet) == _host(head)
        self._patience = GONE_S if is_here else AWAY_S
        self._looked = time.monotonic()
        self._answered = self._looked

    def gone(self, at_once: bool) -> str | None:
        """Which of them is gone. They are looked at once in `LOOK_S`, if not `at_once`."""
        now = time.monotonic()
        if not at_once and now - self._looked < LOOK_S:
            return None
        self._looked = now
        if self._raylet is not None and isinstance(_refusal(self._raylet), ConnectionRefusedError):
            return f"its raylet on this machine, {self._raylet}, is gone"
        if _refusal(self._head) is None:
            self._answered = now
        elif at_once or now - self._answered > self._patience:
            return f"its head at {self._head} has not answered for {now - self._answered:.0f} s"
        return None


@functools.lru_cache(maxsize=1)
def _connection(head: str, node: str) -> _Connection:
    """Made while Ray is there: it is asked where the raylet is."""
    raylet = next((known for known in ray.nodes() if known["NodeID"] == node), None)
    if raylet is None:
        return _Connection(head, None)
    return _Connection(head, f"{raylet['NodeManagerAddress']}:{raylet['NodeManagerPort']}")


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _refusal(address: str) -> OSError | None:
    """Why nobody takes connections there; None where somebody does, or it cannot be told."""
    port = int(address.rpartition(":")[2])
    try:
        socket.create_connection((_host(address), port), timeout=LOOK_S).close()
    except OSError as error:
        return None if error.errno in OF_THE_MACHINE else error
    return None
