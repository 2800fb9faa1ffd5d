"""What `diff` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from moderay.cli.console import out, printable, show_table, table_of
from moderay.cli.eval_table import NAMES
from moderay.cli.repeat_table import SURE, show_contradictions, show_floor, show_test
from moderay.cli.row_text import paragraph
from moderay.core.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

    from moderay.tasks.diff.records import DiffRecord, GoldDiff, LeftOut, PolicyDiffRecord
    from moderay.tasks.diff.result import Comparison

# Pairs of labels that are shown; all stand in what --json prints.
MOST_LABELS = 12
FLIPS = {"to_violating": "now violates", "to_safe": "now safe", "flipped": "flipped in all"}


def show_comparison(found: Comparison, columns: Sequence[str]) -> None:
    """What differs between the two, then a table and some flips of each policy."""
    record = found.record
    for line in _head(record):
        paragraph(line, 0)
    for difference in record.differences:
        paragraph(difference, 1)
    if left_out := ", ".join(_left_out(record.left_out)):
        paragraph(f"not compared: {left_out}", 0)
    for name, policy in record.policies.items():
        out.print()
        paragraph(f"{name}: {_rows(policy)}", 0)
        if policy.floor is not None:
            show_floor(policy.floor)
        show_table(_flips(policy))
        if policy.floor is not None:
            show_test(policy.floor)
        paragraph(_test(policy), 0)
        if policy.gold is not None:
            _show_gold(policy.gold)
        if policy.labels:
            show_table(_labels(policy))
        _show_rows(found.largest[name], columns)
    for side, rows in found.contradictions.items():
        show_contradictions(rows, f"{side} alone, ")


def _head(record: DiffRecord) -> Iterator[str]:
    """Which two, and how they differ by design."""
    yield f"a: {record.a}"
    yield f"b: {record.b}"
    if not record.judges_known:
        yield "who judged is not known: one of them has no manifest"
    elif record.only_thresholds:
        yield "the judges are the same, and a threshold alone is another one:"
    elif record.differences:
        yield "what differs, and was otherwise in a:"
    else:
        yield "policies, judges and thresholds are the same: flips are chance, or another engine's"


def _left_out(left_out: LeftOut) -> Iterator[str]:
    for side, shards, rows, policies in (
        ("a", left_out.shards_a, left_out.rows_a, left_out.policies_a),
        ("b", left_out.shards_b, left_out.rows_b, left_out.policies_b),
    ):
        if policies:
            noun = "policy" if len(policies) == 1 else "policies"
            yield f"{noun} {', '.join(policies)} only in {side}"
        if shards:
            yield f"{counted(shards, 'shard')} only in {side}"
        if rows:
            yield f"{counted(rows, 'row')} only in {side}"
    if left_out.other_content:
        yield f"{counted(left_out.other_content, 'row')} of another content"


def _rows(policy: PolicyDiffRecord) -> str:
    """How many rows are compared, and which cannot be."""
    return (
        f"{counted(policy.judged, 'row')} judged in both, {policy.violating_a:,} violate in a and "
        f"{policy.violating_b:,} in b; without a verdict {policy.not_judged_a:,} in a alone, "
        f"{policy.not_judged_b:,} in b alone, {policy.not_judged_both:,} in both"
    )


def _flips(policy: PolicyDiffRecord) -> Table:
    table = table_of([""], ["rows", "in a million", "95% from", "to"])
    rows = {"to_violating": policy.to_violating, "to_safe": policy.to_safe}
    rows["flipped"] = sum(rows.values())
    for name, title in FLIPS.items():
        figures = ["-"] * 3
        if (figure := policy.per_million.get(name)) is not None:  # type: ignore[call-overload]
            figures = [f"{number:,.0f}" for number in (figure.value, figure.low, figure.high)]
        table.add_row(title, f"{rows[name]:,}", *figures)
    return table


def _test(policy: PolicyDiffRecord) -> str:
    """McNemar's test, in words."""
    means = (
        "one direction is commoner than chance makes it"
        if policy.p_value < SURE
        else "the directions differ by no more than chance may make"
    )
    of = "different contents" if policy.contents < policy.judged else "rows"
    return (
        f"McNemar's exact test: p = {policy.p_value:.3g}, {means}; it and the figures a million "
        f"are of {policy.contents:,} {of}"
    )


def _show_gold(gold: GoldDiff) -> None:
    """Which of the two is better, and how sure that is."""
    table = table_of(["beside gold"], ["a", "b", "b - a", "95% from", "to"])
    for name, figure in gold.figures.items():
        gained = (figure.gained.value, figure.gained.low, figure.gained.high)
        numbers = [f"{figure.a:.3f}", f"{figure.b:.3f}", *[f"{each:+.3f}" for each in gained]]
        table.add_row(NAMES[name], *numbers)
    if gold.figures:
        show_table(table)
    better = "neither" if gold.right_a == gold.right_b else "ab"[gold.right_b > gold.right_a]
    sure = "more than" if gold.p_value < SURE else "no more than"
    paragraph(
        f"of {counted(gold.contents, 'content')} with gold a alone is right on {gold.right_a:,} "
        f"and b alone on {gold.right_b:,}: {better} is better, by {sure} chance makes "
        f"(p = {gold.p_value:.3g}); the intervals are a paired bootstrap's",
        0,
    )


def _labels(policy: PolicyDiffRecord) -> Table:
    table = table_of(["label in a", "label in b"], ["rows", "of all judged"])
    for flip in policy.labels[:MOST_LABELS]:
        share = f"{flip.rows / policy.judged:.2%}"
        table.add_row(printable(flip.a), printable(flip.b), f"{flip.rows:,}", share)
    if (more := len(policy.labels) - MOST_LABELS) > 0:
        rest = sum(flip.rows for flip in policy.labels[MOST_LABELS:])
        table.add_row(f"({more:,} more)", "", f"{rest:,}", f"{rest / policy.judged:.2%}")
    return table


def _show_rows(flips: pa.Table, columns: Sequence[str]) -> None:
    """Rows with what both outputs say of them."""
    for row in flips.to_pylist():
        before, now = (_said(row, side) for side in "ab")
        paragraph(f"{row['file']} row {row['row']}: {before} -> {now}", 0, "bold")
        for name in columns:
            paragraph(f"{name}: {_text(row[name])}", 1)
        for side in "ab":
            why = row[f"rationale_{side}"] or "no rationale"
            paragraph(f"{side}, {row[f'decided_by_{side}'] or 'unknown'}: {why}", 1)


def _said(row: dict[str, Any], side: str) -> str:
    label, p = row[f"label_{side}"], row[f"probability_{side}"]
    return f"{label}" if p is None else f"{label} (P {p:.2f})"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "nothing" if value is None else str(value)
