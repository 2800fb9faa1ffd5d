"""An evaluation's counts as figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moderay.config.policy import Policy
from moderay.judges.calibration import CalibrationCard
from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.metrics.agreement import agreement
from moderay.labels.analysis.metrics.confusion import Binary, Confusion
from moderay.labels.analysis.metrics.estimate import Estimate, estimates
from moderay.labels.analysis.metrics.score_estimates import score_estimates
from moderay.labels.analysis.metrics.scores import BINS
from moderay.labels.analysis.metrics.weighted import weighted_estimates
from moderay.tasks.evaluate.evaluation import Evaluation, PolicyEvaluation, Votes
from moderay.tasks.evaluate.goal import Goal
from moderay.tasks.evaluate.judged import JUDGES
from moderay.tasks.evaluate.records import (
    AgreementRecord,
    CalibrationEffect,
    EstimateRecord,
    EvalRecord,
    FiguresRecord,
    GoalRecord,
    JudgeRecord,
    PolicyEvalRecord,
)
from moderay.tasks.evaluate.tally import Tally, binary_of

CONFIDENCE = 0.95


def eval_record(evaluation: Evaluation, name: str, model: str, goal: Goal | None) -> EvalRecord:
    """The figures of an evaluation.

    Args:
        evaluation: The counts.
        name: Of the job.
        model: Who judged.
        goal: For which thresholds are looked for.
    """
    right, rows = evaluation.exact
    return EvalRecord(
        name=name,
        model=model,
        confidence=CONFIDENCE,
        policies={each.policy.id: _policy(each, goal) for each in evaluation.policies},
        flagged=_of_sides(
            evaluation.flagged, all(each.whole.weighted is None for each in evaluation.policies)
        ),
        exact_right=right,
        exact_rows=rows,
        score_bins=BINS,
    )


def _policy(each: PolicyEvaluation, goal: Goal | None) -> PolicyEvalRecord:
    whole, policy = each.whole, each.policy
    return PolicyEvalRecord(
        version=policy.version,
        threshold=policy.threshold,
        labels=list(policy.labels),
        unknown=whole.unknown,
        note=each.note,
        whole=figures_record(whole),
        confusion=whole.labels.tolist(),
        at_or_above=_at_or_above(whole, policy),
        judges=_judges(whole),
        slices={
            column: {value: figures_record(tally) for value, tally in values.items()}
            for column, values in each.slices.items()
        },
        agreement=None if each.votes is None else _agreement(each.votes),
        goal=None if goal is None else _goal(whole, goal),
        calibration=None if each.calibration is None else _effect(each.calibration),
    )


def _effect(card: CalibrationCard) -> CalibrationEffect:
    return CalibrationEffect(
        method=card.method,
        rows=card.rows,
        source=card.teacher.source,
        brier=card.brier,
        calibration_error=card.calibration_error,
    )


def figures_record(tally: Tally) -> FiguresRecord:
    """The figures of a tally; those of P(violates) where it has histograms."""
    of_scores = score_estimates(tally.scores, CONFIDENCE)
    of_table = (
        estimates(tally.binary, CONFIDENCE)
        if tally.weighted is None
        else weighted_estimates(tally.weighted, CONFIDENCE)
    )
    found = _known(of_table) | _known(of_scores)
    return _figures(tally.binary, tally.not_judged, found)


def _of_sides(sides: np.ndarray, each_counts_once: bool) -> FiguresRecord:
    """Without figures where rows stand for others, under each policy for as many as they do."""
    binary = binary_of(sides)
    found = _known(estimates(binary, CONFIDENCE)) if each_counts_once else {}
    return _figures(binary, (int(sides[0, 2]), int(sides[1, 2])), found)


def _figures(
    binary: Binary, not_judged: tuple[int, int], found: dict[str, EstimateRecord]
) -> FiguresRecord:
    return FiguresRecord(
        rows=int(binary.rows) + sum(not_judged),
        true_positives=int(binary.tp),
        false_positives=int(binary.fp),
        false_negatives=int(binary.fn),
        true_negatives=int(binary.tn),
        not_judged_safe=not_judged[0],
        not_judged_violating=not_judged[1],
        figures=found,
    )


def _estimate(found: Estimate) -> EstimateRecord:
    return EstimateRecord(value=found.value, low=found.low, high=found.high, method=found.method)


def _at_or_above(whole: Tally, policy: Policy) -> dict[str, FiguresRecord]:
    """Figures of graded labels at each cut.

    None where a policy has two, where people named none, and where rows stand for others.
    """
    names = policy.label_names
    if len(names) < 3 or not whole.labels.sum() or whole.weighted is not None:
        return {}
    judged = Confusion(names, whole.labels[:, :-1])
    not_judged = whole.labels[:, -1]
    return {
        name: _figures(
            judged.at(name),
            (int(not_judged[:cut].sum()), int(not_judged[cut:].sum())),
            _known(estimates(judged.at(name), CONFIDENCE)),
        )
        for cut, name in enumerate(names)
        if cut
    }


def _judges(whole: Tally) -> dict[str, JudgeRecord]:
    # What each one costs in recall is known where every row counts once.
    violations = int(whole.judges[:, 1, :].sum()) if whole.weighted is None else 0
    return {
        name: _judge(whole.of_judge(number), violations)
        for number, name in enumerate(JUDGES)
        if whole.judges[number].any()
    }


def _judge(binary: Binary, violations: int) -> JudgeRecord:
    missed = int(binary.fn)
    lost = None
    if violations:
        low, high = interval(missed, violations, CONFIDENCE)
        lost = EstimateRecord(value=missed / violations, low=low, high=high, method="exact")
    return JudgeRecord(
        decided=int(binary.rows),
        missed=missed,
        wrongly_flagged=int(binary.fp),
        recall_lost=lost,
    )


def _agreement(votes: Votes) -> AgreementRecord:
    found = agreement(votes.people, votes.said, ("safe", "violates"), CONFIDENCE)
    model = {str(person + 1): each for person, each in found.model.items()}
    people = {f"{one + 1}-{other + 1}": each for (one, other), each in found.people.items()}
    return AgreementRecord(
        model=_known(model),
        people=_known(people),
        alpha=None if found.alpha is None else _estimate(found.alpha),
    )


def _known(found: Mapping[Any, Estimate | None]) -> dict[str, EstimateRecord]:
    return {name: _estimate(each) for name, each in found.items() if each is not None}


def _goal(whole: Tally, goal: Goal) -> GoalRecord:
    chosen, tried = whole.halves
    threshold = chosen.best_threshold(goal.figure, goal.floor)
    known = threshold is not None and whole.weighted is None
    found = estimates(tried.at(threshold or 0.0), CONFIDENCE) if known else {}
    shown = {"recall": found.get("recall"), "precision": found.get("precision")}
    return GoalRecord(
        goal=goal.figure,
        floor=goal.floor,
        threshold=threshold,
        chosen_on=int(chosen.rows),
        tried_on=int(tried.rows),
        figures=_known(shown),
    )
