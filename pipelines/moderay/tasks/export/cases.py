"""What people said, content by content: the corrections of an output, and golden cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from moderay.config.policy import GoldenCase
from moderay.core.storage import plain_errors
from moderay.core.verdicts import CONTENT_HASH, ROW, Status
from moderay.corpus.golden import golden_content
from moderay.labels.corrections import Correction, Corrections, corrections, reviewed_policies
from moderay.labels.review_records import Review
from moderay.labels.reviews import ReviewStore
from moderay.tasks.explain.output import OpenOutput
from moderay.tasks.export.policies import TaughtPolicy


@dataclass(frozen=True)
class Case:
    """A content with the answer that people gave.

    Attributes:
        policy: Id.
        content_hash: Of the content.
        text: As the model reads it.
        label: The right one.
        violates: Whether that violates.
        source: Whether a review says so, or a golden case.
        rationale: Why, in a person's words, or in the model's where people confirmed it.
        reasoning: The model's, where people confirmed its verdict.
    """

    policy: str
    content_hash: str
    text: str
    label: str
    violates: bool
    source: Literal["review", "golden"]
    rationale: str | None = None
    reasoning: str | None = None


@dataclass
class Reviewed:
    """The cases that reviews make.

    Attributes:
        cases: By policy and content.
        left_out: Reviewed contents that make none, by reason.
    """

    cases: list[Case] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def reviewed_cases(output: OpenOutput, policies: Sequence[TaughtPolicy]) -> Reviewed:
    """What the standing reviews of an output decide, with the contents and what the model said.

    A content is read where it was reviewed, and counts only under the hash that was.
    """
    with plain_errors(output.layout.url):
        reviews = ReviewStore(output.layout).read()
    known = reviewed_policies(output.manifest)
    wanted = {policy.id: policy for policy in policies}
    decided = corrections(reviews, {name: known[name] for name in wanted})
    found = Reviewed()
    found.left_out["void"] = len(decided.void)
    found.left_out["disputed"] = len(decided.disputed)
    for shard, places in _places(reviews, decided).items():
        if shard not in output.shards:
            found.left_out["missing"] += len(places)
            continue
        _add(found, output, shard, places, wanted)
    return found


# Of a correction: the row where its content was shown.
_Places = list[tuple[int, Correction]]


def _places(reviews: Sequence[Review], decided: Corrections) -> dict[str, _Places]:
    """By shard, the rows where corrected contents were shown, rising."""
    seen = {review.id: (review.shard, review.row) for review in reviews}
    places: dict[str, _Places] = {}
    for of_policy in decided.by_policy.values():
        for correction in of_policy.values():
            shard, row = seen[correction.reviews[0]]
            places.setdefault(shard, []).append((row, correction))
    for of_shard in places.values():
        of_shard.sort(key=lambda place: place[0])
    return places


def _add(
    found: Reviewed,
    output: OpenOutput,
    shard: str,
    places: _Places,
    policies: Mapping[str, TaughtPolicy],
) -> None:
    """The cases of one shard."""
    rows = np.unique([row for row, _ in places])
    table = output.rows(shard, rows)
    hashes = dict(
        zip(
            table.column(ROW.name).to_pylist(),
            table.column(CONTENT_HASH.name).to_pylist(),
            strict=True,
        )
    )
    positions = np.array(list(hashes), np.int64)
    contents = output.contents.read(output.marker(shard), positions, list(hashes.values()))
    texts = dict(zip(hashes, (content.text for content in contents), strict=True))
    number = {row: at for at, row in enumerate(hashes)}
    decisions = {
        name: table.column(name).to_pylist() for name in policies if name in table.column_names
    }
    for row, correction in places:
        text = texts.get(row)
        if hashes.get(row) != correction.content_hash or text is None:
            found.left_out["missing"] += 1
        elif not text.strip():
            found.left_out["empty"] += 1
        else:
            of_policy = decisions.get(correction.policy)
            decision = of_policy[number[row]] if of_policy else {}
            found.cases.append(_case(correction, text, decision))


def _case(correction: Correction, text: str, decision: Mapping[str, Any]) -> Case:
    rationale, reasoning = confirmed(decision, correction.label)
    return Case(
        correction.policy,
        correction.content_hash,
        text,
        correction.label,
        correction.violates,
        "review",
        correction.note or rationale,
        reasoning,
    )


def confirmed(decision: Mapping[str, Any], label: str) -> tuple[str | None, str | None]:
    """Rationale and reasoning of a verdict, where its label is the one that people said.

    Only those of the reasoner's own answer: a rule's rationale is its id, an answer that had to be
    asked for does not follow from its reasoning, and one over several windows is of one alone.

    Args:
        decision: A label row's struct of one policy.
        label: What people said.
    """
    trace = decision.get("trace") or {}
    verdict = trace.get("overruled") or {**decision, "decided_by": trace.get("decided_by")}
    agrees = verdict.get("label") == label and verdict.get("status") == Status.OK
    own = verdict.get("decided_by") == "reason" and not trace.get("forced")
    if not agrees or not own or (trace.get("windows") or 1) > 1 or trace.get("answer"):
        return None, None
    return verdict.get("rationale"), decision.get("reasoning") or None


def golden_cases_of(policy: TaughtPolicy, cases: Sequence[GoldenCase]) -> Iterator[Case]:
    """A policy's golden cases."""
    for case in cases:
        content = golden_content(case)
        if content.hash is not None and content.text:
            yield Case(
                policy.id,
                content.hash,
                content.text,
                case.label,
                policy.labels[case.label],
                "golden",
                case.note,
            )
