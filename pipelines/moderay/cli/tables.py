"""What a command shows when it is through."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.table import Table

from moderay.cli.console import out, printable, ring, show_table, table_of, warn
from moderay.core.errors import inert
from moderay.core.redaction import shown
from moderay.core.verdicts import Status
from moderay.core.wording import are, counted, duration, selected, titled

if TYPE_CHECKING:
    from moderay.labels.manifest_record import GateFigure
    from moderay.tasks.filter.filter import Filtered
    from moderay.tasks.filter.records import Reasons
    from moderay.tasks.output_status import OutputStatus

# Runs that `status` shows.
LAST_RUNS = 20


def show_outcome(checked: Any, outcome: Any, quiet: bool = False) -> None:
    """What a person should hear of a run that has ended; `quiet`: only what may be wrong."""
    if not quiet:
        _show_done(checked, outcome)
    if outcome.report_failed:
        warn(
            f"note: the report could not be written ({outcome.report_failed}); the labels are "
            "whole, and moderay report writes it again"
        )
    if outcome.table_failed:
        warn(
            f"note: the labels are whole, and their table is not brought up to them "
            f"({outcome.table_failed}); the same command does that"
        )
    if failed := sum(counts.failed for counts in outcome.manifest.counts.values()):
        warn(
            f"note: {counted(failed, 'verdict')} {are(failed)} missing (timeout, unparsed or "
            "engine_error); --retry-failed asks again"
        )
    for name, reason in outcome.manifest.unreadable.items():
        warn(f"unreadable: {name}: {reason}")
    for name, reason in outcome.manifest.failed.items():
        warn(f"failed: {name}: {reason}")
    for alarm in outcome.manifest.alarms:
        ring(alarm)


def show_gate(figures: Sequence[GateFigure]) -> None:
    """What golden sets were held against, before the corpus."""
    table = table_of(["gate", "figure"], ["cases", "95% interval", "floor"], "")
    for figure in figures:
        table.add_row(
            figure.policy,
            figure.figure,
            f"{figure.k:,} of {figure.n:,}",
            f"{figure.low:.3f} to {figure.high:.3f}",
            f"{figure.floor:g}",
            "passed" if figure.passed else "FAILED",
        )
    show_table(table)
    for policy, count in {figure.policy: figure.not_judged for figure in figures}.items():
        if count:
            out.print(
                f"of {policy} {counted(count, 'golden case')} could not be judged, which counts as "
                "not found"
            )


@contextmanager
def gate_shown(quiet: bool) -> Iterator[None]:
    """Where a run ends at its gate, what that has found comes before the sentence about it."""
    from moderay.pipeline.gate import GateClosedError

    try:
        yield
    except GateClosedError as error:
        if not quiet:
            show_gate(error.figures)
        raise


def _show_done(checked: Any, outcome: Any) -> None:
    """What a run did, and what it left."""
    if not checked.scan.rows and not checked.scan.unreadable:
        out.print("the input is empty: no rows to label")
    elif not outcome.worked:
        out.print(
            f"nothing to do: {counted(outcome.manifest.shards, 'shard')} with "
            f"{_rows(outcome.manifest)} {are(outcome.manifest.shards)} published in "
            f"{printable(shown(checked.job.output.path))}",
            soft_wrap=True,
        )
    else:
        if outcome.gate:
            show_gate(outcome.gate)
        _summary(outcome)
        out.print(f"labels: {shown(checked.job.output.path)}", soft_wrap=True)
        if outcome.table is not None:
            out.print(f"table: {printable(outcome.table)}", soft_wrap=True)
        if outcome.report is not None:
            out.print(f"report: {printable(outcome.report)}", soft_wrap=True)
    if outcome.unapplied:
        warn(
            "note: people have answered what is not in all of these labels yet: "
            f"moderay decide {printable(shown(checked.job.output.path))}"
        )
    if outcome.left:
        warn(
            f"note: {counted(outcome.left, 'shard')} {are(outcome.left)} left to other runs, "
            "which are at work there"
        )
    for name in outcome.pruned:
        out.print(f"pruned: {printable(name)}", soft_wrap=True)
    if gone := outcome.manifest.gone:
        warn(
            f"note: the input no longer has {counted(len(gone), 'shard')} whose labels are here, "
            f"such as {gone[0]}; --prune removes them"
        )


def show_brief(job: Any, outcome: Any, as_json: bool) -> None:
    """A night in a few lines, or for machines."""
    from moderay.labels.analysis.summary import brief, lines

    night = brief(job, outcome.manifest, outcome.worked)
    print(json.dumps(night, ensure_ascii=False) if as_json else "\n".join(map(inert, lines(night))))


def show_output_status(output: str, status: OutputStatus) -> None:
    """How far an output is: what is published, its last runs, and who is writing it now."""
    manifest = status.manifest
    whole = ", complete" if status.complete else ""
    out.print(
        f"{printable(output)}: {status.shards:,} of {counted(manifest.input_shards, 'shard')} "
        f"published, {counted(status.rows, 'row')}, {status.flagged:,} flagged{whole}",
        soft_wrap=True,
    )
    from moderay.tasks.output_status import status_json

    table = table_of(["run", "part", "host", "status", "started (UTC)"], ["took", "judged"])
    for run in status_json(output, status)["runs"][-LAST_RUNS:]:
        renewed = "" if run["renewed_s"] is None else f", renewed {run['renewed_s']:.0f} s ago"
        table.add_row(
            str(run["run"]),
            run["part"],
            printable(run["host"] or ""),
            run["status"] + renewed,
            (run["started"] or "")[:19].replace("T", " "),
            "" if run["ended"] is None else duration(run["seconds"]),
            "" if run["ended"] is None else f"{run['judged']:,}",
        )
    show_table(table)
    for kind, reasons in (("unreadable", manifest.unreadable), ("failed", manifest.failed)):
        for name, reason in reasons.items():
            warn(f"{kind}: {name}: {reason}")
    for alarm in manifest.alarms:
        ring(alarm)


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
            f"nothing to do: {counted(card.shards, 'shard')} with "
            f"{counted(card.rows.input, 'row')} {are(card.shards)} filtered in "
            f"{printable(folder)}",
            soft_wrap=True,
        )
        return
    table = table_of([""], ["rows"], "why")
    titles = {name: policy.label_titles for name, policy in card.policies.items()}
    table.add_row("kept", f"{card.rows.kept:,}", "")
    table.add_row("removed", f"{card.rows.removed:,}", _reasons(card.removed, titles))
    table.add_row("held", f"{card.rows.held:,}", _reasons(card.held, titles))
    if card.rule.unselected:
        table.add_row("unselected", f"{card.rows.unselected:,}", f"in {card.rule.unselected}/")
    show_table(table)
    out.print(
        f"{counted(card.rows.input, 'row')} in {counted(card.shards, 'shard')}: "
        f"{printable(folder)}",
        soft_wrap=True,
    )
    if (change := card.table) is not None:
        back = "" if change.before is None else f" (before: version {change.before})"
        out.print(
            f"table: {printable(change.table)} version {change.version}{back}, "
            f"{counted(change.added, 'file')} added, {change.removed:,} removed",
            soft_wrap=True,
        )
    for name in card.gone:
        out.print(f"removed, since its labels are gone: {printable(name)}", soft_wrap=True)


def _reasons(reasons: Reasons, titles: Mapping[str, Mapping[str, str]]) -> str:
    return printable(
        ", ".join(
            f"{policy} {titled(reason or '-', titles.get(policy, {}).get(reason))}: {count:,}"
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
    names = ("judged", "flagged", "forced", *[status.value for status in others])
    table = table_of(["policy"], [*names, "rows/s", "tokens/s"])
    for name, counts in totals.items():
        rates = [f"{rate:,.0f}" for rate in outcome.rates.get(name, ())] or ["", ""]
        numbers = (counts.ok, counts.flagged, counts.forced, *map(counts.by_status, others))
        table.add_row(name, *[f"{number:,}" for number in numbers], *rates)
    show_table(table)
    show_table(_labels(outcome.manifest))
    if any(len(judges) > 1 for judges in outcome.manifest.judges.values()):
        show_table(_judges(outcome.manifest.judges))
    out.print(
        f"{_rows(outcome.manifest)} in {counted(outcome.manifest.shards, 'shard')}; "
        f"this run: {outcome.judged:,} in {duration(outcome.seconds)}"
        f"{_unpaid(outcome)}{_engine_time(outcome)}"
    )


def _rows(manifest: Any) -> str:
    """The rows of an output, and of how many they were selected, where these are not all."""
    if manifest.rows == manifest.input_rows:
        return counted(manifest.rows, "row")
    return selected(manifest.rows, manifest.input_rows)


def _labels(manifest: Any) -> Table:
    """Per policy and label the rows of the output, and what the label means."""
    table = table_of(["policy", "label", "title"], ["rows", "share"])
    for name, counts in manifest.counts.items():
        titles = manifest.policies[name].label_titles
        for label, rows in sorted(counts.labels.items()):
            title = printable(titles.get(label, ""))
            table.add_row(name, printable(label), title, f"{rows:,}", f"{rows / counts.ok:.1%}")
    return table


def _judges(policies: Any) -> Table:
    """Per policy and judge: what it settled, and what the audit says of it."""
    figures = ["settled", "share", "audited", "overruled", "missed (95%)"]
    table = table_of(["policy", "judge"], figures)
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
    return "".join(f", {counted(count, 'verdict')} {what}" for count, what in unpaid if count)


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
