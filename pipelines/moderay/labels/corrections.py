"""Corrections: what people's reviews decide, content by content.

A correction is of a content under a policy's text, whatever the shard and the night: it is made of
the standing answers of all who were asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from moderay.config.policy import Policy
from moderay.core.hashing import digest
from moderay.core.wording import are, counted
from moderay.engines.harmony.prompt import instructions
from moderay.labels.layout import Layout
from moderay.labels.manifest_record import Manifest
from moderay.labels.overruling import ANSWER
from moderay.labels.review_records import Review, policy_hash
from moderay.labels.reviews import ReviewStore, standing


@dataclass(frozen=True)
class ReviewedPolicy:
    """A policy as far as a review depends on it.

    Attributes:
        hash: as `policy_hash` gives it of its text and labels.
        labels: whether each label violates, by name, mildest first.
    """

    hash: str
    labels: Mapping[str, bool]

    @staticmethod
    def of(policy: Policy) -> ReviewedPolicy:
        """What reviews under this policy are held against: its text as the model reads it."""
        labels = {name: label.violates for name, label in policy.labels.items()}
        return ReviewedPolicy(policy_hash(instructions(policy), labels), labels)


def reviewed_policies(manifest: Manifest) -> dict[str, ReviewedPolicy]:
    """The policies of an output, by id; one that no model was asked about is left out."""
    return {
        name: ReviewedPolicy(policy_hash(policy.text, policy.sides), policy.sides)
        for name, policy in manifest.policies.items()
        if policy.text is not None
    }


@dataclass(frozen=True)
class Correction:
    """What people decided of one content under one policy.

    Attributes:
        content_hash: of the content.
        policy: id of the policy.
        label: one of its labels.
        violates: whether that label violates.
        reviewers: who said so, in the order of time; those who said otherwise are not among them.
        reviews: ids of their answers, parallel to `reviewers`.
        time: of the last of these.
        note: the last one that was given with them.
    """

    content_hash: str
    policy: str
    label: str
    violates: bool
    reviewers: tuple[str, ...]
    reviews: tuple[str, ...]
    time: str
    note: str | None = None


@dataclass(frozen=True)
class Corrections:
    """What the reviews of an output decide.

    Attributes:
        by_policy: corrections by policy and content hash.
        void: answers that were given under another text of the policy, and count no more.
        disputed: (policy, content hash) on which as many people say one side as the other; there
            the model's verdict stands.
    """

    by_policy: Mapping[str, Mapping[str, Correction]] = field(default_factory=dict)
    void: tuple[Review, ...] = ()
    disputed: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        """Contents that are corrected, each policy for itself."""
        return sum(map(len, self.by_policy.values()))

    def columns(self) -> dict[str, pa.Table]:
        """By policy: rows of `ANSWER`, by content hash."""
        return {
            policy: pa.Table.from_pylist(
                [
                    {"content_hash": content, "label": made.label, "note": made.note}
                    for content, made in sorted(answers.items())
                ],
                schema=ANSWER,
            )
            for policy, answers in self.by_policy.items()
        }

    @property
    def notes(self) -> Iterator[str]:
        """What a person should know of it, a sentence each."""
        for policy, count in Counter(review.policy for review in self.void).items():
            yield (
                f"{policy}: {counted(count, 'answer')} of people {are(count)} void: the policy's "
                "text has changed since; they count for nothing until they are given again"
            )
        for policy, count in Counter(policy for policy, _ in self.disputed).items():
            yield (
                f"{policy}: on {counted(count, 'content')} as many people say one side as the "
                "other; the judges' verdict stands there"
            )

    @property
    def digest(self) -> str:
        """Hash of what it decides; of nothing, the empty string."""
        if not len(self):
            return ""
        return digest(
            [
                [policy, content, made.label, made.note]
                for policy, answers in sorted(self.by_policy.items())
                for content, made in sorted(answers.items())
            ]
        )


def corrections(reviews: Iterable[Review], policies: Mapping[str, ReviewedPolicy]) -> Corrections:
    """What people decided under today's texts.

    Of several people the side that more of them took counts, and there the label that most of them
    said: of labels that were said as often, the mildest. Where both sides have as many, nothing is
    decided.

    Args:
        reviews: of an output, or of several.
        policies: by id; reviews of others are left out.
    """
    given = [review for review in reviews if review.policy in policies or review.withdraws]
    withdrawals = [review for review in given if review.withdraws is not None]
    valid: list[Review] = []
    others: list[Review] = []
    for review in given:
        if review.withdraws is None:
            (valid if _is_valid(review, policies[review.policy]) else others).append(review)
    by_content: dict[tuple[str, str], list[Review]] = {}
    for review in standing([*valid, *withdrawals]):
        by_content.setdefault((review.policy, review.content_hash), []).append(review)
    by_policy: dict[str, dict[str, Correction]] = {name: {} for name in policies}
    disputed = []
    for (policy, content), said in by_content.items():
        made = _correction(said, policies[policy].labels)
        if made is None:
            disputed.append((policy, content))
        else:
            by_policy[policy][content] = made
    again = {_asked(review) for said in by_content.values() for review in said}
    void = [review for review in standing([*others, *withdrawals]) if _asked(review) not in again]
    return Corrections(by_policy, tuple(void), tuple(disputed))


def read_corrections(layout: Layout, policies: Mapping[str, ReviewedPolicy]) -> Corrections:
    """What people decided of an output's contents, under these policies.

    Raises:
        RecordRefusedError: An answer is damaged, or of another version.
        OSError: The storage keeps failing.
    """
    return corrections(ReviewStore(layout).read(), policies)


def _is_valid(review: Review, policy: ReviewedPolicy) -> bool:
    """Whether an answer was given under today's text."""
    known = review.label is None or review.label in policy.labels
    return review.policy_hash == policy.hash and known


def _asked(review: Review) -> tuple[str, str, str]:
    """Who was asked what."""
    return review.reviewer, review.content_hash, review.policy


def _correction(said: Sequence[Review], labels: Mapping[str, bool]) -> Correction | None:
    """What these people's answers on one content decide; None for a tie of the sides."""
    label = said[0].label if len(said) == 1 else _most_said(said, labels)
    if label is None:
        return None
    agreed = [review for review in said if review.label == label]
    notes = [review.note for review in agreed if review.note]
    return Correction(
        said[0].content_hash,
        said[0].policy,
        label,
        labels[label],
        tuple(review.reviewer for review in agreed),
        tuple(review.id for review in agreed),
        agreed[-1].time,
        notes[-1] if notes else None,
    )


def _most_said(said: Sequence[Review], labels: Mapping[str, bool]) -> str | None:
    """The label that most of the larger side said; None for a tie of the sides."""
    counts = Counter(review.label for review in said)
    violating = sum(count for label, count in counts.items() if label and labels[label])
    if 2 * violating == len(said):
        return None
    violates = 2 * violating > len(said)
    return max((name for name in labels if labels[name] == violates), key=lambda n: counts[n])
