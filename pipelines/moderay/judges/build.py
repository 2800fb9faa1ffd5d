"""A job's cascades: for each policy its judges, and everything wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from moderay.config.job import Job
from moderay.config.policy import Policy
from moderay.core.errors import Problem, Problems, UserError
from moderay.engines.base import EngineSpec
from moderay.engines.remote import RemoteSpec
from moderay.engines.vllm.engine import VllmSpec
from moderay.judges.cards import BandCard, Teacher
from moderay.judges.cascade import Cascade, ColumnJudge, EngineJudge, policy_key
from moderay.judges.glance import Band, Glance, load_band
from moderay.judges.reason import Reason
from moderay.judges.rules import Rules
from moderay.judges.rules_file import load_rules
from moderay.judges.safeguard import Safeguard
from moderay.judges.screen import Screen, load_screen


def fitted(spec: EngineSpec, cascades: Sequence[Cascade]) -> EngineSpec:
    """The engine, long enough for every judge's longest prompt. Raises `UserError` where the job
    asks for a shorter one.
    """
    needed = max(cascade.max_model_len for cascade in cascades)
    if isinstance(spec, RemoteSpec):
        return replace(spec, max_model_len=needed)
    if not isinstance(spec, VllmSpec):
        return spec
    engine = dict(spec.engine)
    given = engine.pop("max_model_len", needed)
    if given < needed:
        raise UserError(
            f"model.engine.max_model_len is {given}, but policies, windows and budget need "
            f"{needed}: raise it or lower windows.tokens"
        )
    return replace(spec, max_model_len=given, engine=engine)


def cascades(
    job: Job, policies: Sequence[Policy], spec: EngineSpec
) -> tuple[tuple[Cascade, ...], list[Problem]]:
    """The job's cascade for each policy, and everything wrong with its rules, screens and bands."""
    calibrated, problems = _calibrated(job, policies)
    problems += _without_probabilities(job)
    found = []
    for policy, folder in zip(policies, job.policies, strict=True):
        model, in_words = dict(spec.identity()), isinstance(spec, RemoteSpec)
        safeguard = Safeguard(
            policy,
            model,
            spec.vocabulary_source,
            job.model.effort,
            job.windows,
            job.limits.request_s,
            in_words,
        )
        steps = [
            _step(job, number, policy, folder, safeguard, calibrated.get(number), problems)
            for number in range(len(job.cascade))
        ]
        cascade = Cascade(
            policy,
            tuple(judge for judge in steps if isinstance(judge, Rules | Screen)),
            tuple(judge for judge in steps if isinstance(judge, Glance | Reason)),
            job.audit,
        )
        problems += _promises(job, cascade, calibrated)
        found.append(cascade)
    return tuple(found), list(dict.fromkeys(problems))


def _calibrated(
    job: Job, policies: Sequence[Policy]
) -> tuple[dict[int, Screen | BandCard], list[Problem]]:
    """What `calibrate` made, by the number of its step; each for one of the policies, and not two
    for the same.
    """
    found: dict[int, Screen | BandCard] = {}
    problems: list[Problem] = []
    for number, step in enumerate(job.cascade):
        args = step.screen or step.glance
        if args is None or args.path is None:
            continue
        key = f"cascade.{number}"
        try:
            made = load_screen(args.path) if step.screen else load_band(args.path)
        except Problems as error:
            problems += [
                job.problem(key, f"{step.judge} {args.path}: {problem.message}", problem.hint)
                for problem in error.problems
            ]
            continue
        policy = _teacher(made).policy
        if policy not in {policy.id for policy in policies}:
            problems.append(
                job.problem(
                    key,
                    f"{step.judge} {args.path} is for policy {policy!r}, which this job has not",
                    "leave it out, or name the policy",
                )
            )
        if any(
            _teacher(other).policy == policy and job.cascade[at].judge == step.judge
            for at, other in found.items()
        ):
            problems.append(
                job.problem(
                    key,
                    f"two steps {step.judge} are for policy {policy!r}",
                    "leave one of them out",
                )
            )
        found[number] = made
    return found, problems


def _teacher(made: Screen | BandCard) -> Teacher:
    return made.card.teacher if isinstance(made, Screen) else made.teacher


def _step(
    job: Job,
    number: int,
    policy: Policy,
    folder: str,
    safeguard: Safeguard,
    made: Screen | BandCard | None,
    problems: list[Problem],
) -> ColumnJudge | EngineJudge | None:
    """A step's judge for this policy; None where it has none. What is wrong with its rules is added
    to `problems`.
    """
    step = job.cascade[number]
    if step.reason is not None:
        return Reason(safeguard, job.model.sampling, step.reason.budget)
    if made is not None and _teacher(made).policy != policy.id:
        return None
    if isinstance(made, Screen):
        return made
    if made is not None:
        return Glance(safeguard, Band(below=made.below), made)
    if step.glance is not None and step.glance.path is None:
        return Glance(safeguard, Band(step.glance.below, step.glance.above))
    if step.rules is not None:
        try:
            return load_rules(policy, folder)
        except Problems as error:
            problems += error.problems
    return None


def _without_probabilities(job: Job) -> Iterator[Problem]:
    """Bands on an endpoint that gives no probabilities: glance would settle nothing."""
    if job.model.endpoint is None or job.model.logprobs:
        return
    for number, step in enumerate(job.cascade):
        if step.glance is not None and step.glance.model_dump(exclude_defaults=True):
            yield job.problem(
                f"cascade.{number}",
                "a band of glance needs probabilities, which the endpoint is not said to give",
                "model.logprobs: true where it gives them; else leave glance out",
            )


def _promises(
    job: Job, cascade: Cascade, calibrated: Mapping[int, Screen | BandCard]
) -> Iterator[Problem]:
    """Where what was calibrated is not what this job asks for, or a band does not lie around the
    threshold.
    """
    policy, last = cascade.policy, cascade.last
    for number, made in calibrated.items():
        args, teacher, key = (
            job.cascade[number].screen or job.cascade[number].glance,
            _teacher(made),
            f"cascade.{number}",
        )
        if teacher.policy != policy.id or args is None:
            continue
        said = f"{job.cascade[number].judge} {args.path}"
        again = "calibrate it again, or say force: true, and no promise holds"
        if teacher.policy_key != policy_key(policy) and not args.force:
            yield job.problem(
                key, f"{said} was calibrated for another text of policy {policy.id!r}", again
            )
        elif teacher.judge_key not in (None, last.key) and not args.force:
            yield job.problem(
                key,
                (
                    f"{said} was calibrated on verdicts of another {last.name} judge (model, "
                    "effort, "
                    "sampling, budget or windows)"
                ),
                again,
            )
        if teacher.threshold > policy.threshold:
            yield job.problem(
                key,
                (
                    f"{said} holds for thresholds from {teacher.threshold:g} on, and that of "
                    f"{policy.id!r} is {policy.threshold:g}"
                ),
                "calibrate it again, or leave it out: what the last judge said is reused",
            )
        if isinstance(made, BandCard) and not args.force and made.key != cascade.keys["glance"]:
            yield job.problem(
                key, f"{said} was calibrated for another model, effort or windows", again
            )
    for name, band in cascade.bands.items():
        if band.below is not None and band.above is not None and band.below > band.above:
            yield job.problem(
                "cascade", f"{name}: below ({band.below:g}) is over above ({band.above:g})"
            )
        elif (band.below or 0) > policy.threshold or (
            band.above is not None and band.above < policy.threshold
        ):
            yield job.problem(
                "cascade",
                (
                    f"{name} is sure of P on the wrong side of the threshold "
                    f"{policy.threshold:g} of "
                    f"{policy.id!r}"
                ),
                "below <= threshold <= above",
            )
