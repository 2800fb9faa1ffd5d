"""A comparison to look at: what flipped, how sure that is, and the rows to look at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moderay.core.wording import counted
from moderay.tasks.diff.records import PolicyDiffRecord
from moderay.tasks.diff.result import Comparison
from moderay.tasks.pages.findings import Look, Section, Table, findings_page
from moderay.tasks.pages.forms import percent


def comparison_page(found: Comparison, columns: Sequence[str]) -> str:
    """The page's text.

    Args:
        found: The comparison.
        columns: Of the input, that are shown of rows; the first is their content.
    """
    record = found.record
    between = record.differences or ["nothing that is known"]
    first = Section(
        "what",
        "What is compared",
        [
            f"a: {record.a}",
            f"b: {record.b}",
            f"{counted(record.rows, 'row')} that both hold.",
            "Between their policies and judges differs: " + "; ".join(between) + ".",
        ],
    )
    sections = [
        Section(
            f"policy-{name}",
            name,
            [_test(policy)],
            list(_tables(name, policy)),
            looks=[_look(row, columns) for row in found.largest[name].to_pylist()]
            if name in found.largest
            else [],
        )
        for name, policy in record.policies.items()
    ]
    return findings_page(
        "moderay diff", "Two versions beside each other", f"{record.a} → {record.b}",
        [first, *sections],
    )  # fmt: skip


def _test(policy: PolicyDiffRecord) -> str:
    flips = policy.to_violating + policy.to_safe
    share = percent(flips / policy.judged if policy.judged else None)
    return (
        f"{counted(flips, 'flip')} in {counted(policy.judged, 'row')} that both judged ({share}); "
        f"McNemar's exact test of the directions: p = {policy.p_value:.3g}."
    )


def _tables(name: str, policy: PolicyDiffRecord) -> Iterator[Table]:
    rows = [
        ("safe in a, violating in b", policy.to_violating),
        ("violating in a, safe in b", policy.to_safe),
        ("not judged in a alone", policy.not_judged_a),
        ("not judged in b alone", policy.not_judged_b),
        ("not judged in either", policy.not_judged_both),
        ("violating in a", policy.violating_a),
        ("violating in b", policy.violating_b),
    ]
    yield Table(
        f"Rows, {name}", [("", False), ("rows", True)], [(text, f"{n:,}") for text, n in rows]
    )
    if policy.per_million:
        yield Table(
            f"In a million different contents, {name}",
            [("", False), ("flips", True), ("95% interval", True)],
            [
                (
                    key.replace("_", " "),
                    f"{each.value:,.0f}",
                    f"{each.low:,.0f} to {each.high:,.0f}",
                )
                for key, each in policy.per_million.items()
            ],
        )
    if policy.labels:
        yield Table(
            f"Labels, {name}",
            [("in a", False), ("in b", False), ("rows", True)],
            [(flip.a, flip.b, f"{flip.rows:,}") for flip in policy.labels],
        )
    if policy.gold is not None and policy.gold.figures:
        yield Table(
            f"Beside what people said of {policy.gold.contents:,} contents, {name}",
            [("", False), ("a", True), ("b", True), ("b − a", True), ("95% interval", True)],
            [
                (
                    key.replace("_", " "),
                    f"{each.a:.3f}",
                    f"{each.b:.3f}",
                    f"{each.gained.value:+.3f}",
                    f"{each.gained.low:+.3f} to {each.gained.high:+.3f}",
                )
                for key, each in policy.gold.figures.items()
            ],
        )


def _look(row: Mapping[str, Any], columns: Sequence[str]) -> Look:
    content = _text(row[columns[0]]) if columns else None
    lines = [(name, _text(row[name])) for name in columns[1:]]
    lines += [
        (f"{side}, {row[f'decided_by_{side}'] or 'unknown'}", row[f"rationale_{side}"])
        for side in "ab"
        if row[f"rationale_{side}"]
    ]
    return Look(
        title=f"{_said(row, 'a')} → {_said(row, 'b')}",
        policy=row["policy"],
        tags=[],
        content=content,
        lines=lines,
        folded=[],
        where=f"{row['file']} row {row['row']}",
    )


def _said(row: Mapping[str, Any], side: str) -> str:
    label, p = row[f"label_{side}"], row[f"probability_{side}"]
    return f"{label}" if p is None else f"{label} (P {p:.3f})"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
