"""What `plan` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from moderay.cli.console import out, pairs_of, show_table, warn
from moderay.core.wording import HOUR_S, counted, duration, selected

if TYPE_CHECKING:
    from moderay.api import PlannedRun
    from moderay.pipeline.estimate import Forecast


def show_plan(planned: PlannedRun) -> None:
    """What is left to do and what it costs, and what had to be assumed for it."""
    table = pairs_of()
    for title, text in _rows(planned):
        table.add_row(title, text)
    show_table(table)
    forecast = planned.forecast
    if forecast.rows > forecast.read:
        out.print(f"from {counted(forecast.read, 'row')}; --rows reads more")
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
    for table in scan.tables:
        yield "table", str(table)
    yield (
        "shards",
        f"{len(scan.shards):,}, of them published {len(work.done):,}, to decide again "
        f"{redecided:,}",
    )
    yield (
        "rows",
        f"{scan.rows:,}, of them left {forecast.rows:,}{_selected(planned)}",
    )
    if planned.golden:
        yield "golden cases", _golden(planned.golden)
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
    yield "GPU time", _gpu_time(forecast)


def _golden(golden: Mapping[str, tuple[int, int]]) -> str:
    """What the gate has judged first, of which policies; it is not in the figures below."""
    missing = {policy: count for policy, (count, _) in golden.items() if count}
    if not missing:
        return f"{sum(cases for _, cases in golden.values()):,}, all of them judged already"
    of = ", ".join(f"{policy} {count:,}" for policy, count in missing.items())
    return f"{sum(missing.values()):,} judged first: {of}"


def _selected(planned: PlannedRun) -> str:
    """How many of the rows that are left are judged, where that is not all."""
    forecast = planned.forecast
    selects = bool(planned.checked.job.input.where or planned.checked.job.input.sample)
    return f"; about {selected(forecast.selected, forecast.rows)}" if selects else ""


def _gpu_time(forecast: Forecast) -> str:
    if forecast.gpu_hours is None:
        return "not known: give --rate, tokens a second of one GPU"
    return f"{duration(forecast.gpu_hours * HOUR_S)} at {forecast.tokens_per_s:,.0f} tokens/s"
