"""What an evaluation gives back: its record, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moderay.pipeline.outcome import Outcome
from moderay.tasks.evaluate.benchmark_records import BenchmarkRecord, SummaryRecord
from moderay.tasks.evaluate.evaluation import Evaluation
from moderay.tasks.evaluate.records import EvalRecord


@dataclass(frozen=True)
class Evaluated:
    """Labels beside what people said.

    Attributes:
        record: The figures, each with its interval: what `eval.json` holds.
        evaluation: The counts they are made of, and the worst disagreements.
        outcome: Of the run that labelled what was missing; None for golden sets.
        benchmark: Beside what others published; None where the job has no `benchmark:`.
    """

    record: EvalRecord
    evaluation: Evaluation
    outcome: Outcome | None = None
    benchmark: BenchmarkRecord | None = None


@dataclass(frozen=True)
class Summarised:
    """Several benchmarks beside the figures that others published.

    Attributes:
        record: The figures.
        evaluated: By name of the job, those whose set is there.
    """

    record: SummaryRecord
    evaluated: Mapping[str, Evaluated]

    @property
    def exit_status(self) -> int:
        """The process's: 1 where a set is not there, or rows were missed."""
        outcomes = [each.outcome for each in self.evaluated.values()]
        missed = any(outcome is not None and outcome.missed for outcome in outcomes)
        return int(missed or any(each.missing is not None for each in self.record.benchmarks))
