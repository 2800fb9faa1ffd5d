"""So many at once, the others in order of arrival.

As `asyncio.Semaphore`, which looks at all whom it has woken whenever one is done: with hundreds of
slots that is most of what a request costs. Here a slot is handed from one to the next.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Slots of one event loop."""

    def __init__(self, count: int) -> None:
        """All of them free."""
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a slot; whoever has one gives it back (`give`)."""
        if self._free:
            self._free -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it was handed over, and nobody is left to use it
                self.give()
            raise

    def give(self) -> None:
        """Hand the slot to who has waited longest."""
        while self._waiting:
            next_one = self._waiting.popleft()
            if not next_one.done():
                next_one.set_result(None)
                return
        self._free += 1
