"""Drivers that halt before every write: what happens between any two writes is a schedule's choice.

Each driver is a thread. Whatever it writes to its output, by whichever way, waits until the
schedule lets it; what it reads is read at once. So a schedule decides who writes next, who is
killed, and when the time of a lease has passed, and the same schedule gives the same history on any
store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from moderay.core import storage
from moderay.labels import layout, lease, manifest_store, shard_writer
from moderay.pipeline import flow


class KilledError(BaseException):
    """A driver's process is gone: nothing catches this."""


class Driver:
    """A driver as a thread that takes one step, up to its next write, whenever it is let.

    Attributes:
        over: Whether it has ended.
        error: What it ended in.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        """`work`: all that it does."""
        self._go, self._halted = threading.Semaphore(0), threading.Semaphore(0)
        self._work = work
        self._killed = False
        self.over = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Let it go on to its first write."""
        self._thread.start()
        self._halted.acquire()

    def _run(self) -> None:
        try:
            self._work()
        except KilledError:
            pass
        except BaseException as error:
            self.error = error
        self.over = True
        self._halted.release()

    @property
    def is_this(self) -> bool:
        """Whether it is who asks."""
        return threading.current_thread() is self._thread

    def turn(self) -> None:
        """Wait until this driver may write."""
        if not self._killed:
            self._halted.release()
            self._go.acquire()
        if self._killed:
            raise KilledError

    def step(self) -> None:
        """Let it write once and go on to its next write, or to its end."""
        if not self.over:
            self._go.release()
            self._halted.acquire()

    def kill(self) -> None:
        """End it before its next write."""
        self._killed = True
        self.step()
        self._thread.join()


@dataclass
class World:
    """What drivers share beside the store.

    Attributes:
        conditional: Whether the store refuses to create what is there.
        clock: The store's, in seconds.
        drivers: Those that live, by name.
        written: When each file was written, by whom.
    """

    conditional: bool = True
    clock: float = 1e9
    drivers: dict[str, Driver] = field(default_factory=dict)
    written: dict[str, tuple[float, str]] = field(default_factory=dict)

    def note(self, path: str) -> None:
        """A file is written now."""
        name = next((name for name, driver in self.drivers.items() if driver.is_this), "")
        self.written[path] = self.clock, name

    def turn(self) -> None:
        """Wait, if it is a driver that asks."""
        for driver in list(self.drivers.values()):
            if driver.is_this:
                driver.turn()


@contextmanager
def stepping(world: World) -> Iterator[None]:
    """All writes of this process's drivers are steps of theirs in here."""

    def put_bytes(fs: Any, path: str, *args: Any) -> None:
        world.turn()
        storage.put_bytes(fs, path, *args)
        world.note(path)

    def put_file(fs: Any, local: str, path: str, scratch: str) -> tuple[int, str]:
        world.turn()
        written = storage.put_file(fs, local, path, scratch)
        world.note(path)
        return written

    def create(fs: Any, path: str, data: bytes) -> bool:
        world.turn()
        if not world.conditional:
            fs.pipe_file(path, data)
        elif not storage.create(fs, path, data):
            return False
        world.note(path)
        return True

    def remove(fs: Any, path: str) -> None:
        world.turn()
        storage.remove(fs, path)

    def modified(fs: Any, path: str) -> float | None:
        return world.written.get(path, (None, ""))[0] if fs.exists(path) else None

    with ExitStack() as stack:
        for module, *names in (
            (layout, put_bytes, create),
            (shard_writer, put_file, remove),
            (manifest_store, remove),
            (lease, remove, modified),
            (flow, remove),
        ):
            for function in names:
                stack.enter_context(mock.patch.object(module, function.__name__, function))
        stack.enter_context(mock.patch.object(lease, "RENEW_S", 1e6))
        yield
