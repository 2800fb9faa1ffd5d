"""`moderay tune`: gold in, the cheapest cascade that reaches a goal out, with its certificate."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np

from moderay.config.job import Effort, Job, Step
from moderay.config.policy import Policy
from moderay.core.errors import UserError, nearest
from moderay.core.wording import counted
from moderay.judges.cascade import Cascade
from moderay.judges.screen import Screen, load_screen
from moderay.labels.analysis import intervals
from moderay.pipeline.check import Checked
from moderay.tasks.calibrate.truth import judged_shards, last_verdicts
from moderay.tasks.gold_parts import PARTS, SHARES, TRAIN_ALONE
from moderay.tasks.gold_source import gold_reader_for_promises
from moderay.tasks.tune.certificate import Goal
from moderay.tasks.tune.choice import choose
from moderay.tasks.tune.columns import Shape
from moderay.tasks.tune.gold_rows import GoldRows, gold_rows, parts_of
from moderay.tasks.tune.judging import columns, panel
from moderay.tasks.tune.records import TuneRecord
from moderay.tasks.tune.results import (
    cascade_record,
    contents_hash,
    found_fields,
    looks,
    parts_record,
    read_record,
    tested_records,
)
from moderay.tasks.tune.search import Space, Tried, candidate
from moderay.tasks.tune.tuned_job import built, certificate, tuned, voided


@dataclass(frozen=True)
class TuneRequest:
    """What a person asks for.

    Attributes:
        goal: What the cascade is to reach.
        policy: Id; None where the job has gold of one policy alone.
        efforts: That are tried beside the job's own.
        labels: URL of an output whose last judge is the gold; None: the job's `gold:`.
        explains: Only cascades that give a rationale to whatever they flag on an engine.
        rows: Contents, about; chosen by hash.
        folder: Where answers are kept, and the record is looked for; None: nowhere.
    """

    goal: Goal
    policy: str | None = None
    efforts: Sequence[Effort] = ("low", "medium", "high")
    labels: str | None = None
    explains: bool = True
    rows: int = 10_000
    folder: Path | None = None


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        record: What is written.
        tried: All cascades, on the select part.
        job: The job with the certified cascade, and this policy alone; None where none is.
    """

    record: TuneRecord
    tried: Tried
    job: Job | None


def tune_job(checked: Checked, request: TuneRequest) -> Tuned:
    """Search for the cheapest cascade of a policy, and certify it.

    Raises:
        UserError: There is no gold, or too little to certify with.
        ModerayError: The engine cannot be had.
    """
    _check_goal(request.goal)
    cascade = _cascade(checked, request)
    job = _alone(checked, cascade.policy)
    screen = next((each for each in cascade.on_columns if isinstance(each, Screen)), None)
    if screen is not None:
        _check_screen(screen)
    gold, source = _gold(checked, cascade, request)
    part = parts_of(gold, screen is not None)
    _check_enough(gold, part, request.goal)
    efforts = tuple(dict.fromkeys([job.model.effort, *request.efforts]))
    said = columns(job, cascade, gold, panel(job, cascade.policy, efforts), request.folder)
    select, certify = (said.at(part == PARTS.index(name)) for name in PARTS[1:])
    space = _space(job, cascade, screen, efforts, request.explains)
    found = choose(select, certify, space, request.goal)
    chosen = None if found.chosen is None else found.tested[found.chosen]
    own = [candidate(each, space.own, space.threshold) for each in (select, certify)]
    certify_hash = contents_hash(gold, part)
    record = TuneRecord(
        policy=cascade.policy.id,
        model=job.model.source,
        source=source,
        unreadable=gold.unreadable,
        parts=parts_record(gold, part),
        own=cascade_record(own[0]),
        own_tokens=own[1].tokens,
        **found_fields(found, request.goal, int(certify.violates.sum())),
        certificate=None if chosen is None else certificate(job, cascade.policy, chosen),
        certify_hash=certify_hash,
        looks=looks(
            request.folder, certify_hash, request.goal, tested_records(found, request.goal)
        ),
        created=datetime.now(UTC).date(),
        moderay=importlib.metadata.version("moderay"),
    )
    return Tuned(record, found.tried, None if chosen is None else tuned(job, chosen.shape))


def _check_goal(goal: Goal) -> None:
    if not all(0 < share < 1 for share in (goal.recall, goal.precision, goal.confidence)):
        raise UserError("--recall, --precision and --confidence are shares between 0 and 1")


def _cascade(checked: Checked, request: TuneRequest) -> Cascade:
    """Of the policy that is meant."""
    job = checked.job
    if job.model.endpoint is not None and not job.model.logprobs:
        raise UserError(
            "tune needs probabilities: say model.logprobs: true where the endpoint gives them"
        )
    known = {cascade.policy.id: cascade for cascade in checked.cascades}
    meant = [name for name in known if request.labels is not None or name in job.gold]
    if request.policy is not None:
        if request.policy not in known:
            hint = nearest(request.policy, known)
            raise UserError(f"--policy {request.policy!r} is no policy of this job; {hint}")
        meant = [name for name in meant if name == request.policy]
    if not meant:
        raise UserError(
            "tune needs to know what violates: gold: in the job, such as gold: {spam: is_spam}, or "
            "--from OUTPUT, labels of the last judge"
        )
    if len(meant) > 1:
        raise UserError(f"one policy at a time: --policy, one of {', '.join(meant)}")
    return known[meant[0]]


def _alone(checked: Checked, policy: Policy) -> Job:
    """The job with this policy alone, and the steps that are for it; P is as the model gives it."""
    job = checked.job
    folder = job.policies[checked.policies.index(policy)]
    steps = [
        step
        for step in job.cascade
        if step.screen is None or load_screen(step.screen.path).policy == policy.id
    ]
    alone = [_without_map(step) for step in steps]
    return job.model_copy(update={"policies": [folder], "cascade": alone, "audit": 0.0})


def _without_map(step: Step) -> Step:
    """Thresholds are looked for on P as it is: they do what a map would, and are certified."""
    if step.reason is None:
        return step
    reason = step.reason.model_copy(update={"calibration": []})
    return step.model_copy(update={"reason": reason})


def _check_screen(screen: Screen) -> None:
    """That no content on which cascades are chosen or certified was seen in its training."""
    source = screen.card.teacher.source
    if not source.endswith(TRAIN_ALONE):
        raise UserError(
            f"the screen for policy {screen.policy!r} was trained on {source}, which may hold what "
            "tune selects and certifies on: train it with moderay calibrate --train-part, or leave "
            "it out of the cascade"
        )


def _gold(checked: Checked, cascade: Cascade, request: TuneRequest) -> tuple[GoldRows, str]:
    """The contents, and where it is known from what violates."""
    policy = cascade.policy
    if request.labels is not None:
        judged = judged_shards(checked, cascade, request.labels)
        return (
            gold_rows(
                checked,
                cascade,
                judged.shards,
                lambda shard: last_verdicts(judged, shard),
                request.rows,
            ),
            judged.source,
        )
    gold = checked.job.gold[policy.id]
    people = gold_reader_for_promises(checked, policy, gold, f"gold.{policy.id}")
    shards = checked.scan.shards
    found = gold_rows(checked, cascade, shards, lambda each: people.of(each).truth, request.rows)
    return found, people.source


def _check_enough(gold: GoldRows, part: np.ndarray, goal: Goal) -> None:
    """That the certify part can certify the recall at all."""
    needed = intervals.violations_needed(1 - goal.recall, goal.confidence)
    certify = int(gold.violates[part == PARTS.index("certify")].sum())
    if certify < needed:
        share = SHARES["certify"]
        raise UserError(
            f"{certify} of {counted(int(gold.violates.sum()), 'distinct violation')} are there to "
            f"certify with ({share:.0%} of contents, by hash), and a recall of {goal.recall:g} "
            f"takes {needed} with no miss at confidence {goal.confidence:g}: label about "
            f"{math.ceil((needed - certify) / share)} more violations, or ask for less "
            "(--recall, --confidence)"
        )
    if not gold.violates[part == PARTS.index("select")].any():
        raise UserError("no violation is there to select on: label more")


def _space(
    job: Job, cascade: Cascade, screen: Screen | None, efforts: Sequence[Effort], explains: bool
) -> Space:
    policy = cascade.policy
    cut_off = None if screen is None else screen.card.cut_off
    own = Shape(job.model.effort, cut_off, cascade.bands.get("glance"))
    if screen is None:
        return Space(own, policy.threshold, explains=explains)
    # Calibrated on the verdicts of one judge, it stands before that judge alone.
    fits = [
        effort
        for effort in efforts
        if not built(tuned(job, Shape(effort, screen.card.cut_off)), policy)[1]
    ]
    teacher = screen.card.teacher
    return Space(own, policy.threshold, screen.card.cut_off, fits, teacher.threshold, explains)


def efforts_of(names: Sequence[str] | None) -> tuple[Effort, ...]:
    """Efforts as somebody named them; all of them for None.

    Raises:
        UserError: There is none of a name.
    """
    known = get_args(Effort)
    for name in names or ():
        if name not in known:
            raise UserError(f"--effort {name!r}: valid are {', '.join(known)}")
    return tuple(effort for effort in known if names is None or effort in names)


def check_certificate(file: Path, checked: Checked) -> list[str]:
    """What of a certificate does not hold for a job, a sentence each.

    Raises:
        UserError: There is no certificate, or the job has not its policy.
    """
    record = read_record(file)
    if record is None:
        raise UserError(f"{file}: no such file; tune writes it: moderay tune JOB --out DIR")
    known = {cascade.policy.id: cascade for cascade in checked.cascades}
    if record.policy not in known:
        raise UserError(f"{file} is about policy {record.policy!r}, which the job has not")
    return voided(record, known[record.policy])
