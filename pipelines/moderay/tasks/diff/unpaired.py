"""What of two outputs has no counterpart in the other one."""

from __future__ import annotations

from collections.abc import Sequence

from moderay.core.errors import UserError
from moderay.core.storage import shown
from moderay.core.wording import counted
from moderay.tasks.diff.pairs import Output, Pairs
from moderay.tasks.diff.records import LeftOut


def common_policies(a: Output, b: Output) -> list[str]:
    """Policies of both outputs, in the order of the first.

    Raises:
        UserError: There are none.
    """
    policies = [name for name in a.policies if name in b.policies]
    if not policies:
        raise UserError(
            f"{shown(a.layout.url)} has {', '.join(a.policies)} and {shown(b.layout.url)} "
            f"{', '.join(b.policies)}: diff compares the policies that both have"
        )
    return policies


class Unpaired:
    """Shards and rows that cannot be compared, counted."""

    def __init__(self, a: Output, b: Output) -> None:
        """The shards of both outputs are known at once; rows come with `add`."""
        self._a, self._b = a, b
        self._shards = _only(a.shards, b.shards), _only(b.shards, a.shards)
        self._only_a = self._only_b = self._other = 0
        self._first = ""
        self.rows = 0

    def add(self, pairs: Pairs) -> None:
        """See rows of a shard that both hold."""
        self.rows += len(pairs.a)
        self._only_a += pairs.only_a
        self._only_b += pairs.only_b
        self._other += len(pairs.other)
        if len(pairs.other) and not self._first:
            self._first = f"{pairs.shard} row {pairs.other[0]}"

    @property
    def record(self) -> LeftOut:
        """What is not compared."""
        a, b = self._a.policies, self._b.policies
        return LeftOut(
            shards_a=len(self._shards[0]),
            shards_b=len(self._shards[1]),
            rows_a=self._only_a,
            rows_b=self._only_b,
            other_content=self._other,
            policies_a=_only(a, b),
            policies_b=_only(b, a),
        )

    def refuse(self) -> None:
        """Assert that nothing is left out.

        Raises:
            UserError: Something would be.
        """
        if found := [*self._missing_shards(), *self._missing_rows()]:
            raise UserError(
                f"these are not labels of the same input ({'; '.join(found)}): finish both runs, "
                "or give --common to compare what both hold with the same content"
            )

    def _missing_shards(self) -> list[str]:
        outputs = zip((self._a, self._b), self._shards, strict=True)
        return [
            f"{counted(len(names), 'shard')} only in {shown(output.layout.url)}, such as {names[0]}"
            for output, names in outputs
            if names
        ]

    def _missing_rows(self) -> list[str]:
        outputs = zip((self._a, self._b), (self._only_a, self._only_b), strict=True)
        found = [
            f"{counted(rows, 'row')} only in {shown(output.layout.url)}"
            for output, rows in outputs
            if rows
        ]
        if self._other:
            found.append(
                f"{counted(self._other, 'row')} of another content, the first one {self._first}"
            )
        return found


def _only(there: Sequence[str], other: Sequence[str]) -> list[str]:
    """Names that the other one has not, in order."""
    known = set(other)
    return [name for name in there if name not in known]
