"""What `plan` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from moderay.cli.console import out, warn

if TYPE_CHECKING:
    from moderay.api import PlannedRun
    from moderay.pipeline.estimate import Forecast


def show_plan(planned: PlannedRun) -> None:
    """What is left to do and what it costs, and what had to be assumed for it."""
    table = Table(show_header=False, box=None)
    for title, text in _rows(planned):
        table.add_row(title, text)
    out.print(table)
    forecast = planned.forecast
    if forecast.rows > forecast.read:
        out.print(f"from {forecast.read:,} rows; --rows reads more")
    if planned.refusal:
        warn(
            f"note: this is what --replace would cost, without which a run is refused: "
            f"{planned.refusal}"
        )
    for guess in forecast.guesses:
        warn(f"note: {guess}")


def _rows(planned: PlannedRun) -> Iterator[tuple[str, str]]:
    scan = planned.checked.scan
    work = planned.plan
    forecast = planned.forecast
    redecided = sum(shard.redecide for shard in work.todo)
    yield (
        "shards",
        f"{len(scan.shards):,}, of them published {len(work.done):,}, to decide again "
        f"{redecided:,}",
    )
    yield (
        "rows",
        f"{scan.rows:,}, of them left {forecast.rows:,}, selected about {forecast.selected:,}",
    )
    yield "distinct contents", f"{forecast.distinct:,}"
    for policy, verdicts in forecast.verdicts.items():
        yield (
            f"{policy}:",
            ", ".join(f"{name} {count:,}" for name, count in verdicts.items() if count),
        )
    yield "requests", f"{forecast.requests:,}"
    yield (
        "prompt tokens",
        f"{forecast.prompt_tokens:,}, of them {forecast.cached_tokens:,} in the prefix cache",
    )
    yield "output tokens", f"{forecast.output_tokens:,}"
    yield "GPU hours", _gpu_hours(forecast)


def _gpu_hours(forecast: Forecast) -> str:
    if forecast.gpu_hours is None:
        return "not known: give --rate, tokens a second of one GPU"
    return f"{forecast.gpu_hours:,.1f} at {forecast.tokens_per_s:,.0f} tokens/s"
