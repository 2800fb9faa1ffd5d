"""What people said of contents: the reviews of an output, by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.core.storage import plain_errors
from moderay.labels.corrections import reviewed_policies
from moderay.labels.review_records import Review
from moderay.labels.reviews import ReviewStore, standing
from moderay.tasks.explain.output import OpenOutput
from moderay.tasks.explain.records import ReviewPart


@dataclass(frozen=True)
class SaidByPeople:
    """The reviews of one policy.

    Attributes:
        by_content: In order of time, answers that were taken back included.
        standing: Ids of those that count, as far as the policy's text is not looked at.
        policy_hash: Of the policy that the rows were judged by; None where no model was asked.
    """

    by_content: Mapping[str, Sequence[Review]]
    standing: frozenset[str]
    policy_hash: str | None

    @classmethod
    def of(cls, output: OpenOutput, policy: str) -> SaidByPeople:
        """Read an output's reviews of a policy."""
        with plain_errors(output.layout.url):
            given = [each for each in ReviewStore(output.layout).read() if each.policy == policy]
        by_content: dict[str, list[Review]] = {}
        for review in given:
            by_content.setdefault(review.content_hash, []).append(review)
        counted = frozenset(review.id for review in standing(given))
        judged_by = reviewed_policies(output.manifest).get(policy)
        return cls(by_content, counted, judged_by.hash if judged_by else None)

    def about(self, content_hash: str | None) -> tuple[ReviewPart, ...]:
        """What was said of a content, in order of time."""
        given = self.by_content.get(content_hash or "", ())
        return tuple(map(self._part, given))

    def _part(self, review: Review) -> ReviewPart:
        same = None if self.policy_hash is None else review.policy_hash == self.policy_hash
        of_review = {
            name: getattr(review, name)
            for name in ReviewPart.model_fields
            if name in Review.model_fields
        }
        return ReviewPart(**of_review, standing=review.id in self.standing, same_policy=same)
