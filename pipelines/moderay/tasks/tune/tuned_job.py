"""A cascade that was tried, as a job has it; and whether a certificate holds for a job's."""

from __future__ import annotations

from typing import Any, cast

import yaml

from moderay.config.job import Effort, GlanceArgs, Job, ReasonArgs, ScreenArgs, Step
from moderay.config.policy import Policy
from moderay.core.errors import Problem, Problems
from moderay.engines.from_job import engine_spec
from moderay.judges.build import cascades
from moderay.judges.cascade import Cascade
from moderay.judges.screen import load_screen
from moderay.labels.cascade_differences import policy_differences
from moderay.labels.manifest_record import PolicyRecord
from moderay.pipeline.manifest import policy_record
from moderay.tasks.tune.columns import Shape
from moderay.tasks.tune.judging import with_cascade
from moderay.tasks.tune.records import TuneRecord
from moderay.tasks.tune.search import Candidate


def tuned(job: Job, shape: Shape) -> Job:
    """The job with this cascade: its own rules, screen and budget, and what the shape says."""
    steps = [step for step in job.cascade if step.rules is not None]
    if shape.cut_off is not None:
        screens = [step.screen for step in job.cascade if step.screen is not None]
        steps += [Step(screen=_with_cut_off(each, shape.cut_off)) for each in screens]
    if shape.band is not None:
        band = GlanceArgs(below=shape.band.below, above=shape.band.above)
        steps.append(Step(glance=band))
    if shape.reasons:
        own = [step for step in job.cascade if step.reason is not None]
        steps += own or [Step(reason=ReasonArgs())]
    return with_cascade(job, cast("Effort", shape.effort), steps)


def _with_cut_off(screen: ScreenArgs, cut_off: float) -> ScreenArgs:
    """The screen with this cut-off, which is not said where it is the card's."""
    is_own = load_screen(screen.path).card.cut_off == cut_off
    return screen.model_copy(update={"cut_off": None if is_own else cut_off})


def built(job: Job, policy: Policy) -> tuple[Cascade, list[Problem]]:
    """The cascade of a job's only policy, and what is wrong with it."""
    [made], problems = cascades(job, [policy], engine_spec(job, gpus=0))
    return made, problems


def certificate(job: Job, policy: Policy, chosen: Candidate) -> PolicyRecord:
    """What a certificate is of: the policy, its threshold, and the judges with their keys."""
    under = policy.model_copy(update={"threshold": chosen.threshold})
    made, problems = built(tuned(job, chosen.shape), under)
    if problems:
        raise Problems(problems)
    return policy_record(made)


def as_yaml(job: Job) -> str:
    """The keys of a job that say who judges, to paste."""
    data = {
        "model": {"effort": job.model.effort},
        "cascade": [_step(step) for step in job.cascade],
    }
    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return text


def _step(step: Step) -> Any:
    if step.rules is not None:
        return "rules"
    args: dict[str, Any] = step.model_dump(exclude_none=True)[step.judge]
    shown = {name: value for name, value in args.items() if value is not False}
    return {step.judge: shown} if shown else step.judge


def voided(record: TuneRecord, cascade: Cascade) -> list[str]:
    """What of a certificate does not hold for a cascade, a sentence each; none where it holds.

    Args:
        record: With a certificate.
        cascade: Of the same policy, as it would judge now.
    """
    there, here = record.certificate, policy_record(cascade)
    if there is None:
        return [f"{record.policy}: nothing was certified"]
    if there.cascade_key == here.cascade_key and there.threshold == here.threshold:
        return []
    return policy_differences(record.policy, there, here) or [
        f"{record.policy}: the judges' keys differ"
    ]
