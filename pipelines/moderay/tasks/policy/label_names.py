"""Findings about a policy's labels: where the text defines, shows and first names each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from moderay.config.policy import Policy
from moderay.engines.harmony.answer import label_openings
from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.tasks.policy.examples import Example
from moderay.tasks.policy.finding import Code, Finding
from moderay.tasks.policy.source import EXAMPLES, PolicySource

# Bounded, as all that may stand beside itself here is: a text may be anybody's.
_MARKS = r"[\"'`*“”]{0,3}"
_VERB = r"(?:answer|return|choose|use|assign|give|label|output|reply|respond)"
_WHEN = r"(?:if|when|whenever|where|as soon as|for|only|unless|otherwise)"
# A name that stands for nothing else: SP0, HA_1, X-2.
_TELLING = re.compile(r"(?=.*[A-Za-z])(?=.*[\d_.-])|[A-Z]{2,}\Z")


def label_findings(
    source: PolicySource, shown: Sequence[Example], vocab: Vocabulary
) -> Iterator[Finding]:
    """Labels that are never defined, never shown, named too early, or dear to tell apart.

    Args:
        source: The policy.
        shown: Its examples.
        vocab: The model's.
    """
    for label in source.policy.label_names:
        defined = _defined(source, label)
        if defined is None:
            message = f"label {label} is never defined"
            hint = f"say under VIOLATES or SAFE what it stands for: a line that begins {label}, ..."
            yield source.finding(source.label_line(label), Code.LABEL_UNDEFINED, message, hint)
        elif (early := _mentioned(source, label)) is not None and early < defined:
            message = f"label {label} is named here, and defined only in line {defined}"
            hint = "define it first, or say here what it stands for"
            yield source.finding(early, Code.LABEL_EARLY, message, hint)
    yield from _unexampled(source, shown)
    yield from _alike(source, vocab)


def _unexampled(source: PolicySource, shown: Sequence[Example]) -> Iterator[Finding]:
    section = source.section(EXAMPLES)
    if section is None or section.empty:  # `shape_findings` says so
        return
    labels = {example.label for example in shown}
    for label in source.policy.label_names:
        # Where examples are written in a form of their own, a name in them has to do.
        by_name = not shown and any(_named(label).search(text) for _, text in section.body)
        if label not in labels and not by_name:
            hint = f'add one from the border: - "..." is {label}: why'
            message = f"no example has label {label}"
            yield source.finding(section.line, Code.LABEL_UNEXAMPLED, message, hint)


def _alike(source: PolicySource, vocab: Vocabulary) -> Iterator[Finding]:
    for token, labels in coinciding(source.policy, vocab).items():
        message = f"labels {', '.join(labels)} go on alike, with {token!r}, where others part"
        hint = (
            "each such group costs one more request for P; name labels so that the first token in "
            "which they differ is each one's own, such as S0, S1, S2"
        )
        yield source.finding(source.label_line(labels[0]), Code.LABELS_BEGIN_ALIKE, message, hint)


def coinciding(policy: Policy, vocab: Vocabulary) -> Mapping[str, tuple[str, ...]]:
    """By the token, those labels which share it where labels first part.

    P of labels that all part there is read from one request; each group takes one more.
    """
    openings = label_openings(policy, vocab)
    ranks = zip(*openings.values(), strict=False)
    at = next((i for i, tokens in enumerate(ranks) if len(set(tokens)) > 1), 0)
    groups: dict[int, list[str]] = {}
    for name, tokens in openings.items():
        groups.setdefault(tokens[at], []).append(name)
    return {
        vocab.decode([token]): tuple(names) for token, names in groups.items() if len(names) > 1
    }


def _defined(source: PolicySource, label: str) -> int | None:
    """The first line that says what a label stands for.

    That is a line which begins with it, a heading or a title that has it in brackets, a rule such
    as `answer 1 if ...`, or, for the only label of its side, the section of that side.
    """
    name = re.escape(label)
    patterns = (
        rf"[\s>#*+\-–•]*{_MARKS}(?:label\s+)?{_MARKS}{name}{_MARKS}\s*(?:[,:(=–—]|-\s|\.\w|means\b|$)",
        rf"(?:#+.*\({name}\b|[^(]*\({name}\s*[–—:,)-])",
        rf".*\b{_VERB}\b[^.]{{0,20}}?\b{_MARKS}{name}{_MARKS}\s+{_WHEN}\b",
        rf".*(?<![\w-]){_MARKS}{name}{_MARKS}\s+otherwise\b",
    )
    rule = re.compile("|".join(patterns), re.IGNORECASE)
    lines = [number for number, text in source.rules if rule.match(text)]
    side = source.policy.labels[label].violates
    if [other.violates for other in source.policy.labels.values()].count(side) == 1:
        section = source.section("VIOLATES" if side else "SAFE")
        lines += [section.line] if section and not section.empty else []
    return min(lines, default=None)


def _mentioned(source: PolicySource, label: str) -> int | None:
    """The first line that names a label."""
    name = _named(label)
    return next((number for number, text in source.text if name.search(text)), None)


def _named(label: str) -> re.Pattern[str]:
    """What names a label: a word that may mean something else must stand where a label does."""
    name = re.escape(label)
    if _TELLING.match(label):
        return re.compile(rf"(?<![\w-]){name}(?![\w-])")
    return re.compile(
        rf"\blabels?\s*:?\s*{_MARKS}{name}\b|\b{_VERB}\s+(?:with\s+)?{_MARKS}{name}\b|"
        rf"[\"”]\s*(?:is|->|→|=)\s*{_MARKS}{name}\b",
        re.IGNORECASE,
    )
