"""Slots: so many at once, in order of arrival, and none is lost with who waits for it."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from moderay.engines.slots import Slots


def test_slots_go_to_those_who_wait_in_the_order_of_their_arrival() -> None:
    async def work() -> list[str]:
        slots, order = Slots(2), list[str]()

        async def one(name: str) -> None:
            await slots.take()
            order.append(name)
            await asyncio.sleep(0)
            slots.give()

        await asyncio.gather(*[one(name) for name in "abcdef"])
        return order

    assert "".join(asyncio.run(work())) == "abcdef"


def test_a_slot_handed_to_one_who_is_cancelled_goes_to_the_next() -> None:
    async def work() -> None:
        slots = Slots(1)
        await slots.take()
        waiting = [asyncio.create_task(slots.take()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # before it is its turn
        slots.give()  # the slot is the second's
        waiting[1].cancel()  # before it could use it
        await asyncio.wait_for(waiting[2], 5)
        assert [task.cancelled() for task in waiting] == [True, True, False]

    asyncio.run(work())


@given(count=st.integers(1, 4), takers=st.integers(1, 30), seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_whoever_is_cancelled_no_more_than_so_many_hold_a_slot_and_all_are_free_at_last(
    count: int, takers: int, seed: int
) -> None:
    rng = random.Random(seed)

    async def work() -> None:
        slots, held = Slots(count), 0

        async def one(steps: int) -> None:
            nonlocal held
            await slots.take()
            held += 1
            assert held <= count
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                held -= 1
                slots.give()

        tasks = [asyncio.create_task(one(rng.randrange(4))) for _ in range(takers)]
        while any(not task.done() for task in tasks):
            rng.choice(tasks).cancel()
            await asyncio.sleep(0)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        async with asyncio.timeout(5):
            for _ in range(count):
                await slots.take()

    asyncio.run(work())
