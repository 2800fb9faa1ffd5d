"""What Spark's driver sends to each task that judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moderay.config.job import Job
from moderay.config.policy import Policy
from moderay.engines.base import EngineSpec
from moderay.engines.from_job import engine_spec
from moderay.judges.build import fitted
from moderay.judges.cascade import Cascade
from moderay.tasks.embedded_job import job_cascades


@dataclass(frozen=True)
class Recipe:
    """A job, and what judges by it; picklable.

    Attributes:
        job: The job.
        cascades: The judges of each policy.
        on_cpu: The engine of a task that has no GPU.
        on_gpu: The engine of a task that has some.
        columns: The DataFrame's, in order: on the way they are called otherwise, since Spark takes
            a dot in a name for a field.
    """

    job: Job
    cascades: tuple[Cascade, ...]
    on_cpu: EngineSpec
    on_gpu: EngineSpec
    columns: tuple[str, ...]


def recipe(job: Job, policies: Sequence[Policy], columns: Sequence[str]) -> Recipe:
    """The recipe for a job.

    Raises:
        Problems: The model cannot be had; or rules, screens or bands are wrong.
        UserError: The job's engine is too short for its prompts.
    """
    cascades = job_cascades(job, policies)
    return Recipe(
        job,
        cascades,
        fitted(engine_spec(job, gpus=0), cascades),
        fitted(engine_spec(job, gpus=1), cascades),
        tuple(columns),
    )
