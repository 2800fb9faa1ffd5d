"""What a policy's golden set says of contents like one that was judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moderay.config.policy import GoldenCase, Policy, golden_cases, load_policy
from moderay.corpus.golden import golden_content
from moderay.engines.harmony.prompt import instructions
from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.manifest_record import PolicyRecord
from moderay.tasks.explain.records import GoldenPart, GoldenSetPart
from moderay.tasks.policy.likeness import alike

# Cases that are shown at most, and how alike they must be at least.
NEAREST, LEAST = 3, 0.05
# Characters that are compared, and those of a case that are shown.
COMPARED, SHOWN = 20_000, 500


@dataclass(frozen=True)
class PolicyFolder:
    """A policy's folder.

    Attributes:
        policy: As it is there now.
        cases: Its labelled examples; None where it has none.
    """

    policy: Policy
    cases: Sequence[GoldenCase] | None

    def is_of(self, record: PolicyRecord) -> bool:
        """Whether the folder holds the text and the labels that this policy was judged by."""
        now = ReviewedPolicy.of(self.policy)
        return record.text == instructions(self.policy) and record.sides == now.labels

    def said_of(self, record: PolicyRecord, contents: Sequence[str | None]) -> list[GoldenSetPart]:
        """What it says of each content.

        Args:
            record: The policy as the contents were judged by it.
            contents: Their texts; None where a text is not to be had.
        """
        same = self.is_of(record)
        if self.cases is None:
            none = GoldenSetPart(searched=False, why_not="the policy has none", same_policy=same)
            return [none] * len(contents)
        nearest = self._nearest([(text or "")[:COMPARED] for text in contents])
        return [
            GoldenSetPart(
                searched=True, cases=len(self.cases), same_policy=same, nearest=tuple(parts)
            )
            if text is not None
            else GoldenSetPart(
                searched=False, why_not="the content is not to be had", cases=len(self.cases)
            )
            for text, parts in zip(contents, nearest, strict=True)
        ]

    def _nearest(self, texts: Sequence[str]) -> list[list[GoldenPart]]:
        cases = self.cases or ()
        known = [golden_content(case).text for case in cases]
        found: list[list[tuple[float, int]]] = [[] for _ in texts]
        for pair in alike(texts, [text[:COMPARED] for text in known], LEAST):
            found[pair.first].append((pair.likeness, pair.second))
        return [
            [
                self._part(number, likeness, known[number])
                for likeness, number in sorted(of_text, key=lambda each: (-each[0], each[1]))
            ][:NEAREST]
            for of_text in found
        ]

    def _part(self, number: int, likeness: float, text: str) -> GoldenPart:
        case = (self.cases or ())[number]
        return GoldenPart(
            line=number + 1,
            likeness=likeness,
            label=case.label,
            violates=self.policy.labels[case.label].violates,
            boundary=case.boundary,
            content=text[:SHOWN],
            language=case.language,
            source=case.source,
            note=case.note,
        )


def policy_folders(folders: Sequence[str | Path]) -> dict[str, PolicyFolder]:
    """Policy folders, by policy. Raises `Problems`."""
    found = {}
    for folder in folders:
        policy = load_policy(folder)
        found[policy.id] = PolicyFolder(policy, golden_cases(folder, policy))
    return found
