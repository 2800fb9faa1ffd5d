"""One engine in its actor, kept alive: what it dies of is found, and everything else is asked
again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from moderay.core.errors import ModerayError
from moderay.core.events import event
from moderay.engines.base import (
    BrokenReplyError,
    Counted,
    EngineDeadError,
    EngineSpec,
    NotNowError,
    RequestFailedError,
    Usage,
)

T = TypeVar("T")

# Deaths one after the other, with nothing answered between them, after which the engine is given
# up: three rows that kill it, found one by one, are nine.
HOPELESS = 10
# Seconds before an engine that could not be built again is tried once more.
PAUSE_S = 5.0
# Times a request that breaks off is made, and seconds before the second time; each later pause is
# twice as long.
TRIES, BROKEN_S = 6, 0.5


class EngineHost:
    """Hands the live engine to the work on a row, and builds another when it has died.

    What the engine held when it died is suspected: those rows wait until no other is left to be
    asked, then they run alone, in groups of about the square root of their number; the rows of a
    group that dies run one by one, and a row that dies alone is poison: it is refused from then on.
    So one poison row costs three restarts, and a healthy one nothing but time.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec.here()
        # Twice what the engine works on: the next request is always there when one ends.
        self._most = 2 * self._spec.max_num_seqs
        self._gate = asyncio.Semaphore(self._most)
        self._door, self._room = asyncio.Lock(), asyncio.Event()
        self._open = 0  # questions that were admitted and have no answer yet
        self._building = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._engine: Counted | None = None
        self._broken: ModerayError | None = None
        self._asked: Counter[str] = Counter()  # calls of `run` by row, waiting ones included
        self._held: Counter[str] = Counter()  # calls the engine works on, by row
        self._suspects: dict[str, None] = {}  # in the order in which they were suspected
        self._alone: dict[str, None] = {}  # suspects whose group died
        self._trial: set[str] = set()  # who may run now; empty: everybody who is not suspected
        self._poison: set[str] = set()
        self._fruitless = 0
        self.restarts = 0
        self.usage = Usage(self._spec.max_num_seqs)

    @asynccontextmanager
    async def admitted(self, questions: int) -> AsyncIterator[Callable[[int], None]]:
        """Waits, one caller after the other, until the engine will soon have nothing else to do;
        gives what is told how many of the questions were answered. What waits outside costs next to
        nothing, and nothing is lost of it when the run stops. Nobody is admitted while there are
        suspects, who wait until no other is left.
        """
        async with self._door:
            while self._open >= self._most or self._suspects:
                self._room.clear()
                await self._room.wait()
            self._open += questions
        left = questions

        def answered(count: int) -> None:
            nonlocal left
            left -= count
            self._open -= count
            self._room.set()

        try:
            yield answered
        finally:
            answered(left)

    async def run(self, row: str, ask: Callable[[Counted], Awaitable[T]], seconds: float) -> T:
        """What `ask` gives for the engine, asked again when the engine dies of another row or
        cannot take it now. `seconds`: deadline, each time from the moment it is `row`'s turn.
        Raises `TimeoutError`, `RequestFailedError` for a poison row too, `EngineDeadError` where
        there is no hope.
        """
        self._asked[row] += 1
        tries = 0
        try:
            while True:
                try:
                    async with self._turn(row) as engine, asyncio.timeout(seconds):
                        answer = await ask(engine)
                        self._fruitless = 0
                        return answer
                except EngineDeadError as error:
                    if self._fruitless >= HOPELESS:
                        raise EngineDeadError(
                            f"{HOPELESS} times in a row without answering anything; at last: "
                            f"{error}"
                        ) from error
                except NotNowError as error:
                    await asyncio.sleep(error.seconds)
                except BrokenReplyError as error:
                    tries += 1
                    if tries == TRIES:
                        raise RequestFailedError(
                            f"asked {TRIES} times; at last: {error}"
                        ) from error
                    await asyncio.sleep(BROKEN_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5))
        finally:
            _less(self._asked, row)
            if row not in self._asked:
                self._acquit(row)
            await self._next()

    @asynccontextmanager
    async def _turn(self, row: str) -> AsyncIterator[Counted]:
        """Wait until this row may run, and a place is free."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._may(row))
            await self._gate.acquire()
            if self._may(row):
                break
            self._gate.release()
        try:
            if row in self._poison:
                raise RequestFailedError("the engine died of this row each time it was asked")
            engine = await self._live()
            self._held[row] += 1
            try:
                yield engine
            except EngineDeadError:
                await self._bury(engine)
                raise
            finally:
                _less(self._held, row)
        finally:
            self._gate.release()

    def _may(self, row: str) -> bool:
        return row in self._poison or (
            row in self._trial if self._trial else row not in self._suspects
        )

    async def _live(self) -> Counted:
        async with self._building:
            if self._fruitless >= HOPELESS:
                raise EngineDeadError("not built again")
            if self._broken is not None:
                raise self._broken
            if self._engine is None:
                try:
                    began = time.monotonic()
                    with self.usage.starting():
                        self._engine = Counted(await self._spec.build(), self.usage)
                    event("engine started", seconds=round(time.monotonic() - began, 1))
                except ModerayError as error:
                    if self.restarts == 0:
                        self._broken = (
                            error  # the others that wait would each try again, and take as long
                        )
                        raise
                    # It could be built before: what the dead one held, a GPU's memory, may not be
                    # free yet.
                    self._fruitless += 1
                    await asyncio.sleep(PAUSE_S)
                    raise EngineDeadError(str(error)) from error
            return self._engine

    async def _bury(self, engine: Counted) -> None:
        """Once for each death: what was held is suspected."""
        if engine is not self._engine:
            return
        self._engine = None
        self.restarts += 1
        self.usage.count(engine_deaths=1)
        self._fruitless += 1
        held = dict.fromkeys(self._held)
        if len(self._trial) == 1:
            self._poison |= self._trial
            for row in self._trial:
                self._suspects.pop(row, None)
                self._alone.pop(row, None)
        elif self._trial:
            self._alone |= held
        else:
            self._suspects |= held
        self._trial = set()
        event(
            "engine died",
            logging.WARNING,
            deaths=self.restarts,
            rows_held=len(held),
            rows_given_up=len(self._poison),
        )
        engine.close()
        await self._next()

    def _acquit(self, row: str) -> None:
        self._suspects.pop(row, None)
        self._alone.pop(row, None)
        self._trial.discard(row)

    async def _next(self) -> None:
        """The next trial, where nobody runs or waits who is not suspected."""
        self._room.set()
        async with self._changed:
            if (
                self._suspects
                and not self._trial
                and all(row in self._suspects or row in self._poison for row in self._asked)
            ):
                crowd = [row for row in self._suspects if row not in self._alone]
                self._trial = set(
                    crowd[: math.ceil(math.sqrt(len(crowd)))] or [next(iter(self._alone))]
                )
            self._changed.notify_all()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()


def _less(calls: Counter[str], row: str) -> None:
    """One call fewer. A row without any is forgotten: an actor meets millions of them."""
    calls[row] -= 1
    if not calls[row]:
        del calls[row]
