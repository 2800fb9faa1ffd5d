"""How far reviewers agree with one another, policy by policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from moderay.labels.analysis.metrics.agreement import confusion
from moderay.labels.analysis.metrics.confusion import kappa_of
from moderay.labels.review_records import Review
from moderay.tasks.review.output import ReviewPolicy


@dataclass(frozen=True)
class PairAgreement:
    """Two people beside each other.

    Attributes:
        policy: Id of the policy.
        people: Their names.
        both: Contents that both gave a label.
        same: Of these, with the same label.
        same_side: Of these, on the same side: both violate, or neither.
        kappa: Cohen's, of the labels; None where it is undefined.
    """

    policy: str
    people: tuple[str, str]
    both: int
    same: int
    same_side: int
    kappa: float | None


def agreements(
    answers: Iterable[Review], policies: Mapping[str, ReviewPolicy]
) -> list[PairAgreement]:
    """Of each policy, all pairs of people who answered on the same contents.

    Args:
        answers: Each person's last words.
        policies: By id.
    """
    said: dict[str, dict[str, dict[str, str]]] = {}
    for review in answers:
        if review.label is not None and review.policy in policies:
            of_person = said.setdefault(review.policy, {}).setdefault(review.reviewer, {})
            of_person[review.content_hash] = review.label
    return [
        found
        for name, people in said.items()
        for pair in combinations(sorted(people), 2)
        if (found := _pair(policies[name], pair, people[pair[0]], people[pair[1]])) is not None
    ]


def _pair(
    policy: ReviewPolicy, pair: tuple[str, str], one: Mapping[str, str], other: Mapping[str, str]
) -> PairAgreement | None:
    both = sorted(one.keys() & other.keys())
    if not both:
        return None
    names = list(policy.labels)
    a = np.array([names.index(one[content]) for content in both], np.int64)
    b = np.array([names.index(other[content]) for content in both], np.int64)
    sides = np.array([label.violates for label in policy.labels.values()])
    [kappa] = kappa_of(confusion(a, b, names).counts[None])
    return PairAgreement(
        policy.id,
        pair,
        len(both),
        int((a == b).sum()),
        int((sides[a] == sides[b]).sum()),
        None if np.isnan(kappa) else round(float(kappa), 3),
    )
