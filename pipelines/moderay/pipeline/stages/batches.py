"""Which units travel together, and which small spans are read together.

A message costs the driver some milliseconds, however little is in it. So a message holds as many
units as an engine works on at once, and fewer towards the end of a run, so that no engine is left
with many while others have none. A unit stays the grain in which work is saved and done again.

What travels together hangs on nothing but the units: a read task that is done again on another node
hands on the same messages, and those that have arrived before are passed over by their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from moderay.pipeline.messages.spans import Reading
from moderay.pipeline.messages.units import UnitRead

# Messages that are left for each engine, at least, when one is made.
MESSAGES_LEFT = 4
# Spans that one task reads, and bytes of content of all of them: a task for each small shard takes
# longer than the shard does.
MOST_SPANS, SMALL_BYTES = 32, 4 * 2**20


@dataclass(frozen=True)
class Together:
    """How much travels together.

    Attributes:
        units: Units of a message, at most.
        bytes: Of a message, about, at most; a unit that is larger travels alone.
        engines: Among which messages are divided.
    """

    units: int
    bytes: int
    engines: int

    def among(self, left: int, most: int) -> int:
        """Of so many things that are left, those that the next one of the engines is given."""
        return max(1, min(most, left // (MESSAGES_LEFT * self.engines)))


def batches(units: Iterable[tuple[UnitRead, int]], size: Together) -> Iterator[list[UnitRead]]:
    """Neighbours as they travel together.

    Args:
        units: Each with the number of units that follow in the run, about.
        size: How much travels together.
    """
    batch: list[UnitRead] = []
    held = 0
    for unit, behind in units:
        more = 0 if unit.table is None else int(unit.table.nbytes)
        if batch and held + more > size.bytes:
            yield batch
            batch, held = [], 0
        batch.append(unit)
        held += more
        if len(batch) >= size.among(len(batch) + behind, size.units):
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def read_together(
    readings: Sequence[Reading], alone: Sequence[bool], size: Together
) -> list[list[int]]:
    """The numbers of the spans that each task reads.

    Args:
        readings: All of a run, in order.
        alone: Whether a span is given a task of its own: should the task die of it, the shards of
            others that it reads are lost to this run.
        size: For its engines.
    """
    tasks: list[list[int]] = []
    held = 0
    may_join = False
    for number, reading in enumerate(readings):
        more = _content_bytes(reading)
        most = size.among(len(readings) - number, MOST_SPANS)
        may_join = may_join and not alone[number] and held + more <= SMALL_BYTES
        if may_join and len(tasks[-1]) < most:
            tasks[-1].append(number)
            held += more
        else:
            tasks.append([number])
            held = more
            may_join = not alone[number]
    return tasks


def _content_bytes(reading: Reading) -> int:
    shard = reading.span.shard
    rows = sum(shard.row_groups[slice(*reading.span.groups)])
    return shard.content_bytes * rows // max(1, shard.rows)
