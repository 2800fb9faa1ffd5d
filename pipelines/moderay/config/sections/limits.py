"""`windows:`, `unit:` and `limits:`: how much at once, and when to give up."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from moderay.config.sections.base import Section

_BYTE_UNITS = {
    "": 1,
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
# A number and a unit, such as 64MiB or 1.5 GB.
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")

DEFAULT_ROWS = 512


def _bytes(value: object) -> object:
    """`64MiB` -> 67108864; what is no such text stays, for the field's own type to judge."""
    match = _BYTES.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    if match[2] not in _BYTE_UNITS:
        raise ValueError(
            f"unknown unit {match[2]!r}; valid: {', '.join(filter(None, _BYTE_UNITS))}"
        )
    return int(float(match[1]) * _BYTE_UNITS[match[2]])


class Windows(Section):
    """Long content: pieces that overlap, each judged."""

    tokens: int = Field(default=8192, ge=16)
    """Tokens of content in one piece."""
    overlap: int = Field(default=256, ge=0)
    """Tokens a piece shares with the one before, so that nothing is cut where it matters; below
    `tokens`.
    """
    max: int = Field(default=32, ge=1)
    """Pieces of one content; with more it is `too_long`, since one row should not cost as much as
    thousands.
    """

    @model_validator(mode="after")
    def _advances(self) -> Windows:
        if self.overlap >= self.tokens:
            raise ValueError(f"overlap ({self.overlap}) must be below tokens ({self.tokens})")
        return self


class UnitSize(Section):
    """The grain of progress and resume: whichever of the two is reached first."""

    rows: Annotated[int, Field(ge=1)] | Literal["auto"] = DEFAULT_ROWS
    """Rows: seconds to minutes of an engine's work. `auto`: as many as take an engine about 30 s,
    by what earlier runs show; 512 where none does.
    """
    bytes: Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)] = Field(
        default=64 * 2**20, ge=1
    )
    """Bytes of content, about; a number or such as 64MiB. Bounds what one unit holds in memory."""

    @property
    def most(self) -> int:
        """Rows, where nobody knows better than this section."""
        return DEFAULT_ROWS if self.rows == "auto" else self.rows

    def of(self, rows: int) -> UnitSize:
        """This size with so many rows."""
        return UnitSize(rows=rows, bytes=self.bytes)


class Limits(Section):
    """When to give up."""

    request_s: float = Field(default=120, gt=0)
    """Seconds one window may take, from the moment the engine is asked."""
    stall_s: float = Field(default=600, gt=0)
    """Seconds without any unit saved, engine start included, after which the run ends and says what
    it waits for.
    """
    grace_s: float = Field(default=20, ge=0)
    """Seconds after SIGTERM or Ctrl-C in which units in judging may end; no new ones are begun.
    Default: 20, of the 30 that Kubernetes gives.
    """
    max_failed: float = Field(default=0.05, ge=0, le=1)
    """Share of judged rows that failed, did not parse or were forced, at which the run ends; and
    share of all rows that are `invalid`. Looked at from 2,000 rows on.
    """
    gpu_hours: float | None = Field(default=None, gt=0)
    """GPU hours after which the run ends. Default: none."""
    until: datetime.datetime | None = None
    """Date and time (ISO 8601) at which the run ends; local time where it names no zone. Default:
    none.
    """
