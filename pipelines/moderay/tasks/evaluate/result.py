"""What an evaluation gives back: its record, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from moderay.pipeline.flow import Outcome
from moderay.tasks.evaluate.evaluation import Evaluation
from moderay.tasks.evaluate.records import EvalRecord


@dataclass(frozen=True)
class Evaluated:
    """Labels beside what people said.

    Attributes:
        record: The figures, each with its interval: what `eval.json` holds.
        evaluation: The counts they are made of, and the worst disagreements.
        outcome: Of the run that labelled what was missing; None for golden sets.
    """

    record: EvalRecord
    evaluation: Evaluation
    outcome: Outcome | None = None
