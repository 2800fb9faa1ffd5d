"""One engine in its actor, kept alive.

An engine that died is built again, what it died of is found (`poison`), and every other row is
asked again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
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
)
from moderay.engines.poison import MOST_DEATHS_IN_A_ROW, PoisonSearch
from moderay.engines.slots import Slots
from moderay.engines.usage import Usage

T = TypeVar("T")

# Seconds before an engine that could not be built again is tried once more.
PAUSE_S = 5.0
# Times a request that breaks off is made.
TRIES = 6
# Seconds before the second time; each later pause is twice as long.
BROKEN_S = 0.5


class EngineHost:
    """Hands the live engine to the work on a row, and builds another when it has died.

    Attributes:
        restarts: Times the engine died.
        usage: What the engine was asked, and where its time went.
    """

    def __init__(
        self,
        spec: EngineSpec,
        started: Callable[[float, str], object] = lambda seconds, probability_by: None,
    ) -> None:
        """A host whose engine is built for the first row.

        Args:
            spec: Of the engine, as the driver sent it.
            started: Is called with the seconds that an engine took to start, and how it comes to
                P.
        """
        self._started = started
        self._spec = spec.here()
        # Twice what the engine works on: the next request is always there when one ends.
        self._max_in_flight = 2 * self._spec.max_num_seqs
        self._slots = Slots(self._max_in_flight)
        self._admission = asyncio.Lock()
        self._admissible = asyncio.Event()
        self._open_questions = 0  # admitted, and without an answer yet
        self._building = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._engine: Counted | None = None
        self._never_built: ModerayError | None = None
        self._calls: dict[str, int] = {}  # calls of `run` by row, waiting ones included
        self._held: dict[str, int] = {}  # calls the engine works on, by row
        self._search = PoisonSearch()
        self.restarts = 0
        self.usage = Usage(self._spec.max_num_seqs)

    @asynccontextmanager
    async def admitted(self, questions: int) -> AsyncIterator[Callable[[int], None]]:
        """Wait, one caller after the other, until the engine will soon have nothing else to do.

        What waits outside costs next to nothing, and nothing is lost of it when the run stops.
        Nobody is admitted while there are suspects, who wait until no other row is left.

        Args:
            questions: Answers that the caller will ask for.

        Yields:
            A function to call with the number of questions that were answered meanwhile.
        """
        async with self._admission:
            while self._open_questions >= self._max_in_flight or self._search.suspects:
                self._admissible.clear()
                await self._admissible.wait()
            self._open_questions += questions
        unanswered = questions

        def answered(count: int) -> None:
            nonlocal unanswered
            unanswered -= count
            self._open_questions -= count
            self._admissible.set()

        try:
            yield answered
        finally:
            answered(unanswered)

    async def start(self) -> None:
        """Build the engine now, where it is not there yet.

        Raises:
            ModerayError: It could not be built.
        """
        await self._live()

    async def run(self, row: str, ask: Callable[[Counted], Awaitable[T]], seconds: float) -> T:
        """What `ask` returns for the live engine.

        It is asked again when the engine dies of another row, or cannot take it now.

        Args:
            row: The content's hash; calls for the same row share their fate.
            ask: Makes the requests for one piece of the row.
            seconds: Deadline, counted each time from the moment it is the row's turn.

        Raises:
            TimeoutError: After so many seconds.
            RequestFailedError: The row is poison, or its request fails for itself.
            EngineDeadError: There is no hope for the engine.
            ModerayError: The engine could not be built even once.
        """
        self._calls[row] = self._calls.get(row, 0) + 1
        try:
            return await self._until_answered(row, ask, seconds)
        finally:
            _decrement(self._calls, row)
            # Where nobody is suspected, which is nearly always, nobody waits for a row to end.
            if self._search.suspects:
                if row not in self._calls:
                    self._search = self._search.finished(row)
                await self._begin_trial()

    async def _until_answered(
        self, row: str, ask: Callable[[Counted], Awaitable[T]], seconds: float
    ) -> T:
        tries = 0
        while True:
            try:
                return await self._in_turn(row, ask, seconds)
            except EngineDeadError as error:
                if self._search.hopeless:
                    raise EngineDeadError(
                        f"{MOST_DEATHS_IN_A_ROW} times in a row without answering anything; "
                        f"at last: {error}"
                    ) from error
            except NotNowError as error:
                await asyncio.sleep(error.seconds)
            except BrokenReplyError as error:
                tries += 1
                if tries == TRIES:
                    raise RequestFailedError(f"asked {TRIES} times; at last: {error}") from error
                await asyncio.sleep(BROKEN_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5))

    async def _in_turn(self, row: str, ask: Callable[[Counted], Awaitable[T]], seconds: float) -> T:
        """What `ask` returns for the live engine, when this row may run and a slot is free."""
        await self._take_slot(row)
        try:
            if row in self._search.poison:
                raise RequestFailedError("the engine died of this row each time it was asked")
            engine = self._engine or await self._live()
            self._held[row] = self._held.get(row, 0) + 1
            try:
                async with asyncio.timeout(seconds):
                    answer = await ask(engine)
                    self._search = self._search.answered()
                    return answer
            except EngineDeadError as error:
                await self._bury(engine, str(error))
                raise
            finally:
                _decrement(self._held, row)
        finally:
            self._slots.give()

    async def _take_slot(self, row: str) -> None:
        while True:
            if not self._search.may_run(row):
                async with self._changed:
                    await self._changed.wait_for(lambda: self._search.may_run(row))
            await self._slots.take()
            # Somebody may have died while it waited for the slot.
            if self._search.may_run(row):
                return
            self._slots.give()

    async def _live(self) -> Counted:
        """The engine, built first where there is none."""
        async with self._building:
            if self._search.hopeless:
                raise EngineDeadError("not built again")
            if self._never_built is not None:
                raise self._never_built
            if self._engine is None:
                self._engine = await self._built()
            return self._engine

    async def _built(self) -> Counted:
        began = time.monotonic()
        try:
            with self.usage.starting():
                engine = Counted(await self._spec.build(), self.usage)
        except ModerayError as error:
            if self.restarts == 0:
                # The others that wait would each try again, and take as long.
                self._never_built = error
                raise
            # It could be built before: what the dead one held, a GPU's memory, may not be free yet.
            self._search = self._search.not_started()
            await asyncio.sleep(PAUSE_S)
            raise EngineDeadError(str(error)) from error
        seconds = round(time.monotonic() - began, 1)
        event("engine started", seconds=seconds, probability_by=engine.probability_by)
        self._started(seconds, engine.probability_by)
        return engine

    async def _bury(self, engine: Counted, reason: str) -> None:
        """Once for each death, whoever of those in flight is first to see it."""
        if engine is not self._engine:
            return
        self._engine = None
        self.restarts += 1
        self.usage.count(engine_deaths=1)
        self._search = self._search.died(self._held)
        event(
            "engine died",
            logging.WARNING,
            deaths=self.restarts,
            reason=reason,
            rows_held=len(self._held),
            rows_given_up=len(self._search.poison),
        )
        engine.close()
        await self._begin_trial()

    async def _begin_trial(self) -> None:
        """Begin the next trial where it is time for one, and wake all who wait for their turn."""
        self._admissible.set()
        async with self._changed:
            self._search = self._search.next_trial(self._calls)
            self._changed.notify_all()

    def close(self) -> None:
        """Close the engine, if there is one."""
        if self._engine is not None:
            self._engine.close()


def _decrement(calls: dict[str, int], row: str) -> None:
    """One call fewer. A row without any is forgotten: an actor meets millions of them."""
    calls[row] -= 1
    if not calls[row]:
        del calls[row]
