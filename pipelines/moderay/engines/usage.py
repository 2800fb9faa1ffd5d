"""What an engine was asked, and where its time went."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Usage:
    """Counts and times of an actor's engine, from the start of the actor on."""

    def __init__(self, seats: int) -> None:
        """`seats`: requests that the engine works on at once."""
        self._seats = seats
        self._counts = Counter[str]()
        self._in_flight = 0
        self._starts = 0  # under way
        self._since = time.monotonic_ns()
        self._starting_ns = 0
        self._idle_ns = 0
        self._working_ns = 0
        self._taken_ns = 0
        # The dials look from a thread of their own.
        self._lock = threading.Lock()

    def figures(self) -> Counter[str]:
        """All figures up to now.

        Returns:
            Counts: `engine_starts`, `engine_deaths`, `requests`, `prompt_tokens` (of them
            `cached_tokens` in the prefix cache), `output_tokens`.

            Milliseconds, which add up to those of the actor: `engine_starting_ms`,
            `engine_idle_ms` (nothing was asked of it), `engine_working_ms`. And, of all its seats
            together, `seats_taken_ms` and `seats_free_ms`.
        """
        with self._lock:
            self._book()
            seats = self._seats * (self._starting_ns + self._idle_ns + self._working_ns)
            times = {
                "engine_starting": self._starting_ns,
                "engine_idle": self._idle_ns,
                "engine_working": self._working_ns,
                "seats_taken": self._taken_ns,
                "seats_free": seats - self._taken_ns,
            }
            return self._counts + Counter({f"{name}_ms": ns // 10**6 for name, ns in times.items()})

    def count(self, **more: int) -> None:
        """Add to the counts, by name."""
        with self._lock:
            self._counts.update(more)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of an engine."""
        self._change(starts=1)
        try:
            yield
            self.count(engine_starts=1)
        finally:
            self._change(starts=-1)

    def asked(self) -> None:
        """A request begins; it ends with `ended`, however that is."""
        self._change(in_flight=1)

    def ended(self, **more: int) -> None:
        """A request ends. Adds what it was to the counts, by name."""
        with self._lock:
            self._book()
            self._in_flight -= 1
            for name, count in more.items():
                self._counts[name] += count

    def _change(self, in_flight: int = 0, starts: int = 0) -> None:
        with self._lock:
            self._book()
            self._in_flight += in_flight
            self._starts += starts

    def _book(self) -> None:
        """Book the time since the last change under what the engine did in it."""
        now = time.monotonic_ns()
        passed = now - self._since
        self._since = now
        if self._in_flight:
            self._working_ns += passed
            self._taken_ns += passed * min(self._in_flight, self._seats)
        elif self._starts:
            self._starting_ns += passed
        else:
            self._idle_ns += passed
