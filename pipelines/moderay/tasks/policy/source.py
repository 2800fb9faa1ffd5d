"""A policy as it is written: its text by line and section, its examples, its golden cases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moderay.config.policy import GoldenCase, Policy, golden_cases, parse_policy
from moderay.config.text_file import read_text
from moderay.core.errors import Problem, Problems
from moderay.tasks.policy.finding import Code, Finding

# In the order in which the guide to gpt-oss-safeguard has them.
SECTIONS = ("INSTRUCTIONS", "DEFINITIONS", "VIOLATES", "SAFE", "EXAMPLES")
EXAMPLES = "EXAMPLES"
_HEADING = re.compile(r"(#+)\s+(.*?)[\s#]*$")
_KNOWN = re.compile(rf"\b(?:{'|'.join(SECTIONS)})\b", re.IGNORECASE)
# Headings of this level and above part a text; those below belong to what they stand in.
_PARTING = 2

# A line of a file, counted from 1, and what stands there.
Line = tuple[int, str]


@dataclass(frozen=True)
class Section:
    """A part of a policy's text.

    Attributes:
        title: As its heading has it; empty for what stands above the first one.
        name: The one of `SECTIONS` that it is; empty where it is none.
        lines: With the heading.
    """

    title: str
    name: str
    lines: tuple[Line, ...]

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.lines[0][0]

    @property
    def body(self) -> tuple[Line, ...]:
        """Without the heading."""
        return self.lines[1:] if self.title else self.lines

    @property
    def empty(self) -> bool:
        """Whether nothing stands below its heading."""
        return not any(text.strip() for _, text in self.body)


@dataclass(frozen=True)
class PolicySource:
    """A policy that loads, with where everything in it stands.

    Attributes:
        folder: As it was named.
        policy: What the file says.
        lines: All of policy.md.
        above: How many of them stand above the text.
        cases: The golden set, a line each; empty where there is none or it does not load.
        has_golden: Whether there is a golden set that loads.
    """

    folder: Path
    policy: Policy
    lines: tuple[str, ...]
    above: int
    cases: tuple[GoldenCase, ...] = ()
    has_golden: bool = False

    @property
    def file(self) -> str:
        """What messages call the text's file."""
        return str(self.folder / "policy.md")

    @property
    def golden_file(self) -> str:
        """What messages call the golden set."""
        return str(self.folder / "golden.jsonl")

    @property
    def text(self) -> tuple[Line, ...]:
        """The lines that the model reads."""
        return tuple(enumerate(self.lines[self.above :], start=self.above + 1))

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The text, parted."""
        return tuple(_sections(self.text))

    def section(self, name: str) -> Section | None:
        """The first of a name."""
        return next((section for section in self.sections if section.name == name), None)

    @property
    def rules(self) -> tuple[Line, ...]:
        """The lines of the text that are no examples."""
        return tuple(
            line for section in self.sections if section.name != EXAMPLES for line in section.lines
        )

    @property
    def examples_lines(self) -> tuple[Line, ...]:
        """The lines of the examples, without headings."""
        parts = [section.body for section in self.sections if section.name == EXAMPLES]
        return tuple(line for part in parts for line in part)

    @property
    def first_line(self) -> int:
        """Where the text begins."""
        return next((number for number, text in self.text if text.strip()), self.above + 1)

    def label_line(self, label: str) -> int:
        """Where the front matter names a label; its first line where it names none."""
        key = re.compile(rf"(?:^|[{{,])\s*['\"]?{re.escape(label)}['\"]?\s*:")
        front = enumerate(self.lines[: self.above], start=1)
        return next((number for number, text in front if key.search(text)), 1)

    def finding(self, line: int, code: Code, message: str, hint: str) -> Finding:
        """Of the text."""
        return Finding(self.file, line, code, message, hint)

    def golden_finding(self, case: int, code: Code, message: str, hint: str) -> Finding:
        """Of the golden set; `case`: its number, from 0."""
        return Finding(self.golden_file, case + 1, code, message, hint)


def read_policy(folder: Path) -> tuple[PolicySource, list[Problem]]:
    """A policy's folder, with what is wrong with its golden set.

    Raises:
        Problems: The policy itself does not load.
    """
    file = folder / "policy.md"
    try:
        text = read_text(file)
    except FileNotFoundError:
        hint = "a policy is a folder with policy.md; `moderay policy new ID` makes one"
        raise Problems(
            [Problem(str(folder), None, "no policy.md in this policy folder", hint)]
        ) from None
    policy = parse_policy(text, str(file))
    lines = tuple(text.split("\n"))
    above = next(i for i, line in enumerate(lines) if i and line.rstrip() == "---") + 1
    try:
        cases, problems = golden_cases(folder, policy), []
    except Problems as error:
        cases, problems = None, [*error.problems]
    source = PolicySource(folder, policy, lines, above, tuple(cases or ()), cases is not None)
    return source, problems


def _sections(lines: Sequence[Line]) -> Iterator[Section]:
    """Parts of a text, in order; together they are all of it."""
    title, name, part = "", "", list[Line]()
    for number, text in lines:
        heading = _HEADING.match(text)
        known = _KNOWN.search(heading[2]) if heading else None
        if heading and (known or len(heading[1]) <= _PARTING):
            if title or any(text.strip() for _, text in part):
                yield Section(title, name, tuple(part))
            title, name, part = heading[2], known[0].upper() if known else "", []
        part.append((number, text))
    yield Section(title, name, tuple(part))
