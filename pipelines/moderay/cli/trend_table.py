"""What `trend` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moderay.cli.console import out, printable, ring, show_table, table_of
from moderay.core.wording import HOUR_S, duration, titled

if TYPE_CHECKING:
    from rich.table import Table


def show_trend(trend: Any, price: float | None) -> None:
    """Nights side by side.

    Per policy the shares through the nights; per night what it brought and cost; what is new, and
    the alarms.
    """
    show_table(_shares(trend))
    show_table(_nights(trend, price))
    if trend.prevalence:
        show_table(_prevalence(trend.prevalence))
    for policy, series in trend.policies.items():
        for reason in series.reasons:
            out.print(f"new on {series.dates[-1]}: {policy}: {printable(reason)}", soft_wrap=True)
    if not trend.alarms:
        out.print("no change that is certain and as large as the job's alarms say")
    for alarm in trend.alarms:
        ring(alarm)


def _shares(trend: Any) -> Table:
    """Per policy what was flagged, each label, and what failed, through the nights."""
    from moderay.labels.analysis.chart import blocks

    table = table_of(["policy", "", "nights"], ["last", "95%"], "change")
    for policy, series in trend.policies.items():
        titles = trend.label_titles.get(policy, {})
        labels = {titled(label, titles.get(label)): line for label, line in series.labels.items()}
        lines = (
            ("flagged", series.flagged),
            *labels.items(),
            ("failed", series.failed),
            ("forced", series.forced),
        )
        for name, line in lines:
            last = line[-1]
            change = series.change if name == "flagged" else None
            table.add_row(
                policy if name == "flagged" else "",
                printable(name),
                blocks([share.value for share in line]),
                f"{last.value:.2%}",
                f"{100 * last.low:.2f}-{100 * last.high:.2f}",
                "" if change is None else f"{change.before.value:.2%} before {change.since}",
            )
    return table


def _prevalence(estimates: Any) -> Table:
    """How much truly violates, by the reviews of each plan."""
    table = table_of(["truly violate", "planned"], ["reviews", "all", "95%", "kept", "95%"])
    for each in estimates:
        figures = [
            text
            for share in (each.corpus, each.kept)
            for text in (
                ("", "")
                if share is None
                else (f"{share.share:.2%}", f"{100 * share.low:.2f}-{100 * share.high:.2f}")
            )
        ]
        table.add_row(each.policy, each.planned[:10], f"{each.corpus.reviews:,}", *figures)
    return table


def _nights(trend: Any, price: float | None) -> Table:
    """What each night brought, and what it cost."""
    paid = ["GPU/M rows"] if any(night.gpu_s for night in trend.nights) else []
    paid += ["cost/M rows"] if paid and price is not None else []
    counts = ("rows", "shards", "changed", "flagged", "requests")
    table = table_of(["night"], [*counts, "tokens/row", *paid])
    for night in trend.nights:
        rows = max(1, night.rows)
        gpu_s = night.gpu_s / rows * 1e6
        costs = [
            f"{night.tokens / rows:,.1f}",
            duration(gpu_s),
            f"{gpu_s / HOUR_S * (price or 0):,.2f}",
        ][: 1 + len(paid)]
        table.add_row(night.date, *[f"{getattr(night, name):,}" for name in counts], *costs)
    return table
