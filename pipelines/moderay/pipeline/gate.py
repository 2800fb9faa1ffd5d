"""The gate: golden sets held against floors, before any row of the corpus is judged.

Pure functions: which floors hold for which policy, what is wrong with them, and whether verdicts
pass them. `golden` finds the verdicts, and `flow` waits for them.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from moderay.config.job import Job
from moderay.config.policy import GoldenCase, Policy, golden_cases
from moderay.config.sections.gate import ALL_POLICIES
from moderay.core.errors import Problem, Problems, StoppedError, nearby, nearest
from moderay.core.redaction import shown
from moderay.core.wording import counted
from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.metrics.confusion import Binary, ratio
from moderay.labels.analysis.metrics.estimate import CONFIDENCE, share
from moderay.labels.manifest_record import GateFigure

FloorFigure = Literal["recall", "precision"]
_FIGURES: tuple[FloorFigure, ...] = get_args(FloorFigure)

# Of a case that has no verdict.
NOT_JUDGED = -1


@dataclass(frozen=True)
class Floor:
    """What the lower end of a figure's interval must reach.

    Attributes:
        key: Where it stands in the job.
        figure: Its name.
        least: The floor itself, above 0 and below 1.
    """

    key: str
    figure: FloorFigure
    least: float

    @property
    def cases_needed(self) -> int:
        """Cases that violate, of which all are right, from which on it can be passed."""
        # All n of n right have the lower end tail ** (1 / n); logarithms are rounded.
        tail = (1 - CONFIDENCE) / 2
        cases = max(1, math.ceil(math.log(tail) / math.log(self.least)) - 1)
        while best(cases) < self.least:
            cases += 1
        return cases


@dataclass(frozen=True)
class GatedPolicy:
    """A policy that must pass floors on its golden set.

    Attributes:
        policy: The policy.
        folder: Where it lies.
        floors: At least one.
        cases: Its golden set.
    """

    policy: Policy
    folder: str
    floors: tuple[Floor, ...]
    cases: tuple[GoldenCase, ...]

    @property
    def violating(self) -> np.ndarray:
        """Bool: which cases violate."""
        labels = self.policy.labels
        return np.array([labels[case.label].violates for case in self.cases], bool)


class GateClosedError(StoppedError):
    """A policy is under a floor on its golden set: the corpus is not judged.

    Attributes:
        figures: Everything that was held against a floor.
    """

    figures: tuple[GateFigure, ...] = ()


def best(cases: int) -> float:
    """The lower end where all of so many cases are right."""
    return interval(cases, cases, CONFIDENCE)[0]


def gated_policies(
    job: Job, policies: Sequence[Policy]
) -> tuple[tuple[GatedPolicy, ...], list[Problem]]:
    """The policies that a job's `gate:` holds floors for, and everything wrong with these.

    Args:
        job: The job.
        policies: One for each of its folders, in order.
    """
    problems = list(_misnamed(job, [policy.id for policy in policies]))
    gated = []
    for policy, folder in zip(policies, job.policies, strict=True):
        if not (floors := _floors(job, policy.id)):
            continue
        try:
            cases = golden_cases(folder, policy) or []
        except Problems as error:
            problems += error.problems
            continue
        gated.append(GatedPolicy(policy, folder, floors, tuple(cases)))
        problems += _out_of_reach(job, gated[-1])
    return tuple(gated), problems


def _misnamed(job: Job, policies: Sequence[str]) -> Iterator[Problem]:
    """Floors of nobody, or of two meanings."""
    for name in job.gate:
        key = f"gate.{name}"
        if name not in (ALL_POLICIES, *policies):
            hint = nearest(name, [ALL_POLICIES, *policies])
            yield job.problem(key, f"{key}: the job has no policy {name!r}", hint)
        elif name == ALL_POLICIES and name in policies:
            message = f"{key} holds floors for every policy, and {name!r} is the id of one"
            yield job.problem(key, message, "give the policy another id")


def _floors(job: Job, policy: str) -> tuple[Floor, ...]:
    """Of one policy: its own before those of every policy, figure by figure."""
    found: dict[FloorFigure, Floor | None] = {}
    for name in (ALL_POLICIES, policy):
        if (section := job.gate.get(name)) is None:
            continue
        for figure in _FIGURES:
            if figure in section.model_fields_set:
                least = getattr(section, figure)
                floor = None if least is None else Floor(f"gate.{name}.{figure}", figure, least)
                found[figure] = floor
    return tuple(floor for floor in found.values() if floor is not None)


def _out_of_reach(job: Job, gated: GatedPolicy) -> Iterator[Problem]:
    """Floors that no verdicts on this golden set pass, or that say nothing of them."""
    name = gated.policy.id
    violating = int(gated.violating.sum())
    if not gated.cases:
        key = f"gate.{name}" if name in job.gate else f"gate.{ALL_POLICIES}"
        message = f"{key}: policy {name} has no golden cases"
        yield job.problem(key, message, _ways_out(gated, gated.floors, "some"))
        return
    for floor in gated.floors:
        key = floor.key
        if not violating:
            message = f"{key}: no golden case of {name} violates"
            yield job.problem(key, message, _ways_out(gated, [floor], "some that do"))
        elif floor.figure == "precision" and violating == len(gated.cases):
            message = f"{key}: all golden cases of {name} violate, and nothing can be found wrongly"
            yield job.problem(key, message, _ways_out(gated, [floor], "safe ones"))
        elif best(violating) < floor.least:
            right = f"all {violating:,} violating cases" if violating > 1 else "the violating case"
            yield job.problem(
                key,
                f"{key}: {name} cannot pass {floor.least:g} on its golden set: with {right} "
                f"right, the lower end is {_down(best(violating))}",
                f"it takes {counted(floor.cases_needed, 'violating case')}, all of them right; or "
                f"a floor of at most {_down(best(violating))}",
            )


def _ways_out(gated: GatedPolicy, floors: Sequence[Floor], which: str) -> str:
    """More golden cases, or no floor for this policy."""
    none = ", ".join(f"{floor.figure}: null" for floor in floors)
    file = nearby(f"{gated.folder}/golden.jsonl")
    return f"write {which} to {file}, or have no floor here: gate.{gated.policy.id}: {{{none}}}"


def gate_figures(gated: GatedPolicy, violates: np.ndarray) -> list[GateFigure]:
    """A policy's figures held against its floors.

    A violating case without a verdict is one that was missed; a safe one was not found.

    Args:
        gated: The policy.
        violates: int8, what the judges say of each of its cases: 1, 0 or `NOT_JUDGED`.
    """
    table = Binary.of(gated.violating, violates == 1)
    not_judged = int((violates == NOT_JUDGED).sum())
    figures = []
    for floor in gated.floors:
        k, n = map(int, ratio(floor.figure, table.tp, table.fp, table.fn, table.tn))
        estimate = share(k, n)
        low = estimate.low if estimate else 0.0
        figures.append(
            GateFigure(
                policy=gated.policy.id,
                figure=floor.figure,
                k=k,
                n=n,
                value=estimate.value if estimate else None,
                low=low,
                high=estimate.high if estimate else 1.0,
                floor=floor.least,
                passed=low >= floor.least,
                not_judged=not_judged,
            )
        )
    return figures


def closed(
    job: Job, policies: Sequence[GatedPolicy], figures: Sequence[GateFigure]
) -> GateClosedError | None:
    """Why a run ends here; None where every floor is passed."""
    if not (failed := [figure for figure in figures if not figure.passed]):
        return None
    under = {figure.policy for figure in failed}
    folders = [nearby(each.folder) for each in policies if each.policy.id in under]
    model = job.model
    show = (
        shlex.join(["moderay", "eval", *folders, "--model", shown(model.source)])
        if model.endpoint is None
        else "moderay.evaluate_policies"
    )
    error = GateClosedError(
        f"the gate is closed: {'; '.join(map(_told, failed))}; no row of the corpus was judged, "
        f"what was judged of golden cases is kept, and `{show}` shows which of them are wrong",
        1,
    )
    error.figures = tuple(figures)
    return error


def _told(figure: GateFigure) -> str:
    """How a figure is under its floor."""
    what = "right" if figure.figure == "precision" else "found"
    missing = f", {figure.not_judged:,} not judged" if figure.not_judged else ""
    return (
        f"{figure.policy} {figure.figure} {figure.k:,} of {figure.n:,} {what}{missing}, lower end "
        f"{_down(figure.low)}, floor {figure.floor:g}"
    )


def _down(share: float) -> str:
    """With three decimals, never more than it is: as a floor it can be passed."""
    return f"{math.floor(share * 1000) / 1000:.3f}"
