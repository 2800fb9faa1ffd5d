"""Findings about a golden set: how many cases it has of what, and which are alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from moderay.config.policy import GoldenCase
from moderay.core.wording import are, counted
from moderay.corpus.content import transcript
from moderay.tasks.policy.examples import Example
from moderay.tasks.policy.finding import Code, Finding
from moderay.tasks.policy.likeness import alike, normal
from moderay.tasks.policy.source import PolicySource

# Fewer say little: of 40 right ones the lower end of a 95% interval is 0.91.
FEWEST = 40
# Of all cases, those that violate, and those that do not.
LEAST_SHARE = 0.2
# From this likeness on, texts of one label are one case told twice.
ALIKE = 0.5
# And texts of different labels contradict each other; below it they are a pair of near misses.
SAME = 0.8
_SHOWN = 40


def case_text(case: GoldenCase) -> str:
    """A case's content as the model reads it."""
    if isinstance(case.content, str):
        return case.content
    return transcript(*zip(*((turn.role, turn.content) for turn in case.content), strict=True))


def golden_findings(source: PolicySource, shown: Sequence[Example]) -> Iterator[Finding]:
    """Too few, one-sided, told twice, or told already by the policy.

    Args:
        source: The policy.
        shown: Its examples.
    """
    yield from _counts(source)
    texts = [case_text(case) for case in source.cases]
    yield from _among_themselves(source, texts)
    yield from _beside_examples(source, texts, shown)


def _counts(source: PolicySource) -> Iterator[Finding]:
    cases = source.cases
    hint = "in `moderay try POLICY --data FILE`, the key a makes a row of your own one"
    if not cases:
        message = "no golden case: how often the model is right cannot be known"
        yield source.golden_finding(0, Code.GOLDEN_NONE, message, hint)
        return
    if len(cases) < FEWEST:
        message = f"{counted(len(cases), 'golden case')}, and {FEWEST} are few"
        yield source.golden_finding(0, Code.GOLDEN_FEW, message, hint)
    count = Counter(case.label for case in cases)
    for label in source.policy.label_names:
        if not count[label]:
            hint = "how often the model finds this label cannot be known: add some from your data"
            message = f"no golden case has label {label}"
            yield source.golden_finding(0, Code.GOLDEN_NO_CASE, message, hint)
    violating = sum(source.policy.labels[case.label].violates for case in cases)
    for side, number in (("violating", violating), ("safe", len(cases) - violating)):
        if 0 < number < LEAST_SHARE * len(cases):
            message = f"only {number} of {len(cases):,} golden cases {are(number)} {side}"
            hint = f"each side should have {LEAST_SHARE:.0%} at least, or its figures mean little"
            yield source.golden_finding(0, Code.GOLDEN_ONE_SIDED, message, hint)


def _among_themselves(source: PolicySource, texts: Sequence[str]) -> Iterator[Finding]:
    """Each case is told once, of the first that it is like."""
    told = set[int]()
    for before, case, likeness in alike(texts, texts, ALIKE):
        if before >= case or case in told:
            continue
        labels = source.cases[before].label, source.cases[case].label
        where = f"line {before + 1}"
        if normal(texts[before]) == normal(texts[case]):
            told.add(case)
            if labels[0] == labels[1]:
                message, code = f"the same as {where}", Code.GOLDEN_TWICE
                hint = "it counts twice in every figure: take one out"
            else:
                message, code = f"the same as {where}, there {labels[0]}", Code.GOLDEN_CONTRADICTS
                hint = f"here it is {labels[1]}: decide, and take one out"
        elif labels[0] == labels[1]:
            told.add(case)
            message, code = f"much like {where} (likeness {likeness:.2f})", Code.GOLDEN_ALIKE
            hint = f"from {ALIKE} on, two cases of one label measure one thing: vary one of them"
        else:  # two that differ in one thing, and in their label: the best of cases
            continue
        yield source.golden_finding(case, code, f"{message}: {_short(texts[case])}", hint)


def _beside_examples(
    source: PolicySource, texts: Sequence[str], shown: Sequence[Example]
) -> Iterator[Finding]:
    for number, case, likeness in alike([example.text for example in shown], texts, ALIKE):
        example, label = shown[number], source.cases[case].label
        same = example.label == label
        if same:
            message = (
                f"given away by the policy's example in line {example.line} "
                f"(likeness {likeness:.2f}): {_short(texts[case])}"
            )
            hint = "the model is told the answer: write another example, or another case"
            yield source.golden_finding(case, Code.EXAMPLE_GIVES_AWAY, message, hint)
        elif likeness >= SAME:
            message = (
                f"this example is {example.label}, and golden case {case + 1} {label} "
                f"(likeness {likeness:.2f})"
            )
            hint = f"decide which label is right, here or in {source.golden_file}:{case + 1}"
            yield source.finding(example.line, Code.EXAMPLE_CONTRADICTS, message, hint)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...")
