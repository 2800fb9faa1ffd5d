"""What a command shows when it is through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from moderay.cli.console import out, printable, warn
from moderay.core.errors import inert
from moderay.core.redaction import shown
from moderay.core.verdicts import Status
from moderay.labels.lease import WHOLE, part_text

if TYPE_CHECKING:
    from moderay.tasks.filter.filter import Filtered
    from moderay.tasks.filter.records import Reasons
    from moderay.tasks.output_status import OutputStatus

# Runs that `status` shows.
LAST_RUNS = 20
_STYLE: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False}


def show_outcome(checked: Any, outcome: Any, quiet: bool = False) -> None:
    """What a person should hear of a run that has ended; `quiet`: only what may be wrong."""
    if not quiet:
        _show_done(checked, outcome)
    if failed := sum(counts.failed for counts in outcome.manifest.counts.values()):
        warn(
            f"note: {failed:,} verdicts are missing (timeout, unparsed or engine_error); "
            "--retry-failed asks for them again"
        )
    for name, reason in outcome.manifest.unreadable.items():
        warn(f"unreadable: {name}: {reason}")
    for name, reason in outcome.manifest.failed.items():
        warn(f"failed: {name}: {reason}")
    for alarm in outcome.manifest.alarms:
        warn(f"alarm: {alarm}")


def _show_done(checked: Any, outcome: Any) -> None:
    """What a run did, and what it left."""
    if not checked.scan.rows and not checked.scan.unreadable:
        out.print("the input is empty: no rows to label")
    elif not outcome.worked:
        out.print(
            f"nothing to do: {outcome.manifest.shards:,} shards with "
            f"{outcome.manifest.rows:,} rows are published in {shown(checked.job.output.path)}"
        )
    else:
        _summary(outcome)
        out.print(f"labels: {shown(checked.job.output.path)}", soft_wrap=True)
    if outcome.left:
        warn(f"note: {outcome.left:,} shards are left to other runs, which are labelling them")
    for name in outcome.pruned:
        out.print(f"pruned: {printable(name)}", soft_wrap=True)
    if gone := outcome.manifest.gone:
        warn(
            f"note: the input no longer has {len(gone):,} shards whose labels are here, such as "
            f"{gone[0]}; --prune removes them"
        )


def show_brief(job: Any, outcome: Any, as_json: bool) -> None:
    """A night in a few lines, or for machines."""
    from moderay.labels.analysis.summary import brief, lines

    night = brief(job, outcome.manifest, outcome.worked)
    print(json.dumps(night, ensure_ascii=False) if as_json else "\n".join(map(inert, lines(night))))


def show_output_status(output: str, status: OutputStatus) -> None:
    """How far an output is: what is published, its last runs, and who is writing it now."""
    manifest = status.manifest
    is_whole = manifest.complete and status.shards == manifest.input_shards
    whole = ", complete" if is_whole and not status.writers else ""
    out.print(
        f"{printable(output)}: {status.shards:,} of {manifest.input_shards:,} shards published, "
        f"{status.rows:,} rows, {status.flagged:,} flagged{whole}",
        soft_wrap=True,
    )
    writers = {writer.claim.run: writer for writer in status.writers}
    table = Table("run", "part", "host", "status", "started", "ended", "judged", **_STYLE)
    for run in manifest.runs[-LAST_RUNS:]:
        writer = writers.pop(run.run, None)
        part = part_text(run.part or WHOLE)
        state = f"{run.status}, renewed {writer.age:.0f} s ago" if writer else run.status
        judged = "" if run.ended is None else f"{run.judged:,}"
        table.add_row(
            str(run.run), part, run.host or "", state, run.started or "", run.ended or "", judged
        )
    for number, writer in writers.items():
        part = part_text(writer.claim.part)
        state = f"starting, renewed {writer.age:.0f} s ago"
        table.add_row(str(number), part, writer.claim.host, state, "", "", "")
    out.print(table)
    for kind, reasons in (("unreadable", manifest.unreadable), ("failed", manifest.failed)):
        for name, reason in reasons.items():
            warn(f"{kind}: {name}: {reason}")


def show_trend(trend: Any, price: float | None) -> None:
    """Nights side by side.

    Per policy the shares through the nights; per night what it brought and cost; what is new, and
    the alarms.
    """
    out.print(_shares(trend))
    out.print(_nights(trend, price))
    for policy, series in trend.policies.items():
        for reason in series.reasons:
            out.print(f"new on {series.dates[-1]}: {policy}: {printable(reason)}", soft_wrap=True)
    for alarm in trend.alarms:
        warn(f"alarm: {alarm}")


def _shares(trend: Any) -> Table:
    """Per policy what was flagged, each label, and what failed, through the nights."""
    from moderay.labels.analysis.chart import blocks

    table = Table("policy", "", "nights", "last", "(95%)", "change", **_STYLE)
    for policy, series in trend.policies.items():
        lines = (("flagged", series.flagged), *series.labels.items(), ("failed", series.failed))
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


def _nights(trend: Any, price: float | None) -> Table:
    """What each night brought, and what it cost."""
    paid = ["GPU h/M rows"] if any(night.gpu_s for night in trend.nights) else []
    paid += ["cost/M rows"] if paid and price is not None else []
    counted = ("rows", "shards", "changed", "flagged", "requests")
    table = _numbers(["night"], [*counted, "tokens/M rows", *paid])
    for night in trend.nights:
        millions = max(1, night.rows) / 1e6
        hours = night.gpu_s / 3600 / millions
        costs = [
            f"{night.tokens / millions:,.0f}",
            f"{hours:,.2f}",
            f"{hours * (price or 0):,.2f}",
        ][: 1 + len(paid)]
        table.add_row(night.date, *[f"{getattr(night, name):,}" for name in counted], *costs)
    return table


def show_filter(done: Filtered, folder: str, quiet: bool = False) -> None:
    """What a filter did, and the shards that it missed; `quiet`: only these."""
    if not quiet:
        _show_fates(done, shown(folder))
    if not done.worked:
        return
    for kind, reasons in (("missing", done.card.missing), ("failed", done.card.failed)):
        for name, reason in reasons.items():
            warn(f"{kind}: {name}: {reason}")


def _show_fates(done: Filtered, folder: str) -> None:
    """Rows by fate, and why those that are not kept are not."""
    card = done.card
    if not done.worked:
        out.print(
            f"nothing to do: {card.shards:,} shards with {card.rows.input:,} rows are filtered in "
            f"{folder}",
            soft_wrap=True,
        )
        return
    table = Table("rows", "", "", **_STYLE)
    table.columns[1].justify = "right"
    table.add_row("kept", f"{card.rows.kept:,}", "")
    table.add_row("removed", f"{card.rows.removed:,}", _reasons(card.removed))
    table.add_row("held", f"{card.rows.held:,}", _reasons(card.held))
    if card.rule.unselected:
        table.add_row("unselected", f"{card.rows.unselected:,}", f"in {card.rule.unselected}/")
    out.print(table)
    out.print(f"{card.rows.input:,} rows in {card.shards:,} shards: {folder}", soft_wrap=True)
    for name in card.gone:
        out.print(f"removed, since its labels are gone: {printable(name)}", soft_wrap=True)


def _reasons(reasons: Reasons) -> str:
    return printable(
        ", ".join(
            f"{policy} {reason or '-'} {count:,}"
            for policy, counts in reasons.items()
            for reason, count in counts.items()
        )
    )


def _summary(outcome: Any) -> None:
    """Per policy what a run counted, and its rates.

    Judged, flagged, forced, and every other count that is not zero.
    """
    totals = outcome.manifest.counts
    rare = [status for status in Status if status is not Status.OK]
    others = [
        status for status in rare if any(counts.by_status(status) for counts in totals.values())
    ]
    counted = ("judged", "flagged", "forced", *[status.value for status in others])
    table = _numbers(["policy"], [*counted, "rows/s", "tokens/s"])
    for name, counts in totals.items():
        rates = [f"{rate:,.0f}" for rate in outcome.rates.get(name, ())] or ["", ""]
        numbers = (counts.ok, counts.flagged, counts.forced, *map(counts.by_status, others))
        table.add_row(name, *[f"{number:,}" for number in numbers], *rates)
    out.print(table)
    if any(len(judges) > 1 for judges in outcome.manifest.judges.values()):
        out.print(_judges(outcome.manifest.judges))
    rows, shards = outcome.manifest.rows, outcome.manifest.shards
    out.print(
        f"{rows:,} rows in {shards:,} shards; this run: {outcome.judged:,} in "
        f"{outcome.seconds:.0f} s{_unpaid(outcome)}{_engine_time(outcome)}"
    )


def _judges(policies: Any) -> Table:
    """Per policy and judge: what it settled, and what the audit says of it."""
    figures = ["settled", "share", "audited", "overruled", "missed (95%)"]
    table = _numbers(["policy", "judge"], figures)
    for policy, judges in policies.items():
        for judge, report in judges.items():
            audit = ["", "", ""]
            if report.missed_violations is not None:
                low, estimate, high = report.missed_violations
                audit = [
                    f"{report.audited:,}",
                    f"{report.overruled:,}",
                    f"{estimate:,.0f} ({low:,.0f} to {high:,.0f})",
                ]
            table.add_row(policy, judge, f"{report.settled:,}", f"{report.share:.1%}", *audit)
    return table


def _unpaid(outcome: Any) -> str:
    """Verdicts that cost nothing.

    In all label files those of equal contents, in this run those from before.
    """
    duplicates = sum(counts.duplicates for counts in outcome.manifest.counts.values())
    unpaid = (
        (duplicates, "of duplicates"),
        (outcome.manifest.last_run.reused_verdicts, "from before"),
    )
    return "".join(f", {count:,} verdicts {what}" for count, what in unpaid if count)


def _engine_time(outcome: Any) -> str:
    """Where the time of this run's engines went, up to the last unit of each."""
    usage = outcome.manifest.last_run.usage
    spent = {state: usage.get(f"engine_{state}_ms", 0) for state in ("working", "starting", "idle")}
    total = sum(spent.values())
    return (
        ", engines " + ", ".join(f"{state} {ms / total:.0%}" for state, ms in spent.items() if ms)
        if total
        else ""
    )


def _numbers(names: Sequence[str], figures: Sequence[str]) -> Table:
    """A table without rows yet: columns of names, then figures to the right."""
    table = Table(*names, *figures, **_STYLE)
    for column in table.columns[len(names) :]:
        column.justify = "right"
    return table
