"""Which units travel together, and which spans are read together."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from moderay.corpus.shard import Shard
from moderay.labels.partition import Source
from moderay.pipeline.messages.spans import Reading, Span
from moderay.pipeline.messages.units import UnitDone, UnitRead
from moderay.pipeline.stages.batches import (
    MESSAGES_LEFT,
    MOST_SPANS,
    SMALL_BYTES,
    Together,
    batches,
    read_together,
)

sizes = st.builds(Together, st.integers(1, 40), st.integers(1, 3000), st.integers(1, 20))


def unit(number: int, words: int | None) -> UnitRead:
    """Of so many bytes, times eight; of None, one that has ended."""
    rows = (number, number + 1)
    if words is None:
        return UnitRead(Source(0, "a"), rows, None, UnitDone("a", rows))
    return UnitRead(Source(0, "a"), rows, pa.table({"ids": pa.array(range(words), pa.int64())}))


def reading(number: int, size: int) -> Reading:
    shard = Shard(
        url=f"{number}", name=f"{number}", size=size, version="", row_groups=(10,),
        content_bytes=size, conversation=False,
    )  # fmt: skip
    return Reading(Span(shard, (0, 1), 0, ((0, 10),), 512), "key", 1, ())


@given(st.lists(st.none() | st.integers(0, 200), max_size=120), st.integers(0, 500), sizes)
def test_all_units_travel_in_their_order_in_messages_of_bounded_size(
    words: list[int | None], behind: int, size: Together
) -> None:
    units = [unit(number, count) for number, count in enumerate(words)]
    left = [len(units) - number - 1 + behind for number in range(len(units))]
    messages = list(batches(zip(units, left, strict=True), size))
    assert [unit for message in messages for unit in message] == units
    done = 0
    for message in messages:
        held = sum(unit.table.nbytes for unit in message if unit.table is not None)
        assert message and (len(message) == 1 or held <= size.bytes)
        share = (len(units) - done + behind) // (MESSAGES_LEFT * size.engines)
        assert len(message) <= max(1, min(size.units, share))
        done += len(message)


def test_messages_are_full_at_first_and_of_one_unit_at_the_end() -> None:
    units = [(unit(number, 1), 2000 - number - 1) for number in range(2000)]
    lengths = [len(message) for message in batches(units, Together(32, 2**20, 8))]
    assert lengths[:30] == [32] * 30 and lengths[-MESSAGES_LEFT * 8 :] == [1] * MESSAGES_LEFT * 8
    assert lengths == sorted(lengths, reverse=True) and len(lengths) < 200


@given(st.lists(st.tuples(st.integers(0, 2 * SMALL_BYTES), st.booleans()), max_size=200), sizes)
def test_every_span_is_read_once_and_only_small_neighbours_together(
    spans: list[tuple[int, bool]], size: Together
) -> None:
    readings = [reading(number, length) for number, (length, _) in enumerate(spans)]
    tasks = read_together(readings, [alone for _, alone in spans], size)
    assert [number for task in tasks for number in task] == list(range(len(spans)))
    for task in tasks:
        assert 1 <= len(task) <= MOST_SPANS
        if len(task) > 1:
            assert sum(spans[number][0] for number in task) <= SMALL_BYTES
            assert not any(spans[number][1] for number in task)


def test_a_thousand_small_shards_are_read_by_few_tasks_and_the_last_ones_one_by_one() -> None:
    readings = [reading(number, 1000) for number in range(1000)]
    tasks = read_together(readings, [False] * 1000, Together(32, 2**20, 2))
    assert len(tasks[0]) == MOST_SPANS and len(tasks[-1]) == 1 and len(tasks) < 70
    few = read_together(readings[:8], [False] * 8, Together(32, 2**20, 2))
    assert few == [[number] for number in range(8)]
