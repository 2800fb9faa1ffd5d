"""`filter.html`: what a filter did, to look at; made of `filter.json` alone."""

from __future__ import annotations

from moderay.core.wording import counted
from moderay.tasks.filter.records import FilterCard, Reasons
from moderay.tasks.pages.findings import Section, Table, findings_page
from moderay.tasks.pages.forms import percent

# Shards that are missing, or failed, which are named.
NAMED = 50


def filter_page(card: FilterCard) -> str:
    """The page's text."""
    rows = card.rows
    parts = [
        ("kept: the rule is true", rows.kept),
        ("removed: the rule is false", rows.removed),
        ("held: not judged, or not known", rows.held),
        ("not selected for judging", rows.unselected),
    ]
    sections = [
        Section(
            "rows",
            "Where the rows went",
            [f"The rule: {card.rule.keep}"],
            [
                Table(
                    f"Rows of {counted(card.shards, 'file')}",
                    [("", False), ("rows", True), ("share", True)],
                    [
                        *[(name, f"{n:,}", percent(n / rows.input if rows.input else None))
                          for name, n in parts],
                        ("in the input files", f"{rows.input:,}", "100%" if rows.input else "–"),
                    ],
                    total=True,
                )
            ],
        ),
        Section(
            "why",
            "Why",
            ["A row counts once for each policy under which it violates, or was not judged."],
            [
                _reasons("Removed rows", "label", card.removed),
                _reasons("Held rows", "status", card.held),
            ],
        ),
        Section(
            "policies",
            "Policies",
            tables=[
                Table(
                    "With the thresholds that counted here",
                    [("policy", False), ("title", False), ("version", True), ("threshold", True)],
                    [
                        (name, policy.title, str(policy.version), f"{policy.threshold:g}")
                        for name, policy in card.policies.items()
                    ],
                )
            ],
        ),
    ]  # fmt: skip
    if wrong := {**card.missing, **card.failed}:
        sections.append(
            Section(
                "missing",
                "What is not in here",
                [f"{counted(len(wrong), 'file')} could not be read, labelled or filtered."],
                [Table("Files, and why", [("file", False), ("why", False)],
                       list(wrong.items())[:NAMED])],
            )
        )  # fmt: skip
    return findings_page("moderay filter", f"{card.name}, filtered", card.labels, sections)


def _reasons(caption: str, by: str, reasons: Reasons) -> Table:
    rows = [
        (policy, reason or "none", f"{count:,}")
        for policy, counts in reasons.items()
        for reason, count in counts.items()
    ]
    return Table(caption, [("policy", False), (by, False), ("rows", True)], rows)
