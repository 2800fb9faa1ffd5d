"""The cascade: a policy's judges in order of cost, each settling what it is sure of and passing on
the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import pyarrow as pa

from moderay.config.job import Job
from moderay.config.policy import Policy
from moderay.core.errors import Problem, Problems
from moderay.core.hashing import digest
from moderay.core.hashing import number as number_of
from moderay.core.verdicts import Verdict
from moderay.engines.base import EngineSpec
from moderay.engines.harmony.prompt import instructions
from moderay.engines.host import EngineHost
from moderay.engines.remote import RemoteSpec
from moderay.judges.card import BandCard, Teacher
from moderay.judges.glance import Band, Glance, load_band
from moderay.judges.reason import Reason
from moderay.judges.rules import Rules
from moderay.judges.rulesfile import load_rules
from moderay.judges.safeguard import Safeguard
from moderay.judges.screen import Screen, load_screen


class ColumnJudge(Protocol):
    """Judges on the CPU, a column of contents at a time."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str:
        """Hash of everything that can change its verdicts."""
        ...

    def identity(self) -> Mapping[str, object]:
        """What the manifest says of it."""
        ...

    def settle(self, texts: pa.Array, table: pa.Table) -> pa.StructArray:
        """Structs of `verdicts.VERDICT`, null where it passes on. `table`: the input's columns, row
        for row.
        """
        ...


class EngineJudge(Protocol):
    """Judges by asking an engine, a content at a time."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def safeguard(self) -> Safeguard: ...

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt with its answer."""
        ...

    def identity(self) -> Mapping[str, object]: ...

    def settles(self, verdict: Verdict) -> bool:
        """Whether this verdict of its own stands."""
        ...

    async def judge(self, host: EngineHost, ids: Sequence[int], row: str) -> Verdict: ...


@dataclass(frozen=True)
class Cascade:
    """One policy's judges; picklable. `audit`: share of what all but the last settle that the last
    judges too. `bands`: of a judge whose verdicts stand outside a band of P only.
    """

    policy: Policy
    on_columns: tuple[ColumnJudge, ...]
    on_engine: tuple[EngineJudge, ...]
    audit: float = 0.0

    @property
    def judges(self) -> tuple[ColumnJudge | EngineJudge, ...]:
        return (*self.on_columns, *self.on_engine)

    @property
    def rules(self) -> tuple[Rules, ...]:
        return tuple(judge for judge in self.on_columns if isinstance(judge, Rules))

    @property
    def columns(self) -> tuple[str, ...]:
        """The input's columns that its rules read."""
        return tuple(name for rules in self.rules for name in rules.columns)

    @property
    def last(self) -> EngineJudge:
        return self.on_engine[-1]

    @cached_property
    def keys(self) -> dict[str, str]:
        """By judge."""
        return {judge.name: judge.key for judge in self.judges}

    @property
    def bands(self) -> dict[str, Band]:
        return {judge.name: judge.band for judge in self.on_engine if isinstance(judge, Glance)}

    @property
    def key(self) -> str:
        return digest(
            [
                [[name, key] for name, key in self.keys.items()],
                {name: [band.below, band.above] for name, band in self.bands.items()},
            ]
        )

    def identity(self) -> list[dict[str, object]]:
        """What the manifest says of it: everything that can change a verdict, by judge, and the
        bands.
        """
        columns: list[dict[str, object]] = [
            {"judge": judge.name, "key": judge.key, **judge.identity()} for judge in self.on_columns
        ]
        bands = {
            name: {"below": band.below, "above": band.above} for name, band in self.bands.items()
        }
        return [
            *columns,
            *[{**judge.identity(), **bands.get(judge.name, {})} for judge in self.on_engine],
        ]

    @property
    def promises(self) -> dict[str, float]:
        """By judge that was calibrated: the share of violations that it may miss."""
        return {
            judge.name: judge.card.max_miss
            for judge in self.judges
            if isinstance(judge, Screen | Glance) and judge.card is not None
        }

    def reusable(self, judges: Mapping[str, str]) -> dict[str, Band | None]:
        """Whose verdicts of those that were given under these keys stand here too, and outside
        which band. What rules say may hang on other columns than the content, and costs nothing.
        """
        return {
            name: self.bands.get(name)
            for name, key in self.keys.items()
            if name != "rules" and judges.get(name) == key
        }

    @property
    def max_model_len(self) -> int:
        return max(judge.max_model_len for judge in self.on_engine)

    def audited(self, content_hash: str) -> bool:
        """Whether a content that an earlier judge settled is judged by the last one too: chosen by
        hash, the same ones each time.
        """
        return (
            self.audit > 0
            and number_of(f"audit:{self.policy.id}:{content_hash}") < self.audit * 2**63
        )


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


def policy_key(policy: Policy) -> str:
    """Hash of what a policy asks for, the model apart."""
    return digest(
        [instructions(policy), {name: label.violates for name, label in policy.labels.items()}]
    )
