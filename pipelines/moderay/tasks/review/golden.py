"""Golden cases of what people answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moderay.config.policy import GoldenCase, Turn, golden_cases, load_policy
from moderay.labels.corrections import Correction, ReviewedPolicy, corrections
from moderay.labels.review_records import Review
from moderay.labels.reviews import ReviewStore
from moderay.tasks.output_contents import FoundContent
from moderay.tasks.review.contents import content_of
from moderay.tasks.review.items import Item, Key
from moderay.tasks.review.output import ReviewedOutput, ReviewPolicy
from moderay.tasks.workbench.policy import GOLDEN, add_golden


@dataclass(frozen=True)
class GoldenAdded:
    """What became of a policy's reviews.

    Attributes:
        policy: Its id.
        file: The golden set.
        added: Cases that are new in it.
        known: Contents that it had already.
        disputed: Contents on which people are divided.
        void: Answers to another text of the policy.
        unreadable: Why contents could not be read.
    """

    policy: str
    file: Path
    added: int
    known: int
    disputed: int
    void: int
    unreadable: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether nobody has said anything under this policy."""
        return not (self.added or self.known or self.disputed or self.void or self.unreadable)


def add_golden_cases(
    output: ReviewedOutput, policies: Sequence[ReviewPolicy], folder: Path
) -> list[GoldenAdded]:
    """Add what people decided to the policies' golden sets.

    Args:
        output: With the reviews.
        policies: Of it.
        folder: In which the policies' folders are, by id.

    Raises:
        Problems: A policy or its golden set does not load.
    """
    reviews = ReviewStore(output.layout).read()
    return [_add(output, policy, folder / policy.id, reviews) for policy in policies]


def _add(
    output: ReviewedOutput, policy: ReviewPolicy, folder: Path, reviews: Sequence[Review]
) -> GoldenAdded:
    written = load_policy(folder)
    decided = corrections(reviews, {policy.id: ReviewedPolicy.of(written)})
    by_id = {review.id: review for review in reviews}
    known = {case.content for case in golden_cases(folder, written) or ()}
    added, before, unreadable = 0, 0, []
    for correction in decided.by_policy[policy.id].values():
        review = by_id[correction.reviews[-1]]
        content = content_of(
            output,
            Item(Key(policy.id, review.content_hash), review.shard, review.row, review.queue),
        )
        if content.missing:
            unreadable.append(content.missing)
        elif (case := _case(content, correction, review)).content in known:
            before += 1
        else:
            add_golden(folder, case)
            known.add(case.content)
            added += 1
    return GoldenAdded(
        policy.id,
        folder / GOLDEN,
        added,
        before,
        len(decided.disputed),
        len(decided.void),
        tuple(unreadable),
    )


def _case(content: FoundContent, correction: Correction, review: Review) -> GoldenCase:
    turns = tuple(Turn(role=turn.role, content=turn.content) for turn in content.turns)
    return GoldenCase(
        content=turns or content.text or "",
        label=correction.label,
        source=f"review of {review.shard} row {review.row}",
        note=correction.note,
    )
