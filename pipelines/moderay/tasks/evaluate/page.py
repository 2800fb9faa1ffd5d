"""`eval.html`: an evaluation to look at, with a threshold that can be moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from moderay.core.wording import counted, titled
from moderay.labels.shard_profile import BINS
from moderay.tasks.evaluate.evaluation import Evaluation, PolicyEvaluation
from moderay.tasks.evaluate.records import (
    EstimateRecord,
    EvalRecord,
    FiguresRecord,
    PolicyEvalRecord,
)
from moderay.tasks.pages import charts
from moderay.tasks.pages.findings import Look, Movable, Section, Table, findings_page
from moderay.tasks.report.policies import BARS

NUMBERS = [("", False), ("value", True), ("95% interval", True)]
# Points of a curve that a page draws.
POINTS = 400


def evaluation_page(evaluation: Evaluation, record: EvalRecord) -> str:
    """The page's text."""
    sections = [_policy(each, record.policies[each.policy.id]) for each in evaluation.policies]
    looks = [_look(row) for row in evaluation.disagreements.to_pylist()]
    worst = Section(
        "disagreements",
        "Where they differ",
        [
            f"{counted(len(looks), 'row')} in which labels and people differ, the worst first."
            if looks
            else "Labels and people nowhere differ in the rows that were kept to look at."
        ],
        looks=looks,
    )
    return findings_page("moderay eval", record.name, record.model, [*sections, worst])


def _policy(each: PolicyEvaluation, record: PolicyEvalRecord) -> Section:
    policy, whole = each.policy, record.whole
    counts = [
        ("violates, flagged", whole.true_positives),
        ("safe, flagged", whole.false_positives),
        ("violates, judged safe", whole.false_negatives),
        ("safe, judged safe", whole.true_negatives),
        ("violates, not judged", whole.not_judged_violating),
        ("safe, not judged", whole.not_judged_safe),
    ]
    rows = [(name, f"{count:,}") for name, count in counts]
    rows.append(("rows of which people said something", f"{whole.rows:,}"))
    tables = [
        Table(f"What people said, and what the labels say, {policy.id}",
              [("", False), ("rows", True)], rows, total=True),
        Table(f"Figures at threshold {policy.threshold:g}, {policy.id}", NUMBERS,
              list(figure_rows(whole.figures))),
    ]  # fmt: skip
    for column, values in record.slices.items():
        tables.append(
            Table(
                f"By {column}, {policy.id}",
                [(column, False), ("rows", True), ("recall", True), ("precision", True)],
                [
                    (value, f"{found.rows:,}", *map(_with_interval, _wanted(found)))
                    for value, found in values.items()
                ],
            )
        )
    return Section(
        f"policy-{policy.id}",
        policy.title or policy.id,
        tables=tables,
        movable=_movable(each) if each.whole.scores.rows else None,
        curves=list(_curves(each)) if each.whole.scores.rows else [],
    )


def figure_rows(figures: Mapping[str, EstimateRecord]) -> Iterator[tuple[str, str, str]]:
    """Name, value and interval of each."""
    for name, figure in figures.items():
        yield (
            name.replace("_", " "),
            f"{figure.value:.3f}",
            f"{figure.low:.3f} to {figure.high:.3f}",
        )


def _wanted(found: FiguresRecord) -> tuple[EstimateRecord | None, EstimateRecord | None]:
    return found.figures.get("recall"), found.figures.get("precision")


def _with_interval(figure: EstimateRecord | None) -> str:
    if figure is None:
        return "–"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _movable(each: PolicyEvaluation) -> Movable:
    """The rows with gold and P; where they stand for others, so many as they stand for."""
    policy, scores = each.policy, each.whole.scores
    safe, violating = scores.counts(BINS)
    both = safe + violating
    now = scores.at(round(policy.threshold, 4))
    slider = {
        "policy": policy.id,
        "threshold": policy.threshold,
        "flagged": now.tp + now.fp,
        "ok": float(both.sum()),
        "fixed": 0,
        "bins": _listed(both),
        "lowest": 1,
        "known": {"violating": _listed(violating), "safe": _listed(safe)},
    }
    return Movable(
        charts.histogram(both.reshape(BARS, -1).sum(axis=1).tolist(), policy.threshold),
        f"{both.sum():,.0f} rows with gold and P(violates), on a logarithmic axis.",
        slider,
        "Chosen on these rows, a threshold looks better on them than it is: try it on others.",
    )


def _listed(bins: np.ndarray) -> list[list[float]]:
    return [[int(number), float(bins[number])] for number in np.flatnonzero(bins)]


def _curves(each: PolicyEvaluation) -> Iterator[tuple[str, charts.Curve]]:
    policy, scores = each.policy, each.whole.scores
    curve, now = scores.curve, scores.at(round(policy.threshold, 4))
    if scores.weight[1].sum():
        step = max(1, len(curve.recall) // POINTS)
        points = list(zip(curve.recall[::step], curve.precision[::step], strict=True))
        marked = []
        if now.recall is not None and now.precision is not None:
            text = (
                f"at {policy.threshold:g}: recall {now.recall:.3f}, precision {now.precision:.3f}"
            )
            marked = [(now.recall, now.precision, text)]
        yield (
            f"Precision against recall, {policy.id}; the dot: threshold {policy.threshold:g}.",
            charts.curve(points, "recall", "precision", marked=marked),
        )
    points = list(zip(scores.reliability.probability, scores.reliability.violating, strict=True))
    marked = [
        (p, share, f"P {p:.3f}: {share:.3f} of {rows:,.0f} rows violate")
        for p, share, rows in zip(*scores.reliability, strict=True)
    ]
    yield (
        f"How P is calibrated, {policy.id}: the share that violates against the mean P; on the "
        "dashed line they are the same.",
        charts.curve(points, "mean P(violates)", "violates", marked=marked,
                     reference=[(0.0, 0.0), (1.0, 1.0)]),
    )  # fmt: skip


def _look(row: Mapping[str, Any]) -> Look:
    p = row["probability"]
    gold = "violates" if row["gold_violates"] else "safe"
    said = row["label"] or row["status"]
    return Look(
        title=f"people: {titled(gold, row['gold_label'])}; labels: {said}"
        + ("" if p is None else f" (P {p:.3f})"),
        policy=row["policy"],
        tags=[row["decided_by"]] if row["decided_by"] else [],
        content=row["content"],
        lines=[("Rationale", row["rationale"])] if row["rationale"] else [],
        folded=[("Reasoning of the model", row["reasoning"])] if row["reasoning"] else [],
        where=f"{row['file']} row {row['row']}",
    )
