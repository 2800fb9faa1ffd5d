"""What a folder says of the filter that wrote it."""

from __future__ import annotations

from collections.abc import Iterator

from moderay.core.errors import Problem
from moderay.core.storage import plain_errors, read, shown
from moderay.labels.layout import Layout
from moderay.tasks.filter.records import FilterCard, RuleRecord


def read_card(layout: Layout) -> FilterCard | None:
    """What a finished filter says of itself, None where there is none."""
    path = card_path(layout)
    data = read(layout.fs, path)
    return None if data is None else FilterCard.from_json(data, shown(path))


def card_path(layout: Layout) -> str:
    """Of `filter.json`."""
    return f"{layout.root}/filter.json"


def other_rule(rule: RuleRecord, layout: Layout, in_place: bool | None) -> Iterator[Problem]:
    """That the folder holds what another rule made of the rows, or of a filter of another kind.

    Policies that only one of the two has are no difference: their labels are new then.

    Args:
        rule: This one.
        layout: Of the folder.
        in_place: Whether kept rows stay where they are; None where they go into another table,
            whose folder this is alone.
    """
    with plain_errors(layout.url):
        card = read_card(layout)
    if card is None:
        return
    if in_place is not None and in_place != (card.table is not None):
        there = "beside kept rows" if card.table is None else "of a table that was filtered"
        message = f"{shown(layout.url)} holds what was removed {there}"
        yield Problem("out", None, message, "write to another folder")
    elif differences := list(_differences(card.rule, rule)):
        message = f"{shown(layout.url)} was filtered by another rule: {', '.join(differences)}"
        hint = "--replace filters all of it anew; or write to another folder"
        yield Problem("out", None, message, hint)


def _differences(before: RuleRecord, now: RuleRecord) -> Iterator[str]:
    """What of an earlier rule is not so now."""
    if before.keep != now.keep:
        yield before.keep
    for policy, threshold in before.thresholds.items():
        if now.thresholds.get(policy, threshold) != threshold:
            yield f"threshold {policy}={threshold:g}"
    # Where all rows are selected, nothing is said of others.
    if None not in {before.unselected, now.unselected} and before.unselected != now.unselected:
        yield f"unselected rows {before.unselected}"
    if before.verdicts != now.verdicts:
        yield "with verdicts" if before.verdicts else "without verdicts"
