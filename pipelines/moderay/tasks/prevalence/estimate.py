"""What people's answers to a plan say: how much of all, of the kept and the removed violates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from moderay.core.errors import UserError
from moderay.core.storage import plain_errors, shown
from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.prevalence.interval import StratumHits, stratified_interval
from moderay.labels.corrections import ReviewedPolicy, corrections
from moderay.labels.layout import Layout
from moderay.labels.prevalence_records import (
    LeftOut,
    PrevalenceEstimate,
    PrevalencePlan,
    ReviewedStratum,
    ShareEstimate,
)
from moderay.labels.prevalence_store import add_estimate, read_plan, read_plans
from moderay.labels.review_records import Review
from moderay.labels.reviews import ReviewStore, answers

# Of a drawn row: nobody was asked, cannot say, as many say one side as the other, or the answer.
UNANSWERED, SKIPPED, DISPUTED, SAFE, VIOLATES = -3, -2, -1, 0, 1

Counts = npt.NDArray[np.int64]


def estimate_prevalence(
    url: str, storage: Mapping[str, Any], plan: str | None = None, policy: str | None = None
) -> list[PrevalenceEstimate]:
    """What the answers of an output say, and keep it.

    Args:
        url: of the output.
        storage: options of its storage.
        plan: id of a plan; None: of each policy the newest one that has an answer, or else the
            newest.
        policy: of this policy alone.

    Raises:
        UserError: there is no such plan, or none at all.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        plans = _plans(layout, plan, policy)
        reviews = ReviewStore(layout).read()
        by_policy: dict[str, PrevalenceEstimate] = {}
        for each in plans:
            made = estimate(each, reviews)
            before = by_policy.get(each.policy)
            if before is None or _answered(made) or not _answered(before):
                by_policy[each.policy] = made
        for made in by_policy.values():
            if _answered(made):
                add_estimate(layout, made)
    return list(by_policy.values())


def _plans(layout: Layout, plan: str | None, policy: str | None) -> list[PrevalencePlan]:
    """The plans that are meant, the newest last."""
    found = read_plans(layout) if plan is None else [read_plan(layout, plan)]
    found = [each for each in found if policy in (None, each.policy)]
    if not found:
        of = "" if policy is None else f" of {policy}"
        raise UserError(
            f"{shown(layout.url)}: no plan{of} says which rows to review: "
            "`moderay prevalence --plan` makes one"
        )
    return found


def _answered(made: PrevalenceEstimate) -> bool:
    return any(stratum.reviewed for stratum in made.strata)


def estimate(plan: PrevalencePlan, reviews: Iterable[Review]) -> PrevalenceEstimate:
    """What these reviews say of a plan's rows."""
    of_policy = [review for review in reviews if review.policy == plan.policy]
    valid, left_out = _sorted_out(plan, of_policy)
    given = _answers(plan, valid, [review for review in of_policy if review.withdraws])
    said = np.array([given.by_content.get(row.content_hash, UNANSWERED) for row in plan.rows])
    numbers = np.array([row.stratum for row in plan.rows])
    count = len(plan.strata)
    answered = said >= SAFE
    reviewed = np.bincount(numbers[answered], minlength=count)
    hits = np.bincount(numbers[said == VIOLATES], minlength=count)
    rows = np.array([stratum.rows for stratum in plan.strata])
    removed = np.array([stratum.removed for stratum in plan.strata])

    def share(chosen: npt.NDArray[np.bool_]) -> ShareEstimate | None:
        return _share(rows[chosen], reviewed[chosen], hits[chosen], plan.confidence)

    return PrevalenceEstimate(
        plan=plan.id,
        planned=plan.created,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        policy=plan.policy,
        policy_hash=plan.policy_hash,
        threshold=plan.threshold,
        confidence=plan.confidence,
        judged=plan.judged,
        unjudged=plan.unjudged,
        corpus=share(np.ones(count, bool)),
        kept=share(~removed),
        removed=share(removed),
        strata=tuple(
            ReviewedStratum(**stratum.model_dump(), reviewed=int(n), hits=int(k))
            for stratum, n, k in zip(plan.strata, reviewed, hits, strict=True)
        ),
        unanswered=int((said == UNANSWERED).sum()),
        skipped=int((said == SKIPPED).sum()),
        disputed=int((said == DISPUTED).sum()),
        assisted=sum(row.content_hash in given.assisted for row in plan.rows),
        reviewers=given.reviewers,
        left_out=left_out,
    )


def _share(rows: Counts, reviewed: Counts, hits: Counts, confidence: float) -> ShareEstimate | None:
    """The estimate of some strata; None where there are none, or one has no answer."""
    if not len(rows) or not reviewed.all():
        return None
    sample = StratumHits.of(rows, reviewed, hits)
    low, high = stratified_interval(sample, confidence)
    share, n = float(sample.share), int(reviewed.sum())
    return ShareEstimate(
        rows=int(rows.sum()),
        reviews=n,
        hits=int(hits.sum()),
        share=share,
        low=float(low),
        high=float(high),
        effective=float(sample.effective_size),
        classical=interval(share * n, n, confidence),
    )


@dataclass(frozen=True)
class _Given:
    """What people said of a plan's contents.

    Attributes:
        by_content: by content hash, from `SKIPPED` to `VIOLATES`.
        assisted: contents of which somebody saw the model's verdict first.
        reviewers: who answered.
    """

    by_content: Mapping[str, int]
    assisted: frozenset[str]
    reviewers: tuple[str, ...]


def _sorted_out(plan: PrevalencePlan, reviews: Sequence[Review]) -> tuple[list[Review], LeftOut]:
    """The answers that count for a plan, and how many do not."""
    drawn = {row.content_hash for row in plan.rows}
    valid: list[Review] = []
    left = dict.fromkeys(LeftOut.model_fields, 0)
    withdrawn = {review.withdraws for review in reviews}
    for review in reviews:
        if review.withdraws or review.id in withdrawn:
            continue
        if reason := _refusal(plan, review, drawn):
            left[reason] += 1
        else:
            valid.append(review)
    return valid, LeftOut(**left)


def _refusal(plan: PrevalencePlan, review: Review, drawn: set[str]) -> str | None:
    """The field of `LeftOut` that an answer is counted under; None where it counts."""
    if review.plan is None:
        return "picked"
    if review.plan != plan.id:
        return "other_plan"
    if review.content_hash not in drawn:
        return "not_drawn"
    known = review.label is None or review.label in plan.labels
    return None if known and review.policy_hash == plan.policy_hash else "other_text"


def _answers(
    plan: PrevalencePlan, valid: Sequence[Review], withdrawals: Sequence[Review]
) -> _Given:
    last = answers([*valid, *withdrawals])
    asked = {plan.policy: ReviewedPolicy(plan.policy_hash, plan.labels)}
    decided = corrections([*valid, *withdrawals], asked)
    by_content = {review.content_hash: SKIPPED for review in last}
    by_content |= {content: DISPUTED for _, content in decided.disputed}
    by_content |= {
        content: VIOLATES if made.violates else SAFE
        for content, made in decided.by_policy[plan.policy].items()
    }
    return _Given(
        by_content,
        frozenset(review.content_hash for review in last if review.assisted),
        tuple(sorted({review.reviewer for review in last})),
    )
