"""Units out = units in: what the driver hears of each unit, and when a shard is whole."""

from __future__ import annotations

from collections.abc import Sequence

from moderay.corpus.ranges import Range, gaps, tiling
from moderay.pipeline.messages.units import UnitDone
from moderay.pipeline.plan import Work


class Tracker:
    """Counts rows per shard.

    Attributes:
        outstanding: Rows that have not come back.
        failed: Shards, and why.
    """

    def __init__(self, todo: Sequence[Work]) -> None:
        """Of the shards that are to be judged; none of their rows has come back."""
        self._work = {work.shard.name: work for work in todo if work.missing}
        self._left = {name: work.rows_left for name, work in self._work.items()}
        self._done: dict[str, list[Range]] = {
            name: list(work.saved) for name, work in self._work.items()
        }
        self.outstanding = sum(self._left.values())
        self.failed: dict[str, str] = {}

    def add(self, unit: UnitDone) -> tuple[Work, tuple[Range, ...]] | None:
        """The shard and its ranges, when this was the last unit it waited for."""
        if unit.skipped:
            return None
        start, end = unit.rows
        self._left[unit.shard] -= end - start
        self.outstanding -= end - start
        if unit.error is not None:
            self.failed.setdefault(unit.shard, unit.error)
        else:
            self._done[unit.shard].append(unit.rows)
        if self._left[unit.shard] or unit.shard in self.failed:
            return None
        return self._work[unit.shard], tiling(self._done.pop(unit.shard))

    def give_up(self, shard: str, reason: str) -> None:
        """A shard's rows that have not come back never will."""
        if self._left[shard]:
            self.failed.setdefault(shard, reason)
            self.outstanding -= self._left[shard]
            self._left[shard] = 0

    def first_missing(self) -> tuple[str, Range] | None:
        """A shard that is waited for, and its first rows that have not come back."""
        name = next(
            (name for name, rows in self._left.items() if rows and name not in self.failed), None
        )
        if name is None:
            return None
        return name, gaps(self._work[name].shard.rows, tiling(self._done[name]))[0]

    def assert_complete(self) -> None:
        """Raises AssertionError where rows were sent and never came back."""
        lost = {name: rows for name, rows in self._left.items() if rows}
        assert not lost, f"rows that were sent to be judged and never came back: {lost}"
