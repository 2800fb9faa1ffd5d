"""Where reviewers answer: what each is asked next, and every answer kept before it is told so."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.core.errors import UserError
from moderay.labels.review_records import Review, review_time, session_id
from moderay.labels.reviews import ReviewStore, answers
from moderay.tasks.review.items import Item, Key
from moderay.tasks.review.output import ReviewPolicy


class UnknownItemError(UserError):
    """An answer to what is not asked here."""


class OtherAnswerError(UserError):
    """An answer whose id is another one's."""


@dataclass(frozen=True)
class Answer:
    """What a person says.

    Attributes:
        id: Of the answer: one that is sent again has the same.
        key: What was asked.
        label: One of the policy's; None where the person cannot say.
        note: Why, in the person's words.
        withdraws: Id of an answer that is taken back instead.
    """

    id: str
    key: Key
    label: str | None
    note: str | None = None
    withdraws: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a person is.

    Attributes:
        total: Items that are asked about.
        labelled: Of these, with a label.
        skipped: Of these, skipped.
    """

    total: int
    labelled: int
    skipped: int


class Desk:
    """The reviewers of one server, and what they answered.

    Several threads may ask it. Other servers of the same output are seen when `refresh` reads.
    """

    def __init__(
        self,
        store: ReviewStore,
        items: Sequence[Item],
        policies: Mapping[str, ReviewPolicy],
        reviewers: Sequence[str],
        assisted: bool,
    ) -> None:
        """Goes on with what is kept.

        Args:
            store: Of the output.
            items: In the order in which they are asked.
            policies: By id.
            reviewers: Who answers here.
            assisted: Whether they see the model's verdict beforehand.
        """
        self.items = {item.key: item for item in items}
        self.policies = policies
        self.sessions = {name: session_id() for name in reviewers}
        self.assisted = assisted
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, Review] = {}
        self._unsaved: dict[str, Review] = {}
        self.refresh()

    def refresh(self) -> None:
        """See what was answered elsewhere."""
        found = self._store.read()
        with self._lock:
            for review in found:
                self._known.setdefault(review.id, review)

    def give(self, reviewer: str, answer: Answer) -> Review:
        """Keep an answer; when this returns, it is on the storage.

        One that came before, by its id, is not kept again.

        Raises:
            UnknownItemError: Nothing like it is asked.
            OtherAnswerError: Its id is another answer's.
            ModerayError: It could not be kept.
        """
        with self._lock:
            review = self._known.get(answer.id) or self._unsaved.get(answer.id)
            if review is None:
                review = self._review(reviewer, answer)
                self._unsaved[answer.id] = review
        if not _is_same(review, reviewer, answer):
            raise OtherAnswerError(f"answer {answer.id} was given before, with other words")
        if answer.id not in self._known:
            # The same bytes each time: that it was kept by a try whose end got lost does no harm.
            self._store.add(review)
        with self._lock:
            self._known[review.id] = review
            self._unsaved.pop(review.id, None)
        return review

    def next_item(self, reviewer: str) -> Item | None:
        """The first that a person has not answered; None where all are."""
        done = self.answers_of(reviewer)
        return next((item for key, item in self.items.items() if key not in done), None)

    def answers_of(self, reviewer: str) -> dict[Key, Review]:
        """A person's last words on what is asked here, skipped items included, in time's order."""
        return {
            Key(review.policy, review.content_hash): review
            for review in self.answers()
            if review.reviewer == reviewer
        }

    def answers(self) -> list[Review]:
        """Everybody's last words on what is asked here, under the policies' texts of today."""
        with self._lock:
            known = list(self._known.values())
        return [
            review
            for review in answers(known)
            if Key(review.policy, review.content_hash) in self.items
            and review.policy_hash == self.policies[review.policy].hash
        ]

    def last_of(self, reviewer: str) -> Review | None:
        """What a person said last: that is what undo takes back."""
        given = list(self.answers_of(reviewer).values())
        return given[-1] if given else None

    def progress(self, reviewer: str) -> Progress:
        """How far a person is."""
        counts = Counter(review.label is None for review in self.answers_of(reviewer).values())
        return Progress(len(self.items), counts[False], counts[True])

    def close(self) -> None:
        """Put the answers of each sitting together."""
        for session in self.sessions.values():
            self._store.merge(session)

    def _has_seen(self, reviewer: str, key: Key) -> bool:
        """Whether a person saw the model's verdict on an item: it is shown after an answer."""
        return self.assisted or any(
            review.reviewer == reviewer
            and review.label is not None
            and (review.policy, review.content_hash) == key
            for review in self._known.values()
        )

    def _review(self, reviewer: str, answer: Answer) -> Review:
        item = self.items.get(answer.key)
        if item is None:
            raise UnknownItemError(
                f"{answer.key.policy}: no content {answer.key.content_hash} is asked about here"
            )
        policy = self.policies[answer.key.policy]
        if answer.label is not None and answer.label not in policy.labels:
            raise UnknownItemError(f"{policy.id} has no label {answer.label!r}")
        before = self._known.get(answer.withdraws or "")
        if answer.withdraws and (before is None or before.reviewer != reviewer):
            raise UnknownItemError(f"{reviewer} gave no answer {answer.withdraws}")
        return Review(
            id=answer.id,
            session=self.sessions[reviewer],
            reviewer=reviewer,
            time=review_time(),
            policy=policy.id,
            policy_hash=policy.hash,
            content_hash=item.key.content_hash,
            shard=item.shard,
            row=item.row,
            label=None if answer.withdraws else answer.label,
            note=answer.note or None,
            queue=item.queue,
            plan=item.plan,
            assisted=self._has_seen(reviewer, answer.key),
            withdraws=answer.withdraws,
        )


def _is_same(review: Review, reviewer: str, answer: Answer) -> bool:
    """Whether a kept answer is the one that came again."""
    return (
        review.reviewer,
        Key(review.policy, review.content_hash),
        review.label,
        review.note,
        review.withdraws,
    ) == (reviewer, answer.key, answer.label, answer.note or None, answer.withdraws)
