"""What `eval` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moderay.cli.console import out, printable, show_table, table_of
from moderay.cli.row_text import paragraph
from moderay.core.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from moderay.tasks.evaluate.evaluation import Evaluation
    from moderay.tasks.evaluate.records import (
        AgreementRecord,
        CalibrationEffect,
        EstimateRecord,
        EvalRecord,
        FiguresRecord,
        PolicyEvalRecord,
    )

# Values of a column that are shown; all stand in eval.json.
MOST_VALUES = 12
# In the order in which people ask for them, with their names for people.
NAMES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "false_positive_rate": "false positive rate",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "Cohen's kappa",
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}


def show_evaluation(evaluation: Evaluation, record: EvalRecord, show: int) -> None:
    """Tables for each policy, and the worst rows in which labels and people differ."""
    for each in evaluation.policies:
        policy = each.policy
        figures = record.policies[policy.id]
        out.print(f"[bold]{policy.id}[/]: {_rows(figures)}", soft_wrap=True)
        if figures.note is not None:
            out.print(printable(figures.note), soft_wrap=True)
        show_table(_figures(figures.whole))
        if figures.calibration is not None:
            _show_calibration(figures.calibration)
        show_table(_confusion(figures))
        if figures.at_or_above:
            show_table(_sliced("at or above", figures.at_or_above))
        if len(figures.judges) > 1:
            show_table(_judges(figures))
        if figures.agreement is not None:
            show_table(_agreement(figures.agreement))
        for column, values in figures.slices.items():
            if len(values) > 1:
                show_table(_sliced(column, values))
        if figures.goal is not None:
            _show_goal(figures)
        _show_wrong(evaluation, policy.id, show)
    if len(evaluation.policies) > 1 and record.exact_rows:
        out.print("[bold]any of them[/]")
        show_table(_figures(record.flagged))
        out.print(
            f"every policy right: {record.exact_right:,} of {record.exact_rows:,} rows "
            f"({record.exact_right / record.exact_rows:.1%}); no published figure is of the same "
            "rows, so none compares",
            soft_wrap=True,
        )


def _rows(figures: PolicyEvalRecord) -> str:
    """How many rows, and what is not among the figures."""
    whole = figures.whole
    violating = whole.true_positives + whole.false_negatives + whole.not_judged_violating
    text = f"{counted(whole.rows, 'row')} with gold, {violating:,} of them violate"
    if missing := whole.not_judged_safe + whole.not_judged_violating:
        text += (
            f"; {missing:,} without a verdict ({whole.not_judged_violating:,} violate), which no "
            "figure counts"
        )
    if figures.unknown:
        text += f"; {figures.unknown:,} without gold"
    return text


def _figures(whole: FiguresRecord) -> Table:
    table = table_of(["figure"], ["value", "95% from", "to"], "interval")
    for name, title in NAMES.items():
        if (figure := whole.figures.get(name)) is not None:
            table.add_row(
                title, *map(_number, (figure.value, figure.low, figure.high)), figure.method
            )
    return table


def _show_calibration(effect: CalibrationEffect) -> None:
    """What reading P by a map changed, where it was not fitted."""
    table = table_of(["P is read by a map"], ["before", "after"])
    for title, figure in (("Brier", effect.brier), ("calibration error", effect.calibration_error)):
        ends = (
            (figure.before, figure.before_low, figure.before_high),
            (figure.after, figure.after_low, figure.after_high),
        )
        table.add_row(title, *[f"{at:.3f} ({low:.3f} to {high:.3f})" for at, low, high in ends])
    show_table(table)
    out.print(
        f"{effect.method}, fitted to {counted(effect.rows, 'content')} "
        f"({printable(effect.source)}), held out in turn here; the figures of P above are too good "
        "where these are the rows",
        soft_wrap=True,
    )


def _number(value: float) -> str:
    return f"{value:.3f}"


def _confusion(figures: PolicyEvalRecord) -> Table:
    """Labels that people named against those that were given; of sides where they named none."""
    if sum(map(sum, figures.confusion)):
        table = table_of(["gold"], [*map(printable, figures.labels), "not judged"])
        for label, counts in zip(figures.labels, figures.confusion, strict=True):
            table.add_row(printable(label), *[f"{count:,}" for count in counts])
        return table
    whole = figures.whole
    table = table_of(["gold"], ["judged safe", "judged violating", "not judged"])
    safe = (whole.true_negatives, whole.false_positives, whole.not_judged_safe)
    violates = (whole.false_negatives, whole.true_positives, whole.not_judged_violating)
    table.add_row("safe", *[f"{count:,}" for count in safe])
    table.add_row("violates", *[f"{count:,}" for count in violates])
    return table


def _sliced(column: str, values: Mapping[str, FiguresRecord]) -> Table:
    """A line for each value, with intervals: as much of it as 80 columns hold."""
    names = ("precision", "recall", "false_positive_rate")
    table = table_of([printable(column)], ["rows", "precision", "recall", "false pos."])
    for value, figures in list(values.items())[:MOST_VALUES]:
        shown = [_with_interval(figures.figures.get(name)) for name in names]
        table.add_row(printable(value), f"{figures.rows:,}", *shown)
    if len(values) > MOST_VALUES:
        table.add_row(f"({len(values) - MOST_VALUES:,} more)", *[""] * 4)
    return table


def _with_interval(figure: EstimateRecord | None) -> str:
    if figure is None:
        return "-"
    return f"{figure.value:.2f} {interval_text(figure.low, figure.high)}"


def interval_text(low: float, high: float) -> str:
    """Both ends, as short as they can be read."""
    return f"{_short(low)}-{_short(high)}"


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _judges(figures: PolicyEvalRecord) -> Table:
    """What each judge settled, and what it cost in recall."""
    table = table_of(["judge"], ["decided", "missed", "wrongly flagged", "recall lost (95%)"])
    for name, judge in figures.judges.items():
        lost = judge.recall_lost
        text = "-" if lost is None else f"{lost.value:.1%} ({lost.low:.1%} to {lost.high:.1%})"
        counts = (judge.decided, judge.missed, judge.wrongly_flagged)
        table.add_row(name, *[f"{count:,}" for count in counts], text)
    return table


def _agreement(agreement: AgreementRecord) -> Table:
    """The model beside each person, and people beside one another."""
    table = table_of(["agreement"], ["value", "95% from", "to"], "figure")
    lines = [
        *[(f"model and person {name}", each) for name, each in agreement.model.items()],
        *[(f"people {name}", each) for name, each in agreement.people.items()],
    ]
    for title, each in lines:
        table.add_row(title, *map(_number, (each.value, each.low, each.high)), "Cohen's kappa")
    if (alpha := agreement.alpha) is not None:
        ends = map(_number, (alpha.value, alpha.low, alpha.high))
        table.add_row("people", *ends, "Krippendorff's alpha")
    return table


def _show_goal(figures: PolicyEvalRecord) -> None:
    goal = figures.goal
    assert goal is not None
    wanted = f"{goal.goal} {goal.floor:g}"
    if not goal.threshold:
        but = " but 0, which flags everything," if goal.threshold == 0 else ""
        out.print(
            f"no threshold{but} reaches {wanted} on the {goal.chosen_on:,} rows where it was "
            "looked for",
            soft_wrap=True,
        )
        return
    tried = ", ".join(
        f"{name} {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
        for name, figure in goal.figures.items()
    )
    out.print(
        f"threshold {goal.threshold:g} for {wanted}, chosen on {goal.chosen_on:,} rows; on the "
        f"other {goal.tried_on:,}: {tried or 'nothing that tells'} (now {figures.threshold:g})",
        soft_wrap=True,
    )


def _show_wrong(evaluation: Evaluation, policy: str, show: int) -> None:
    """The worst rows, with why."""
    rows: list[dict[str, Any]] = [
        row for row in evaluation.disagreements.to_pylist() if row["policy"] == policy
    ]
    for row in rows[:show]:
        gold = row["gold_label"] or ("violates" if row["gold_violates"] else "safe")
        said = row["label"] or row["status"]
        p = "" if row["probability"] is None else f", P {row['probability']:.2f}"
        paragraph(f"{row['file']} row {row['row']}: gold {gold}, judged {said}{p}", 0, "bold")
        paragraph(row["content"] or "(no content)", 1)
        if row["rationale"]:
            paragraph(row["rationale"], 2)
