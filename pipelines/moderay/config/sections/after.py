"""`filter:` and `alarms:`: what is made of the labels after a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moderay.config.paths import JobPath
from moderay.config.sections.base import Section

Unselected = Literal["keep", "remove", "hold"]


class Filter(Section):
    """What `moderay filter` makes of the labels; `run` leaves it alone."""

    keep: str
    """Rows to keep: Polars SQL over the verdict columns and those carried over, such as NOT
    (spam.violates OR spam.probability > 0.8).
    """
    out: JobPath
    """A folder, outside input and output: kept/, removed/, held/, each with a file for each input
    file, and a card.
    """
    thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """By policy, where not the policy's own; decided from the labels, without a model."""
    unselected: Unselected | None = None
    """What becomes of rows that input.where or input.sample left out. Must be said where there are
    such rows.
    """
    verdicts: bool = False
    """Whether kept rows have the verdict columns too. Default: no, they are as they were."""


class Alarms(Section):
    """What `trend` and the end of a run ring at; null switches one off.

    A change must be as large as this and more than chance makes of so many rows, after three nights
    at least.
    """

    flagged: float | None = Field(default=0.25, gt=0)
    """Change of a policy's share of flagged rows: 0.25 is a quarter more, or as much less as takes
    a quarter to make up for.
    """
    drift: float | None = Field(default=0.1, gt=0, lt=1)
    """Change of the distribution of P(violates): Jensen-Shannon distance, 0 for the same, 1 for
    nothing in common.
    """
    failed: float | None = Field(default=0.01, gt=0, lt=1)
    """Share of the last night's rows that failed: timeout, unparsed or engine_error."""
    forced: float | None = Field(default=0.05, gt=0, lt=1)
    """Share of the last night's verdicts that were forced: the reasoning ran out of its budget, or
    the answer did not parse. Default: 0.05, as of limits.max_failed.
    """
    tokens: float | None = Field(default=None, gt=0)
    """Rise of tokens per row on the last night: 0.5 is half as many more. Default: none, since
    prompts are as long as the contents.
    """
