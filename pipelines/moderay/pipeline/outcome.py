"""What is asked of a run beyond its job, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moderay.core.errors import UserError
from moderay.labels.layout import SLOTS
from moderay.labels.lease import WHOLE, Part
from moderay.labels.manifest_record import GateFigure, Manifest
from moderay.pipeline.control.progress import Rate

if TYPE_CHECKING:
    from moderay.pipeline.manifest import OutputTotal


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        manifest: What the output now says of itself.
        worked: Whether there was anything to do.
        judged: Rows.
        seconds: Of the whole run, its start included.
        rates: By policy id.
        pruned: Shards whose labels were removed.
        left: Shards that are left to other drivers, which hold their slots.
        left_slots: These slots.
        missed: Whether of its own part something is missing.
        gate: What golden sets were held against before.
        unapplied: Whether people have said what is not in all labels yet.
        total: What the output's markers add up to; None where none was read.
        report: Where the report was written; None where none was.
        report_failed: Why it was not, where it should have been.
        table: The table that the labels are in, with its version; None where they are in none.
        table_failed: Why it was not brought up to the labels.
    """

    manifest: Manifest
    worked: bool
    judged: int
    seconds: float
    rates: Mapping[str, Rate]
    pruned: Sequence[str] = ()
    left: int = 0
    left_slots: frozenset[int] = frozenset()
    missed: bool = False
    gate: Sequence[GateFigure] = ()
    unapplied: bool = False
    total: OutputTotal | None = None
    report: str | None = None
    report_failed: str = ""
    table: str | None = None
    table_failed: str = ""

    @property
    def exit_status(self) -> int:
        """The process's: 1 where something is missing."""
        return int(self.missed)


@dataclass(frozen=True)
class RunOptions:
    """What a run does beyond judging what is not published yet.

    Attributes:
        replace: Over another cascade's labels.
        retry_failed: Also the rows that another attempt may judge.
        prune: Remove the labels of shards that are gone from the input.
        part: (i, n): first the slots that are i modulo n, then those that nobody holds.
    """

    replace: bool = False
    retry_failed: bool = False
    prune: bool = False
    part: Part = WHOLE


# Of a run without options.
PLAIN = RunOptions()


def part(text: str | None) -> Part:
    """A part as people write it, `i/n`; None is all.

    Raises:
        UserError: it is no part.
    """
    if text is None:
        return WHOLE
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= parts <= SLOTS or number > parts:
        raise UserError(
            f"--part {text!r}: say which part of how many this driver is to label, such as 3/10 "
            f"(0 to 10 of at most {SLOTS:,}; 10/10 and 0/10 are the same one)"
        )
    return number % parts, parts
