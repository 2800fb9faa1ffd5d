"""`moderay policy show`: where a policy's tokens go, its labels, and what its golden set has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moderay.core.errors import Problems
from moderay.engines.harmony.prompt import answer_format, instructions
from moderay.engines.harmony.vocabulary import Vocabulary, vocabulary
from moderay.tasks.policy.source import EXAMPLES, PolicySource, read_policy

ANSWER_FORMAT = "ANSWER FORMAT"


@dataclass(frozen=True)
class PromptPart:
    """A section of the text, or the answer format where moderay puts it in.

    Attributes:
        title: The section's heading.
        line: Where it begins in policy.md; None for the answer format.
        lines: How many it has.
        tokens: In the model's vocabulary; those of all sections add up to the text's.
        share: Of the text's tokens; None for the answer format.
    """

    title: str
    line: int | None
    lines: int
    tokens: int
    share: float | None


@dataclass(frozen=True)
class LabelCount:
    """A label, and its cases in the golden set.

    Attributes:
        label: Its name.
        title: For people.
        violates: Whether content with it violates.
        cases: With this label.
        boundary: Of them, those meant to be hard.
        languages: Of them, by language; cases that say none are under the empty name.
    """

    label: str
    title: str
    violates: bool
    cases: int
    boundary: int
    languages: Mapping[str, int]


@dataclass(frozen=True)
class Outline:
    """What there is to see of a policy.

    Attributes:
        policy: Its id.
        title: For people.
        tokens: Of the text.
        prompt_tokens: Of the text with the answer format in it.
        parts: In the order in which the model reads them.
        labels: The mildest first.
        golden: Whether there is a golden set.
    """

    policy: str
    title: str
    tokens: int
    prompt_tokens: int
    parts: tuple[PromptPart, ...]
    labels: tuple[LabelCount, ...]
    golden: bool

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def outline(folder: str | Path) -> Outline:
    """A policy by section, label and golden case. Raises `Problems` where it does not load."""
    source, problems = read_policy(Path(folder))
    if problems and Path(source.golden_file).exists():
        raise Problems(problems)
    vocab = vocabulary()
    policy = source.policy
    return Outline(
        policy.id,
        policy.title,
        len(vocab.encode(policy.text)),
        len(vocab.encode(instructions(policy))),
        tuple(_parts(source, vocab)),
        tuple(_label(source, label) for label in policy.label_names),
        source.has_golden,
    )


def _parts(source: PolicySource, vocab: Vocabulary) -> list[PromptPart]:
    """Sections with their tokens, the answer format where `prompt.instructions` puts it."""
    form = f"{answer_format(source.policy)}\n\n"
    added = PromptPart(ANSWER_FORMAT, None, form.count("\n"), len(vocab.encode(form)), None)
    sections = _sections(source, vocab)
    titled = int(source.policy.text.startswith("# "))
    shown = [*sections[:titled], added, *sections[titled:]]
    examples = (
        at for at, part in enumerate(shown) if at > titled and EXAMPLES in part.title.upper()
    )
    shown.insert(next(examples, len(shown)), added)
    return shown


def _sections(source: PolicySource, vocab: Vocabulary) -> list[PromptPart]:
    """A title's own line is a part of itself: the answer format follows it."""
    first, *others = source.sections
    pieces = [(section.title, section.lines) for section in others]
    if source.policy.text.startswith("# ") and not first.empty:
        pieces = [(first.title, first.lines[:1]), ("", first.lines[1:]), *pieces]
    elif _text(first.lines).strip():
        pieces = [(first.title, first.lines), *pieces]
    total, before, text = len(vocab.encode(source.policy.text)), 0, ""
    parts = []
    for number, (title, lines) in enumerate(pieces, start=1):
        text += _text(lines)
        # As tokens of the whole, so that the sections add up to it.
        upto = total if number == len(pieces) else len(vocab.encode(text.lstrip()))
        name = title or "(no heading)"
        share = (upto - before) / total
        parts.append(PromptPart(name, lines[0][0], len(lines), upto - before, share))
        before = upto
    return parts


def _text(lines: Sequence[tuple[int, str]]) -> str:
    return "".join(f"{text}\n" for _, text in lines)


def _label(source: PolicySource, label: str) -> LabelCount:
    cases = [case for case in source.cases if case.label == label]
    languages = Counter(case.language or "" for case in cases)
    return LabelCount(
        label,
        source.policy.labels[label].title,
        source.policy.labels[label].violates,
        len(cases),
        sum(case.boundary for case in cases),
        dict(sorted(languages.items())),
    )
