"""`tune.html`: a search to look at: what recall costs, and what is certified."""

from __future__ import annotations

from moderay.tasks.pages import charts
from moderay.tasks.pages.findings import Section, Table, findings_page
from moderay.tasks.tune.records import CascadeRecord, CountsRecord, TuneRecord

_COLUMNS = [
    ("cascade", False), ("threshold", True), ("recall", True), ("precision", True),
    ("tokens a content", True),
]  # fmt: skip


def search_page(record: TuneRecord) -> str:
    """The page's text."""
    goal = record.goal
    asked = (
        f"Asked for: recall {goal.recall:g} and precision {goal.precision:g}, each at confidence "
        f"{goal.confidence:g}."
    )
    sections = [
        Section("result", "Result", [asked, _result(record)], [_parts(record)]),
        Section(
            "frontier",
            "What recall costs",
            [f"{record.tried:,} cascades were tried on the select part; the cheapest for each "
             "recall are here. They were chosen on it, and look better there than they are."],
            [Table("The cheapest for each recall", _COLUMNS,
                   [_row(each, each.select) for each in (*record.frontier, record.own)])],
            curves=_curves(record),
        ),
        Section(
            "certified",
            "Tested on the certify part",
            tables=[Table(
                "In the order that was fixed before, up to the first that failed",
                [*_COLUMNS, ("recall at least", True), ("precision at least", True), ("", False)],
                [
                    (*_row(each.cascade, each.certify), f"{each.recall_at_least:.3f}",
                     f"{each.precision_at_least:.3f}", "passed" if each.passed else "failed")
                    for each in record.tested
                ],
            )],
        ),
    ]  # fmt: skip
    return findings_page("moderay tune", record.policy, record.model, sections)


def _result(record: TuneRecord) -> str:
    if record.chosen is None:
        return "No cascade is certified: the job's own stays."
    tokens = record.tested[record.chosen].certify.tokens
    return (
        f"Certified: {_named(record.tested[record.chosen].cascade)}, {tokens:,.0f} tokens a "
        f"content where the job's own takes {record.own_tokens:,.0f}."
    )


def _parts(record: TuneRecord) -> Table:
    rows = [
        (name, f"{part.contents:,}", f"{part.violations:,}") for name, part in record.parts.items()
    ]
    return Table(
        f"Distinct contents: {record.source}",
        [("part", False), ("contents", True), ("violate", True)],
        rows,
    )


def _curves(record: TuneRecord) -> list[tuple[str, charts.Curve]]:
    shown = [*record.frontier, record.own]
    most = max([each.select.tokens for each in shown] + [1.0])
    points = sorted((each.select.tokens, _recall(each.select)) for each in record.frontier)
    marked = [(x, y, f"{x:,.0f} tokens, recall {y:.3f}") for x, y in points]
    own = record.own.select
    marked.append((own.tokens, _recall(own), "the job's own"))
    curve = charts.curve(
        points, "tokens computed for a content", "recall", marked=marked, most=most,
        reference=[(0.0, record.goal.recall), (most, record.goal.recall)],
    )  # fmt: skip
    return [("Recall against tokens a content; the dashed line is the recall asked for.", curve)]


def _recall(counts: CountsRecord) -> float:
    return counts.hits / max(1, counts.violations)


def _row(each: CascadeRecord, counts: CountsRecord) -> tuple[str, ...]:
    precision = f"{counts.hits / counts.flagged:.3f}" if counts.flagged else "–"
    return (
        _named(each),
        f"{each.threshold:g}",
        f"{_recall(counts):.3f}",
        precision,
        f"{counts.tokens:,.1f}",
    )


def _named(each: CascadeRecord) -> str:
    judges = ["screen"] if each.cut_off is not None else []
    if each.glance:
        judges.append("glance" + ("" if each.below is None else f" below {each.below:.3g}"))
    if each.reason:
        judges.append("reason")
    return f"{', '.join(judges)} ({each.effort})"
