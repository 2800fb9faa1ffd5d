"""`moderay calibrate --judge reason`: P of the reasoner, fitted to what people said of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.config.job import Gold
from moderay.core.errors import UserError
from moderay.core.hashing import number
from moderay.core.storage import RemoteFile, plain_errors, shown
from moderay.core.verdicts import CONTENT_HASH, ROW, structs, todays_form
from moderay.core.wording import counted
from moderay.corpus.shard import Shard
from moderay.judges.calibration import CalibratedFigure, CalibrationCard
from moderay.judges.cards import Teacher
from moderay.judges.cascade import Cascade, policy_key
from moderay.labels.analysis.calibration_fit import FOLDS, Fitted, fit_calibration
from moderay.labels.analysis.metrics.score_estimates import ScoreFigure, score_estimates
from moderay.labels.analysis.metrics.scores import ScoreHistogram
from moderay.labels.decisions import verdicts
from moderay.labels.layout import Layout
from moderay.pipeline.check import Checked
from moderay.tasks.calibrate.truth import JudgedShards, judged_shards
from moderay.tasks.gold import UNKNOWN
from moderay.tasks.gold_source import GoldReader, gold_option, gold_reader

REASON = "reason"
# Of either side: fewer say nothing of the ends of P.
FEWEST = 20


@dataclass(frozen=True, eq=False)
class Rated:
    """Distinct contents with P of the judge, and what people said.

    Attributes:
        hashes: Of the contents.
        probability: float32: P(violates) as the model gave it.
        violates: Bool.
        weights: float64: for how many rows each stands.
    """

    hashes: tuple[str, ...]
    probability: np.ndarray
    violates: np.ndarray
    weights: np.ndarray

    @property
    def folds(self) -> np.ndarray:
        """int64: in which fold each is held out, as many of either side in each."""
        order = np.argsort([number(f"fold:{each}") for each in self.hashes], kind="stable")
        folds = np.empty(len(order), np.int64)
        for side in (False, True):
            own = order[self.violates[order] == side]
            folds[own] = np.arange(len(own)) % FOLDS
        return folds


@dataclass(frozen=True)
class CalibratedReason:
    """A calibration, and what people want to know of it.

    Attributes:
        card: What is written.
        told: By title.
    """

    card: CalibrationCard
    told: dict[str, str]


def calibrate_reason(
    checked: Checked, cascade: Cascade, labels: str | None, gold: str | None
) -> CalibratedReason:
    """Fit the map of a policy; no model is asked.

    Args:
        checked: The job and its input.
        cascade: Of the policy.
        labels: URL of an output with the judge's verdicts; None: the job's own.
        gold: As `gold_source.gold_option` takes it; None: the job's `gold:`.

    Raises:
        UserError: There is too little gold, no P, or the map would not help.
    """
    policy = cascade.policy
    if cascade.last.name != REASON:
        raise UserError("--judge reason: this job's cascade has no reason")
    judged = judged_shards(checked, cascade, labels or checked.job.output.path)
    if judged.judge_key != cascade.last.key:
        raise UserError(
            f"{shown(judged.layout.url)} was judged by another reason than this job's (model, "
            "effort, sampling, budget, windows or the policy's text): run the job first"
        )
    source = _source(checked, cascade, gold)
    reader = gold_reader(checked, policy, source, f"gold.{policy.id}")
    rated = _rated(judged, checked, cascade, reader)
    _assert_enough(rated)
    fitted = fit_calibration(REASON, rated.probability, rated.violates, rated.weights, rated.folds)
    if not fitted.helps:
        raise UserError(
            f"P is as good as it is: its log loss is {fitted.log_loss['raw']:.4g}, and that of "
            f"the better map {min(fitted.log_loss[name] for name in fitted.held_out):.4g} where it "
            "was not fitted; nothing is written"
        )
    card = _card(cascade, rated, fitted, f"{reader.source}; P in {shown(judged.layout.url)}")
    return CalibratedReason(card, _told(card, reader.note))


def _source(checked: Checked, cascade: Cascade, gold: str | None) -> Gold | Literal["reviews"]:
    if gold is not None:
        return gold_option(checked, gold)
    if cascade.policy.id in checked.job.gold:
        return checked.job.gold[cascade.policy.id]
    raise UserError("say where people's word is: --gold reviews or --gold COLUMN")


def _rated(judged: JudgedShards, checked: Checked, cascade: Cascade, reader: GoldReader) -> Rated:
    """What both said of the contents of an output, each once."""
    found: dict[str, tuple[float, bool, float]] = {}
    for shard in judged.shards:
        answers = reader.of(shard)
        for row, content, probability in _of_reason(judged.layout, shard, cascade):
            side = answers.violates[row]
            if side != UNKNOWN and content not in found:
                weight = 1.0 if answers.weights is None else float(answers.weights[row])
                found[content] = (probability, bool(side), weight)
    values = list(found.values())
    return Rated(
        tuple(found),
        np.array([probability for probability, _, _ in values], np.float32),
        np.array([side for _, side, _ in values], bool),
        np.array([weight for _, _, weight in values], np.float64),
    )


def _of_reason(layout: Layout, shard: Shard, cascade: Cascade) -> Iterator[tuple[int, str, float]]:
    """Rows that reason decided, with the hash of their content and P as the model gave it."""
    policy = cascade.policy
    with (
        plain_errors(layout.url),
        pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard.name)), pre_buffer=True) as file,
    ):
        table = file.read(columns=[ROW.name, CONTENT_HASH.name, policy.id])
    said = verdicts(todays_form(structs(table.column(policy.id))))
    own = pc.and_(
        pc.fill_null(pc.equal(said.field("decided_by"), REASON), False),
        said.field("scores").is_valid(),
    )
    scores = said.field("scores").filter(own).flatten().to_numpy(zero_copy_only=False)
    probability = policy.rule.probabilities(scores.reshape(-1, len(policy.labels)))
    rows, hashes = (
        table.column(name).combine_chunks().filter(own) for name in (ROW.name, CONTENT_HASH.name)
    )
    yield from zip(rows.to_pylist(), hashes.to_pylist(), probability.tolist(), strict=True)


def _assert_enough(rated: Rated) -> None:
    violating = int(rated.violates.sum())
    safe = len(rated.violates) - violating
    for count, name in ((violating, "violate"), (safe, "do not")):
        if count < FEWEST:
            raise UserError(
                f"{counted(count, 'content')} with gold and P of reason that {name} are too few: "
                f"label {FEWEST - count} more"
            )


def _card(cascade: Cascade, rated: Rated, fitted: Fitted, source: str) -> CalibrationCard:
    policy, made = cascade.policy, fitted.calibration
    return CalibrationCard(
        teacher=Teacher(
            policy=policy.id,
            threshold=policy.threshold,
            policy_key=policy_key(policy),
            judge_key=cascade.last.key,
            source=source,
        ),
        method=made.method,
        numbers=made.numbers,
        rows=len(rated.violates),
        violations=int(rated.violates.sum()),
        folds=FOLDS,
        log_loss=dict(fitted.log_loss),
        brier=_figure("brier", rated, fitted),
        calibration_error=_figure("calibration_error", rated, fitted),
        created=datetime.now(UTC).date(),
    )


def _figure(name: ScoreFigure, rated: Rated, fitted: Fitted) -> CalibratedFigure:
    weights = None if (rated.weights == 1).all() else rated.weights
    before, after = (
        score_estimates(ScoreHistogram.of(p, rated.violates, weights))[name]
        for p in (rated.probability, fitted.held_out[fitted.calibration.method])
    )
    assert before is not None and after is not None
    return CalibratedFigure(
        before=before.value,
        before_low=before.low,
        before_high=before.high,
        after=after.value,
        after_low=after.low,
        after_high=after.high,
    )


def _told(card: CalibrationCard, note: str | None) -> dict[str, str]:
    losses = ", ".join(f"{name} {loss:.4g}" for name, loss in card.log_loss.items())
    told = {
        "fitted to": (
            f"{counted(card.rows, 'content')}, {card.violations:,} violate ({card.teacher.source})"
        ),
        "method": f"{card.method}: the least log loss on held-out contents ({losses})",
        "Brier score": _change(card.brier),
        "calibration error": _change(card.calibration_error),
    }
    return told if note is None else told | {"note": note}


def _change(figure: CalibratedFigure) -> str:
    return (
        f"{figure.before:.3f} ({figure.before_low:.3f} to {figure.before_high:.3f}) before, "
        f"{figure.after:.3f} ({figure.after_low:.3f} to {figure.after_high:.3f}) after, on "
        "held-out contents"
    )
