"""What a generator gives, taken from it by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from enum import Enum, auto
from typing import Generic, Self, TypeVar

T = TypeVar("T")

# Seconds that the generator is given to end after `close`.
END_S = 5.0


class Quiet(Enum):
    """Nothing came."""

    NOTHING_YET = auto()
    """Within the time that was waited."""
    NO_MORE = auto()
    """The generator has ended."""


class Incoming(Generic[T]):
    """The items of a generator, as they come in; a context manager.

    The thread that waits here has its time for itself: where nothing comes in, it can do something
    else, such as stop.
    """

    def __init__(self, items: Generator[T, None, None], abandon: Callable[[], None]) -> None:
        """Of a generator.

        Args:
            items: From now on of the thread, which closes it too.
            abandon: Called at the end if the thread still waits for an item.
        """
        self._items = items
        self._abandon = abandon
        self._arrived: queue.Queue[T | BaseException | Quiet] = queue.Queue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._take, name="units", daemon=True)

    def __enter__(self) -> Self:
        """Begin to take items."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take at most one item more: the generator is closed when that comes, or abandoned."""
        self._closing.set()
        self._thread.join(END_S)
        if self._thread.is_alive():
            self._abandon()

    def wait(self, seconds: float) -> T | Quiet:
        """The next item, or that there is none; raises what the generator raised."""
        try:
            item = self._arrived.get(timeout=seconds)
        except queue.Empty:
            return Quiet.NOTHING_YET
        if isinstance(item, BaseException):
            raise item
        return item

    def _take(self) -> None:
        try:
            # Closed here: left to the garbage collector, Ray Data's threads would be asked to wait
            # for themselves.
            with closing(self._items):
                for item in self._items:
                    self._arrived.put(item)
                    if self._closing.is_set():
                        break
            self._arrived.put(Quiet.NO_MORE)
        except BaseException as error:  # raised again by `wait`, in a thread that can tell somebody
            self._arrived.put(error)
