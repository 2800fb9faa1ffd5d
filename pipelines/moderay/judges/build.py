"""A job's cascades: for each policy its judges, and everything wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from moderay.config.job import Job
from moderay.config.policy import Policy
from moderay.core.errors import Problem, Problems, UserError
from moderay.engines.base import EngineSpec
from moderay.engines.remote.spec import RemoteSpec
from moderay.engines.vllm.engine import VllmSpec
from moderay.judges.calibration import CalibrationCard, load_calibration
from moderay.judges.cards import BandCard, Teacher
from moderay.judges.cascade import Cascade, ColumnJudge, EngineJudge, policy_key
from moderay.judges.glance import Band, Glance, load_band
from moderay.judges.reason import Reason
from moderay.judges.rules import Rules
from moderay.judges.rules_file import load_rules
from moderay.judges.safeguard import Safeguard
from moderay.judges.screen import Screen, load_screen


@dataclass(frozen=True)
class _CalibratedStep:
    """A step of the cascade that `calibrate` made.

    Attributes:
        number: Of the step in the job's cascade, from 0.
        judge: `screen` or `glance`.
        path: Its folder.
        force: Whether it is used although its promise does not hold.
        card: What is in the folder.
    """

    number: int
    judge: str
    path: str
    force: bool
    card: Screen | BandCard

    @property
    def teacher(self) -> Teacher:
        """On whose verdicts it was calibrated."""
        return self.card.card.teacher if isinstance(self.card, Screen) else self.card.teacher

    @property
    def key(self) -> str:
        """The job's key that a problem with it is about."""
        return f"cascade.{self.number}"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.judge} {self.path}"

    def judge_for(self, safeguard: Safeguard) -> Screen | Glance:
        """The judge; glance asks this safeguard."""
        if isinstance(self.card, Screen):
            return self.card
        return Glance(safeguard, Band(below=self.card.below), self.card)


def fitted(spec: EngineSpec, cascades: Sequence[Cascade]) -> EngineSpec:
    """The engine, long enough for every judge's longest prompt.

    Raises:
        UserError: The job asks for a shorter one.
    """
    needed = max(cascade.max_model_len for cascade in cascades)
    if isinstance(spec, RemoteSpec):
        return replace(spec, max_model_len=needed)
    if not isinstance(spec, VllmSpec):
        return spec
    engine = dict(spec.engine)
    length = engine.pop("max_model_len", needed)
    if length < needed:
        raise UserError(
            f"model.engine.max_model_len is {length}, but policies, windows and budget need "
            f"{needed}: raise it or lower windows.tokens"
        )
    return replace(spec, max_model_len=length, engine=engine)


def cascades(
    job: Job, policies: Sequence[Policy], spec: EngineSpec
) -> tuple[tuple[Cascade, ...], list[Problem]]:
    """The job's cascade for each policy, and everything wrong with its rules, screens and bands."""
    calibrated, problems = _calibrated(job, policies)
    read, wrong = calibrations(job, policies)
    problems += wrong
    problems += _without_probabilities(job)
    made = []
    for policy, folder in zip(policies, job.policies, strict=True):
        try:
            rules = _rules(job, policy, folder)
        except Problems as error:
            rules = None
            problems += error.problems
        steps = list(_steps(job, _safeguard(job, policy, spec), rules, calibrated))
        cascade = Cascade(
            policy,
            tuple(judge for judge in steps if isinstance(judge, Rules | Screen)),
            tuple(judge for judge in steps if isinstance(judge, Glance | Reason)),
            job.audit,
            read.get(policy.id),
        )
        for step in calibrated.values():
            if step.teacher.policy == policy.id:
                problems += _broken_promises(job, step, cascade)
        problems += _wrong_bands(job, cascade)
        problems += _wrong_calibration(job, cascade)
        made.append(cascade)
    return tuple(made), list(dict.fromkeys(problems))


def _safeguard(job: Job, policy: Policy, spec: EngineSpec) -> Safeguard:
    return Safeguard(
        policy,
        model=dict(spec.identity()),
        vocabulary_source=spec.vocabulary_source,
        effort=job.model.effort,
        windows=job.windows,
        request_s=job.limits.request_s,
        in_words=isinstance(spec, RemoteSpec),
    )


def _rules(job: Job, policy: Policy, folder: str) -> Rules | None:
    """The policy's rules, where the job has a step for them.

    Raises:
        Problems: All that is wrong with them.
    """
    has_step = any(step.rules is not None for step in job.cascade)
    return load_rules(policy, folder) if has_step else None


def _steps(
    job: Job, safeguard: Safeguard, rules: Rules | None, calibrated: Mapping[int, _CalibratedStep]
) -> Iterator[ColumnJudge | EngineJudge]:
    """One policy's judges in the order of the job's steps; a step may have none for it."""
    for number, step in enumerate(job.cascade):
        made = calibrated.get(number)
        if step.reason is not None:
            yield Reason(
                safeguard,
                job.model.sampling,
                step.reason.budget,
                _explain_from(job, safeguard.policy),
            )
        elif made is not None:
            if made.teacher.policy == safeguard.policy.id:
                yield made.judge_for(safeguard)
        elif step.glance is not None and step.glance.path is None:
            yield Glance(safeguard, Band(step.glance.below, step.glance.above))
        elif step.rules is not None and rules is not None:
            yield rules


def _explain_from(job: Job, policy: Policy) -> float | None:
    """P(violates) from which on a rationale is asked for; None: with every answer."""
    match job.output.rationale:
        case "all":
            return None
        case "none":
            return math.inf
        case "flagged":
            wanted = job.output.rationale_from
            return policy.threshold if wanted is None else min(wanted, policy.threshold)


def _calibrated(
    job: Job, policies: Sequence[Policy]
) -> tuple[dict[int, _CalibratedStep], list[Problem]]:
    """What `calibrate` made, by the number of its step, and what is wrong with it.

    Each is for one of the policies, and not two for the same.
    """
    steps: dict[int, _CalibratedStep] = {}
    problems: list[Problem] = []
    for number, step in enumerate(job.cascade):
        args = step.screen or step.glance
        if args is None or args.path is None:
            continue
        try:
            card = load_screen(args.path) if step.screen else load_band(args.path)
        except Problems as error:
            problems += [
                job.problem(
                    f"cascade.{number}",
                    f"{step.judge} {args.path}: {problem.message}",
                    problem.hint,
                )
                for problem in error.problems
            ]
            continue
        if isinstance(card, Screen) and step.screen is not None:
            card, wrong = _with_cut_off(job, f"cascade.{number}", card, step.screen.cut_off)
            problems += wrong
        made = _CalibratedStep(number, step.judge, args.path, args.force, card)
        problems += _misplaced(job, made, policies, list(steps.values()))
        steps[number] = made
    return steps, problems


def _with_cut_off(
    job: Job, key: str, screen: Screen, cut_off: float | None
) -> tuple[Screen, list[Problem]]:
    """The screen with a lower cut-off, for which its promise holds all the more."""
    if cut_off is None:
        return screen, []
    if cut_off > screen.card.cut_off:
        message = (
            f"cut_off {cut_off:g} is above that of the screen's card, {screen.card.cut_off:g}, and "
            "nothing is promised there"
        )
        hint = "leave it out, or calibrate with a larger --max-miss"
        return screen, [job.problem(key, message, hint)]
    return screen.under(cut_off), []


def _misplaced(
    job: Job,
    step: _CalibratedStep,
    policies: Sequence[Policy],
    earlier: Sequence[_CalibratedStep],
) -> Iterator[Problem]:
    """A step for a policy that the job has not, or that has such a step already."""
    policy = step.teacher.policy
    if policy not in {policy.id for policy in policies}:
        message = f"{step.name} is for policy {policy!r}, which this job has not"
        yield job.problem(step.key, message, "leave it out, or name the policy")
    if any(other.teacher.policy == policy and other.judge == step.judge for other in earlier):
        message = f"two steps {step.judge} are for policy {policy!r}"
        yield job.problem(step.key, message, "leave one of them out")


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


def _broken_promises(job: Job, step: _CalibratedStep, cascade: Cascade) -> Iterator[Problem]:
    """Where what was calibrated is not what this job asks for."""
    policy = cascade.policy
    last = cascade.last
    teacher = step.teacher
    again = "calibrate it again, or say force: true, and no promise holds"
    if teacher.policy_key != policy_key(policy) and not step.force:
        message = f"{step.name} was calibrated for another text of policy {policy.id!r}"
        yield job.problem(step.key, message, again)
    elif teacher.judge_key not in (None, last.key) and not step.force:
        message = (
            f"{step.name} was calibrated on verdicts of another {last.name} judge "
            "(model, effort, sampling, budget or windows)"
        )
        yield job.problem(step.key, message, again)
    if teacher.threshold > policy.threshold:
        yield job.problem(
            step.key,
            f"{step.name} holds for thresholds from {teacher.threshold:g} on, "
            f"and that of {policy.id!r} is {policy.threshold:g}",
            "calibrate it again, or leave it out: what the last judge said is reused",
        )
    if (
        isinstance(step.card, BandCard)
        and not step.force
        and step.card.key != cascade.keys["glance"]
    ):
        message = f"{step.name} was calibrated for another model, effort or windows"
        yield job.problem(step.key, message, again)


def calibrations(
    job: Job, policies: Sequence[Policy]
) -> tuple[dict[str, CalibrationCard], list[Problem]]:
    """How P of reason is read, by policy, and what is wrong with it."""
    found: dict[str, CalibrationCard] = {}
    problems: list[Problem] = []
    for key, folder in _calibration_folders(job):
        try:
            card = load_calibration(folder)
        except Problems as error:
            problems += [
                job.problem(key, f"calibration {folder}: {problem.message}", problem.hint)
                for problem in error.problems
            ]
            continue
        name = card.teacher.policy
        if name not in {policy.id for policy in policies}:
            message = f"calibration {folder} is for policy {name!r}, which this job has not"
            problems.append(job.problem(key, message, "leave it out, or name the policy"))
        elif name in found:
            message = f"two calibrations are for policy {name!r}"
            problems.append(job.problem(key, message, "leave one of them out"))
        found[name] = card
    return found, problems


def _calibration_folders(job: Job) -> Iterator[tuple[str, str]]:
    """The key of the step, and a folder that it names."""
    for number, step in enumerate(job.cascade):
        for folder in step.reason.calibration if step.reason is not None else ():
            yield f"cascade.{number}", folder


def _wrong_calibration(job: Job, cascade: Cascade) -> Iterator[Problem]:
    """A map of another policy's text, or of another model's P."""
    card, policy = cascade.calibration, cascade.policy
    if card is None:
        return
    number = len(job.cascade) - 1
    again = "calibrate again, or leave it out"
    if card.teacher.policy_key != policy_key(policy):
        message = f"the calibration of {policy.id!r} was fitted under another text of it"
        yield job.problem(f"cascade.{number}", message, again)
    elif card.teacher.judge_key != cascade.keys[card.judge]:
        message = (
            f"the calibration of {policy.id!r} was fitted to P of another {card.judge} judge "
            "(model, effort, sampling, budget or windows)"
        )
        yield job.problem(f"cascade.{number}", message, again)


def _wrong_bands(job: Job, cascade: Cascade) -> Iterator[Problem]:
    """Bands that do not lie around the threshold."""
    policy = cascade.policy
    for name, band in cascade.bands.items():
        below = 0 if band.below is None else band.below
        above = 1 if band.above is None else band.above
        if below > above:
            message = f"{name}: below ({below:g}) is over above ({above:g})"
            yield job.problem("cascade", message)
        elif not below <= policy.threshold <= above:
            yield job.problem(
                "cascade",
                f"{name} is sure of P on the wrong side of the threshold "
                f"{policy.threshold:g} of {policy.id!r}",
                "below <= threshold <= above",
            )
