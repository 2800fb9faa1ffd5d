"""`moderay calibrate`: labelled contents in, a screen or a band for glance out, with a card that
says what it promises.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from moderay.config.job import GlanceArgs, Input, Job, Step
from moderay.core.errors import UserError, nearest
from moderay.core.ray_runtime import start_ray
from moderay.core.verdicts import structs
from moderay.judges.cards import BandCard, Teacher
from moderay.judges.cascade import Cascade, policy_key
from moderay.judges.glance import save_band
from moderay.judges.screen import save_screen
from moderay.pipeline.check import Checked
from moderay.tasks.calibrate.screen_training import calibrate_cut, calibrate_screen
from moderay.tasks.calibrate.truth import Labelled, from_labels, from_people
from moderay.tasks.embed import job_cascades, label_dataset

# Contents of either kind that glance is asked about at most: the promise needs some dozens of
# violations, and the share that is settled an estimate.
GLANCED = 4000


def calibrate_judge(
    checked: Checked,
    policy: str,
    judge: str,
    labels: str | None,
    gold: str | None,
    max_miss: float,
    confidence: float,
    rows: int,
    out: Path,
) -> dict[str, str]:
    """Calibrate `judge` (screen or glance) for a policy of the job, and write it to the folder
    `out`. Returns what a person wants to know of it. Raises `UserError` where too little is
    labelled: nothing is written then.
    """
    cascade = _cascade(checked, policy)
    if judge not in ("screen", "glance"):
        raise UserError(f"--judge {judge!r}: valid are screen, glance")
    if (labels is None) == (gold is None):
        raise UserError(
            "say where the truth comes from: --from OUTPUT (verdicts already paid for) or --gold "
            "COLUMN (people)"
        )
    if not (0 < max_miss < 1 and 0 < confidence < 1):
        raise UserError("--max-miss and --confidence are shares between 0 and 1")
    if (
        judge == "glance"
        and checked.job.model.endpoint is not None
        and not checked.job.model.logprobs
    ):
        raise UserError(
            "a band of glance needs probabilities: say model.logprobs: true where the endpoint "
            "gives them, or calibrate a screen"
        )
    truth = (
        from_labels(checked, cascade, labels, rows)
        if labels is not None
        else from_people(checked, cascade.policy, gold or "", rows)
    )
    teacher = Teacher(
        policy=policy,
        threshold=cascade.policy.threshold,
        policy_key=policy_key(cascade.policy),
        judge_key=truth.judge_key,
        source=truth.source,
    )
    return (
        _screen(truth, teacher, max_miss, confidence, out)
        if judge == "screen"
        else _glance(checked.job, cascade, truth, teacher, max_miss, confidence, out)
    )


def _cascade(checked: Checked, policy: str) -> Cascade:
    found = next((cascade for cascade in checked.cascades if cascade.policy.id == policy), None)
    if found is None:
        raise UserError(
            f"--policy {policy!r} is no policy of this job; "
            f"{nearest(policy, [cascade.policy.id for cascade in checked.cascades])}"
        )
    return found


def _screen(
    truth: Labelled, teacher: Teacher, max_miss: float, confidence: float, out: Path
) -> dict[str, str]:
    screen = calibrate_screen(
        truth.texts, truth.violates, teacher=teacher, max_miss=max_miss, confidence=confidence
    )
    save_screen(screen, out)
    card = screen.card
    return {
        "trained on": (
            f"{card.rows:,} distinct contents, {card.violations:,} violate ({truth.source})"
        ),
        "held out": (
            f"{card.held_out_rows:,} contents, {card.held_out_violations:,} violate; the "
            f"cut-off may miss {card.misses_allowed} of these"
        ),
        "promise": _promise(max_miss, confidence),
        "settles": _settles(card.settled),
    }


def _glance(
    job: Job,
    cascade: Cascade,
    truth: Labelled,
    teacher: Teacher,
    max_miss: float,
    confidence: float,
    out: Path,
) -> dict[str, str]:
    chosen, safe_weight = _sample(truth.violates)
    probability, key = _glances(job, cascade, truth.texts.take(pa.array(chosen)))
    known = ~np.isnan(probability)
    violates = truth.violates[chosen][known]
    cut = calibrate_cut(probability[known], violates, max_miss, confidence, safe_weight)
    below = min(cut.cut_off, teacher.threshold)
    card = BandCard(
        teacher=teacher,
        key=key,
        below=below,
        rows=len(violates),
        violations=cut.violations,
        max_miss=max_miss,
        confidence=confidence,
        misses_allowed=cut.misses_allowed,
        settled=float(
            np.average(probability[known] < below, weights=np.where(violates, 1.0, safe_weight))
        ),
        created=datetime.now(UTC).date(),
    )
    save_band(card, out)
    return {
        "judged both ways": (
            f"{card.rows:,} contents, {card.violations:,} violate "
            f"({truth.source}); the band may miss {card.misses_allowed} of these"
        ),
        "below": f"{card.below:.4g}",
        "promise": _promise(max_miss, confidence),
        "settles": _settles(card.settled),
    }


def _sample(violates: np.ndarray) -> tuple[np.ndarray, float]:
    """Which contents glance is asked about, and how many safe ones each safe one of these stands
    for, beside a violation.
    """
    bad, safe = np.flatnonzero(violates), np.flatnonzero(~violates)
    taken = [
        rows[np.random.default_rng(0).permutation(len(rows))[:GLANCED]] for rows in (bad, safe)
    ]
    weight = (
        (len(safe) / max(1, len(taken[1]))) / (len(bad) / max(1, len(taken[0])))
        if len(bad)
        else 1.0
    )
    return np.sort(np.concatenate(taken)), weight


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
    found = pa.concat_tables(
        list(
            label_dataset(rows, alone, [cascade.policy]).iter_batches(
                batch_size=None, batch_format="pyarrow"
            )
        )
    )
    found = found.sort_by("number")
    said = structs(found.column(cascade.policy.id)).field("probability")
    return said.to_numpy(zero_copy_only=False).astype(np.float64), job_cascades(
        alone, [cascade.policy]
    )[0].last.key


def _promise(max_miss: float, confidence: float) -> str:
    return f"misses at most {max_miss:.3g} of violations, with confidence {confidence:.3g}"


def _settles(share: float) -> str:
    return f"{share:.1%} of contents, as far as the sample tells"
