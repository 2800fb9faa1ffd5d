"""What `diff --repeat` shows: how often judges contradict themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moderay.cli.console import out, show_table, table_of
from moderay.cli.row_text import paragraph
from moderay.core.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from moderay.tasks.diff.records import (
        ContradictionRecord,
        FloorRecord,
        PolicyRepeatRecord,
        Seeds,
    )
    from moderay.tasks.diff.result import Repeated

# A difference that chance alone makes less often than this is called one.
SURE = 0.05
SEEDS = {
    "sent": "each time with seeds of its own",
    "no_effect": "nothing is drawn (sampling temperature 0, or no judge that reasons), so seeds do "
    "nothing and repeats are not informative: what differs is the engine's rounding alone",
    "not_sent": "an endpoint is not sent seeds: what differs is what its server draws anew, which "
    "is nothing where it is set up to draw the same",
}


def show_repeats(found: Repeated) -> None:
    """How the rows were judged, then a table and some rows of each policy."""
    record = found.record
    judged = f"{counted(record.rows, 'row')} judged {record.repeats} times"
    paragraph(f"{record.name}: {judged}, {SEEDS[record.seeds]}", 0)
    for name, policy in record.policies.items():
        out.print()
        paragraph(f"{name}: {_rows(policy)}", 0)
        table = _table()
        _add(table, "violates", policy.violates, record.repeats)
        _add(table, "label", policy.label, record.repeats)
        show_table(table)
        paragraph(_floor(policy, record.seeds), 0)
        show_contradictions(found.contradictions[name])


def show_floor(floor: FloorRecord) -> None:
    """What either version contradicts itself."""
    paragraph(f"either version judged each row {floor.repeats} times, {SEEDS[floor.seeds]}", 0)
    table = _table()
    for side, policy in (("a", floor.a), ("b", floor.b)):
        paragraph(f"{side}: {_rows(policy)}", 1)
        _add(table, f"{side} violates", policy.violates, floor.repeats)
    show_table(table)


def show_test(floor: FloorRecord) -> None:
    """Whether the flips are more than that."""
    if floor.seeds == "no_effect":
        paragraph("nothing is drawn: a flip is the change's, or the engine's rounding", 0)
        return
    means = (
        "a and b differ by more than they contradict themselves"
        if floor.p_value < SURE
        else "a and b differ by no more than they may contradict themselves"
    )
    p = "< 1e-09" if floor.p_value <= 1e-9 else f"= {floor.p_value:.3g}"
    paragraph(
        f"permutation test within contents, exact and one-sided, of all {2 * floor.repeats} "
        f"verdicts on each of {counted(floor.contents, 'content')}: p {p}, {means}",
        0,
    )


def show_contradictions(rows: pa.Table, of: str = "") -> None:
    """Rows with all that was said of them.

    Args:
        rows: Of `contradictions.CONTRADICTIONS`.
        of: Which version they are of.
    """
    for row in rows.to_pylist():
        said: Sequence[dict[str, Any]] = row["said"]
        repeats = sum(each["times"] for each in said)
        times = ", ".join(f"{each['label']} {each['times']} of {repeats}" for each in said)
        paragraph(f"{of}{row['file']} row {row['row']}: {times}", 0, "bold")
        paragraph(f"content: {row['content']}", 1)
        for each in said:
            p = "" if each["probability"] is None else f" (P {each['probability']:.2f})"
            why = each["rationale"] or "no rationale"
            paragraph(f"{each['label']}{p}, {each['decided_by'] or 'unknown'}: {why}", 1)


def _rows(policy: PolicyRepeatRecord) -> str:
    text = (
        f"{counted(policy.judged, 'row')} judged each time; {policy.not_judged:,} without a "
        f"verdict at least once, {policy.never_judged:,} of them never judged"
    )
    kept = f"; {counted(policy.kept, 'first verdict')} taken from before" if policy.kept else ""
    return text + kept


def _table() -> Table:
    return table_of(["verdicts differ"], ["rows", "in a million", "95% from", "to"])


def _add(table: Table, name: str, found: ContradictionRecord, repeats: int) -> None:
    """Two lines: of all verdicts on a content, and of any two of them."""
    for title, rows, figure in (
        (f"{name}, among {repeats}", f"{found.rows:,}", found.contents),
        (f"{name}, between 2", "", found.pairs),
    ):
        figures = ["-"] * 3
        if figure is not None:
            figures = [f"{number:,.0f}" for number in (figure.value, figure.low, figure.high)]
        table.add_row(title, rows, *figures)


def _floor(policy: PolicyRepeatRecord, seeds: Seeds) -> str:
    of = (
        "in a million contents, and in a million pairs of verdicts on one content; exact "
        f"intervals, of {counted(policy.contents, 'different content')}"
    )
    if policy.violates.pairs is None or seeds == "no_effect":
        return of
    floor = policy.violates.pairs
    return (
        f"{of}; the floor that a change must rise above: versions that are the same flip "
        f"{floor.value:,.0f} in a million, {floor.high:,.0f} at most"
    )
