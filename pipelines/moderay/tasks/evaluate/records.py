"""`eval.json`: the figures of an evaluation, for other programs."""

from __future__ import annotations

from typing import ClassVar, Literal

from moderay.core.calibration import Method
from moderay.core.records import Record, RecordPart
from moderay.judges.calibration import CalibratedFigure


class EstimateRecord(RecordPart):
    """A figure with its 95% interval."""

    value: float
    """The figure."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""
    method: Literal["exact", "approximate", "bootstrap"]
    """How the interval was made: exact ones cover with at least their confidence at any number of
    rows, the others nearly.
    """


class FiguresRecord(RecordPart):
    """Counts of rows, and figures of those that were judged."""

    rows: int
    """Of which people said something."""
    true_positives: int
    """Violations that were flagged."""
    false_positives: int
    """Safe rows that were flagged."""
    false_negatives: int
    """Violations that were judged safe."""
    true_negatives: int
    """Safe rows that were judged safe."""
    not_judged_safe: int
    """Safe rows without a verdict."""
    not_judged_violating: int
    """Violations without a verdict."""
    figures: dict[str, EstimateRecord]
    """By name; without those that are not defined, such as recall where nothing violates."""


class JudgeRecord(RecordPart):
    """What one judge of the cascade decided."""

    decided: int
    """Rows of which people said something."""
    missed: int
    """Violations among them that it called safe."""
    wrongly_flagged: int
    """Safe rows among them that it called violating."""
    recall_lost: EstimateRecord | None
    """Missed, as a share of all judged violations."""


class AgreementRecord(RecordPart):
    """The model beside several people, and people beside one another; people are counted from 1."""

    model: dict[str, EstimateRecord]
    """By person, Cohen's kappa of the model with this person."""
    people: dict[str, EstimateRecord]
    """By two people, such as 1-2, Cohen's kappa of these."""
    alpha: EstimateRecord | None
    """Krippendorff's alpha of the people."""


class GoalRecord(RecordPart):
    """The best threshold for a goal, chosen on one half of the contents, tried on the other."""

    goal: Literal["recall", "precision"]
    """What is to be reached."""
    floor: float
    """How much of it."""
    threshold: float | None
    """On P(violates); None where no threshold reaches it."""
    chosen_on: int
    """Rows of the half in which it was chosen."""
    tried_on: int
    """Rows of the other."""
    figures: dict[str, EstimateRecord]
    """Of the other half at this threshold."""


class CalibrationEffect(RecordPart):
    """What a map of P does, as its card says."""

    method: Method
    """platt or isotonic."""
    rows: int
    """Contents that it was fitted to."""
    source: str
    """Where these came from."""
    brier: CalibratedFigure
    """Before and after, on held-out contents."""
    calibration_error: CalibratedFigure
    """The same."""


class PolicyEvalRecord(RecordPart):
    """One policy's labels beside what people said."""

    version: int
    """The policy's."""
    threshold: float
    """On P(violates), under which these labels were decided."""
    labels: list[str]
    """In the policy's order, mildest first."""
    unknown: int
    """Rows of which people said nothing."""
    note: str | None = None
    """What figures speak of, where gold is reviews: of the rows that these were drawn from, or of
    those that were picked alone. Null where gold stands in the input.
    """
    whole: FiguresRecord
    """Of all rows of which people said something."""
    confusion: list[list[int]]
    """Where people named a label: a row for each of their labels, a column for each label that was
    given, and a last one for rows without a verdict.
    """
    at_or_above: dict[str, FiguresRecord]
    """By label: as if this label and those that follow it violated, and the others did not."""
    judges: dict[str, JudgeRecord]
    """By name, in order of cost."""
    slices: dict[str, dict[str, FiguresRecord]]
    """By column and its value."""
    agreement: AgreementRecord | None = None
    """Where several people said something of each row."""
    goal: GoalRecord | None = None
    """Where one was asked for."""
    calibration: CalibrationEffect | None = None
    """Where P of reason is read by a map: what that changed on contents that it was not fitted to.
    The figures of P above are too good where gold is what it was fitted to.
    """


class EvalRecord(Record):
    """Labels beside what people said."""

    remedy: ClassVar[str] = "evaluate again"

    schema_version: Literal[1] = 1
    name: str
    """Of the job, or of the model where there is none."""
    model: str
    """Who judged."""
    confidence: float = 0.95
    """Of the intervals."""
    policies: dict[str, PolicyEvalRecord]
    """By id."""
    flagged: FiguresRecord
    """Whether any policy is violated, of rows of which that is known."""
    exact_right: int
    """Rows on which every policy is on the right side."""
    exact_rows: int
    """Rows of which people said something under every policy."""
    score_bins: int
    """Bins of P(violates) in which rows are counted: what that may change is less than the last
    digit shown, or stands with the figure.
    """
