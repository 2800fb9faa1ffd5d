"""Findings about two policies of a job: texts that overlap, cases that they see differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from moderay.tasks.policy.finding import Code, Finding
from moderay.tasks.policy.golden_set import case_text
from moderay.tasks.policy.likeness import alike, normal
from moderay.tasks.policy.source import PolicySource

# Of the shorter policy's rules, those that the other has as well.
MOST_SHARED = 0.3
# From this likeness on, two lines say the same.
SAME_LINE = 0.6
# Characters in normal form; shorter lines are headings and marks.
_SHORTEST = 20
# They say the same in every policy: what is decided, and that orders in a content are content.
_SHARED_BY_ALL = ("INSTRUCTIONS",)


def overlap_findings(sources: Sequence[PolicySource]) -> Iterator[Finding]:
    """Of each two policies."""
    for first, second in combinations(sources, 2):
        yield from _texts(first, second)
        yield from _cases(first, second)


def _texts(first: PolicySource, second: PolicySource) -> Iterator[Finding]:
    rules, others = _rules(first), _rules(second)
    fewer = min(len(rules), len(others))
    like = list(alike([text for _, text in rules], [text for _, text in others], SAME_LINE))
    shared = min(len({pair.first for pair in like}), len({pair.second for pair in like}))
    if not fewer or shared < MOST_SHARED * fewer:
        return
    there, here = rules[like[0].first][0], others[like[0].second][0]
    message = (
        f"{shared} of {fewer} rules are also in {first.policy.id}, such as this one in "
        f"{first.file}:{there}"
    )
    hint = "what both decide is paid twice and flagged twice: leave each rule to one of them"
    yield second.finding(here, Code.POLICIES_OVERLAP, message, hint)


def _rules(source: PolicySource) -> list[tuple[int, str]]:
    """Lines of the text that say something of their own."""
    return [
        (number, text)
        for section in source.sections
        if section.name not in _SHARED_BY_ALL
        for number, text in section.body
        if len(normal(text)) >= _SHORTEST
    ]


def _cases(first: PolicySource, second: PolicySource) -> Iterator[Finding]:
    """Cases of both, which violate one policy and are the safe side of the other."""
    known = {normal(case_text(case)): number for number, case in enumerate(first.cases)}
    for number, case in enumerate(second.cases):
        before = known.get(normal(case_text(case)))
        if before is None:
            continue
        theirs = first.cases[before].label
        if first.policy.labels[theirs].violates == second.policy.labels[case.label].violates:
            continue
        message = (
            f"{case.label} here, and {theirs} under {first.policy.id} "
            f"({first.golden_file}:{before + 1}): one of them violates, the other does not"
        )
        hint = "right where the policies are about different things; else decide which one judges"
        yield second.golden_finding(number, Code.POLICIES_DISAGREE, message, hint)
