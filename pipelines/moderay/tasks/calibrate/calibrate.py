"""`moderay calibrate`: labelled contents in, a screen, a band for glance or a map of P out.

Each has a card that says what it promises.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from moderay.config.job import GlanceArgs, Input, Job, Step
from moderay.core.errors import UserError, nearest
from moderay.core.ray_logs import told_with_logs
from moderay.core.ray_loss import ray_errors
from moderay.core.ray_runtime import start_ray
from moderay.core.verdicts import structs
from moderay.core.wording import counted
from moderay.judges.calibration import save_calibration
from moderay.judges.cards import BandCard, Teacher
from moderay.judges.cascade import Cascade, policy_key
from moderay.judges.glance import save_band
from moderay.judges.screen import save_screen
from moderay.pipeline.check import Checked
from moderay.tasks.calibrate.learning_curve import MORE, gain_of_more
from moderay.tasks.calibrate.reason import REASON, calibrate_reason
from moderay.tasks.calibrate.screen_training import (
    calibrate_cut,
    calibrate_screen,
    cross_fitted_screen,
)
from moderay.tasks.calibrate.truth import Labelled, from_labels, from_people
from moderay.tasks.embed import label_dataset
from moderay.tasks.embedded_job import job_cascades

# Contents of either kind that glance is asked about at most: the promise needs some dozens of
# violations, and the share that is settled an estimate.
GLANCED = 4000

_ESTIMATED = (
    "; estimated, for it is cross-fitted, and no theorem says so: let the audit watch it "
    "(audit: 0.01)"
)


@dataclass(frozen=True)
class CalibrationRequest:
    """What a person asks for.

    Attributes:
        policy: Id of a policy of the job.
        judge: screen, glance or reason.
        out: Folder to write.
        labels: URL of an output of the same input, judged by the job's last judge; or
        gold: an input column in which people said, a condition over such columns, or reviews. For
            reason both may be given: P comes from the one, what is right from the other.
        max_miss: Share of violations that may be missed.
        confidence: How sure that is.
        rows: Contents to calibrate on at most, chosen by hash.
        train_part: Whether only contents are used on which `tune` neither selects nor certifies.
        cross_fit: Of a screen, whether it is cross-fitted: its promise is an estimate then.
    """

    policy: str
    judge: str
    out: Path
    labels: str | None = None
    gold: str | None = None
    max_miss: float = 0.05
    confidence: float = 0.95
    rows: int = 200_000
    train_part: bool = False
    cross_fit: bool = False


def calibrate_judge(checked: Checked, request: CalibrationRequest) -> dict[str, str]:
    """Calibrate a judge for a policy of the job, and write its folder.

    Returns:
        What a person wants to know of it, by title.

    Raises:
        UserError: Something is wrong, or too little is labelled; nothing is written then.
    """
    cascade = _cascade(checked, request.policy)
    _check_request(checked.job, request)
    if request.judge == REASON:
        made = calibrate_reason(checked, cascade, request.labels, request.gold)
        save_calibration(made.card, request.out)
        return made.told
    if request.labels is not None:
        truth = from_labels(checked, cascade, request.labels, request.rows, request.train_part)
    else:
        truth = from_people(
            checked, cascade.policy, request.gold or "", request.rows, request.train_part
        )
    teacher = Teacher(
        policy=request.policy,
        threshold=cascade.policy.threshold,
        policy_key=policy_key(cascade.policy),
        judge_key=truth.judge_key,
        source=truth.source,
    )
    if request.judge == "screen":
        return _screen(truth, teacher, request)
    return _glance(checked.job, cascade, truth, teacher, request)


def _check_request(job: Job, request: CalibrationRequest) -> None:
    if request.judge not in ("screen", "glance", REASON):
        raise UserError(f"--judge {request.judge!r}: valid are screen, glance, reason")
    has_probabilities = job.model.endpoint is None or job.model.logprobs
    if request.judge == REASON:
        if not has_probabilities:
            raise UserError(
                "a calibration of reason needs probabilities: say model.logprobs: true where the "
                "endpoint gives them"
            )
        return
    if (request.labels is None) == (request.gold is None):
        raise UserError(
            "say where the truth comes from: --from OUTPUT (verdicts already paid for) or --gold "
            "COLUMN (people; a condition over columns will do)"
        )
    if not (0 < request.max_miss < 1 and 0 < request.confidence < 1):
        raise UserError("--max-miss and --confidence are shares between 0 and 1")
    if request.cross_fit and request.judge == "glance":
        raise UserError(
            "--cross-fit is for screens: a band is not trained, and all violations set it already"
        )
    if request.judge == "glance" and not has_probabilities:
        raise UserError(
            "a band of glance needs probabilities: say model.logprobs: true where the endpoint "
            "gives them, or calibrate a screen"
        )


def _cascade(checked: Checked, policy: str) -> Cascade:
    for cascade in checked.cascades:
        if cascade.policy.id == policy:
            return cascade
    hint = nearest(policy, [cascade.policy.id for cascade in checked.cascades])
    raise UserError(f"--policy {policy!r} is no policy of this job; {hint}")


def _screen(truth: Labelled, teacher: Teacher, request: CalibrationRequest) -> dict[str, str]:
    train = cross_fitted_screen if request.cross_fit else calibrate_screen
    screen = train(
        truth.texts,
        truth.violates,
        teacher=teacher,
        max_miss=request.max_miss,
        confidence=request.confidence,
    )
    save_screen(screen, request.out)
    card = screen.card
    return {
        "trained on": (
            f"{counted(card.rows, 'distinct content')}, {card.violations:,} violate "
            f"({truth.source})"
        ),
        "held out": (
            f"{counted(card.held_out_rows, 'content')}, {card.held_out_violations:,} violate"
            + ("" if card.folds is None else f", each out of one of {card.folds} models")
            + f"; the cut-off may miss {card.misses_allowed} of these"
        ),
        "promise": _promise(request) + (_ESTIMATED if request.cross_fit else ""),
        "settles": _settles(card.settled),
        f"{MORE:,} more labels": str(gain_of_more(truth.texts, truth.violates, card)),
    }


def _glance(
    job: Job, cascade: Cascade, truth: Labelled, teacher: Teacher, request: CalibrationRequest
) -> dict[str, str]:
    chosen, safe_weight = _glance_sample(truth.violates)
    probability, key = _glances(job, cascade, truth.texts.take(pa.array(chosen)))
    known = ~np.isnan(probability)
    violates = truth.violates[chosen][known]
    cut = calibrate_cut(
        probability[known], violates, request.max_miss, request.confidence, safe_weight
    )
    below = min(cut.cut_off, teacher.threshold)
    weights = np.where(violates, 1.0, safe_weight)
    card = BandCard(
        teacher=teacher,
        key=key,
        below=below,
        rows=len(violates),
        violations=cut.violations,
        max_miss=request.max_miss,
        confidence=request.confidence,
        misses_allowed=cut.misses_allowed,
        settled=float(np.average(probability[known] < below, weights=weights)),
        created=datetime.now(UTC).date(),
    )
    save_band(card, request.out)
    return {
        "judged both ways": (
            f"{counted(card.rows, 'content')}, {card.violations:,} violate "
            f"({truth.source}); the band may miss {card.misses_allowed} of these"
        ),
        "below": f"{card.below:.4g}",
        "promise": _promise(request),
        "settles": _settles(card.settled),
    }


def _glance_sample(violates: np.ndarray) -> tuple[np.ndarray, float]:
    """Which contents glance is asked about.

    Returns:
        Their numbers, rising; and how many safe contents each safe one of these stands for, beside
        a violation.
    """
    random = np.random.default_rng
    bad = np.flatnonzero(violates)
    safe = np.flatnonzero(~violates)
    some_bad = bad[random(0).permutation(len(bad))[:GLANCED]]
    some_safe = safe[random(0).permutation(len(safe))[:GLANCED]]
    weight = 1.0
    if len(bad):
        weight = (len(safe) / max(1, len(some_safe))) / (len(bad) / max(1, len(some_bad)))
    return np.sort(np.concatenate([some_bad, some_safe])), weight


def _glances(job: Job, cascade: Cascade, texts: pa.Array) -> tuple[np.ndarray, str]:
    """Glance's P(violates) of each text, NaN where it gives none, and its judge key."""
    alone = job.model_copy(
        update={
            "input": Input(path="", content="content"),
            "cascade": [Step(glance=GlanceArgs())],
            "policies": [cascade.policy.id],
            "audit": 0.0,
        }
    )
    start_ray()
    rows = ray.data.from_arrow(pa.table({"number": range(len(texts)), "content": texts}))
    labelled = label_dataset(rows, alone, [cascade.policy])
    batches = labelled.iter_batches(batch_size=None, batch_format="pyarrow")
    with told_with_logs(), ray_errors():
        table = pa.concat_tables(list(batches)).sort_by("number")
    probability = structs(table.column(cascade.policy.id)).field("probability")
    [glance] = job_cascades(alone, [cascade.policy])
    return probability.to_numpy(zero_copy_only=False).astype(np.float64), glance.last.key


def _promise(request: CalibrationRequest) -> str:
    return (
        f"misses at most {request.max_miss:.3g} of violations, with confidence "
        f"{request.confidence:.3g}"
    )


def _settles(share: float) -> str:
    return f"{share:.1%} of contents, as far as the sample tells"
