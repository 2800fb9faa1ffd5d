"""A policy folder (`policy.md`, `golden.jsonl`) into a frozen `Policy`, all problems at once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
)

from moderay.config.text_file import LONGEST, read_text
from moderay.config.validation import validation_problems
from moderay.config.yaml_document import Document, DocumentOrigin, parse
from moderay.core.decision_rule import DecisionRule
from moderay.core.errors import Problem, Problems, first_line, nearby, nearest

# A column name that Polars SQL reads without quoting: no hyphen.
POLICY_ID = r"[a-z][a-z0-9_]*"
# Characters of golden.jsonl.
LONGEST_GOLDEN = 2**24
# Problems of a golden set that are named.
MOST_SHOWN = 20
_FENCE = "---"
_SHOWN = 30
_A_CASE = 'a line a case, in double quotes, no comma behind it: {"content": "...", "label": "..."}'
_A_POLICY = "a policy is a folder with policy.md; `moderay policy new ID` makes one"
_HINTS = {
    "id": "such as id: spam",
    "labels": "such as labels: {SP0: {violates: false}, SP4: {violates: true}}",
    "labels.*": "such as {violates: true, title: Spam}",
    "threshold": "a probability, such as 0.5",
    "version": "a count, such as 2",
}
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class Label(BaseModel):
    """One answer the model may give.

    Attributes:
        violates: Whether content with this label violates the policy.
        title: For people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    violates: bool
    title: str = ""


def _whole(text: str) -> str:
    if _HALF_PAIR.search(text):
        raise ValueError("half of a surrogate pair, which no text can hold")
    return text


_Text = Annotated[str, AfterValidator(_whole)]


class Turn(BaseModel):
    """What somebody says in a conversation.

    Attributes:
        role: Who, such as user.
        content: What.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: _Text = Field(min_length=1)
    content: _Text


def _some(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    if not turns:
        raise ValueError("a conversation without a turn")
    return turns


def _form(content: object) -> str:
    return "turns" if isinstance(content, list | tuple) else "text"


# Told apart before it is looked at, so that of a wrong one only its own form's mistakes are told.
_Content = Annotated[
    Annotated[_Text, Tag("text")]
    | Annotated[tuple[Turn, ...], AfterValidator(_some), Tag("turns")],
    Discriminator(_form),
]


class GoldenCase(BaseModel):
    """A labelled example: together they define "works".

    Attributes:
        content: What is judged: a text, or a conversation.
        label: The right one of the policy's labels.
        boundary: Whether it is meant to be hard.
        language: Its code, such as de.
        source: Where the content is from.
        note: Why the label is right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    content: _Content
    label: str
    boundary: bool = False
    language: str | None = None
    source: str | None = None
    note: str | None = None


class Policy(BaseModel):
    """What the model is asked to enforce.

    Attributes:
        id: Names the policy's column in the labels.
        title: For people.
        version: The author's count, for people; what a judge key hashes is the text.
        labels: What the model may answer, in the file's order, mildest first. Default: the
            safeguard guide's binary form, 0 safe and 1 violates.
        answer: `label`: one label, nothing else; `rationale`: JSON with label and rationale.
        threshold: P(violates) from which on content violates.
        text: What the policy's author wrote, the answer format apart (`prompt.instructions` adds
            it).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str = Field(pattern=f"^{POLICY_ID}$")
    title: str = ""
    version: int = 1
    labels: Mapping[str, Label] = Field(
        default_factory=lambda: {
            "0": Label(violates=False, title="Safe"),
            "1": Label(violates=True, title="Violates"),
        }
    )
    answer: Literal["label", "rationale"] = "rationale"
    threshold: float = Field(default=0.5, gt=0, le=1)
    text: str = Field(min_length=1)

    @field_validator("labels")
    @classmethod
    def _both_sides(cls, labels: Mapping[str, Label]) -> Mapping[str, Label]:
        if {label.violates for label in labels.values()} != {True, False}:
            raise ValueError("needs at least one label that violates and one that does not")
        if bad := [name for name in labels if not re.fullmatch(r"[A-Za-z0-9_.-]+", name)]:
            raise ValueError(
                f"names are letters, digits, '_', '.' or '-', not {', '.join(map(repr, bad))}"
            )
        return labels

    @property
    def label_names(self) -> tuple[str, ...]:
        """In the file's order, mildest first."""
        return tuple(self.labels)

    @property
    def violating(self) -> tuple[bool, ...]:
        """Which labels violate, parallel to `label_names`."""
        return tuple(label.violates for label in self.labels.values())

    @property
    def rule(self) -> DecisionRule:
        """How verdicts under this policy are decided."""
        return DecisionRule(self.id, self.label_names, self.violating, self.threshold)


class _NoCaseError(ValueError):
    """Sound JSON that is no golden case."""


def load_policy(folder: str | Path) -> Policy:
    """Read `<folder>/policy.md`. Raises `Problems` with a line for everything wrong in it."""
    file = Path(folder) / "policy.md"
    if Path(folder).is_file():
        raise Problems([Problem(str(folder), None, *_no_folder(Path(folder)))])
    try:
        source = read_text(file, hint="a policy is a page or two")
    except FileNotFoundError:
        message = "no policy.md in this policy folder"
        raise Problems(
            [Problem(str(folder), None, message, _neighbours(file), absent=True)]
        ) from None
    return parse_policy(source, str(file))


def parse_policy(source: str, file: str) -> Policy:
    """The policy in the text of a `policy.md`.

    Args:
        source: The text.
        file: What messages call it.

    Raises:
        Problems: With a line for everything wrong in it.
    """
    front, text = _split(file, source)
    problems = [problem for _, problem in front.problems]
    data = {**front.data, "text": text}
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        wrong = validation_problems(error, Document(data, front.origin), Policy, _HINTS)
        problems += [problem for key, problem in wrong if key != "text"]
    if not text:
        hint = "write what the model is to enforce: what violates, what is safe, examples"
        problems.append(Problem(file, None, "no policy text below the front matter", hint))
    if problems:
        raise Problems(sorted(problems, key=lambda problem: problem.line or LONGEST))
    return policy


def load_golden(folder: str | Path) -> list[GoldenCase]:
    """Read `<folder>/golden.jsonl`, checked against the policy's labels. Raises `Problems`."""
    policy = load_policy(folder)
    cases = golden_cases(folder, policy)
    if cases is None:
        raise Problems([Problem(str(folder), None, "no golden.jsonl", _A_CASE)])
    return cases


def golden_cases(folder: str | Path, policy: Policy) -> list[GoldenCase] | None:
    """The golden set of a policy that was read from this folder; None where it has none.

    Raises:
        Problems: With everything wrong, each with its line.
    """
    file = Path(folder) / "golden.jsonl"
    try:
        text = read_text(file, LONGEST_GOLDEN, "a golden set is some hundred cases")
    except FileNotFoundError:
        return None
    cases: list[GoldenCase] = []
    problems: list[Problem] = []
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, start=1):
        try:
            cases.append(_golden_case(line, str(file), number, policy))
        except Problems as error:
            problems += error.problems
    if len(problems) > MOST_SHOWN:
        more = f"{len(problems) - MOST_SHOWN:,} more problems like these"
        problems = [*problems[:MOST_SHOWN], Problem(str(file), None, more)]
    if problems:
        raise Problems(problems)
    return cases


def _golden_case(line: str, file: str, number: int, policy: Policy) -> GoldenCase:
    """A line of a golden set. Raises `Problems` where it is none."""
    origin = DocumentOrigin(file)
    try:
        data = json.loads(line, object_pairs_hook=_once)
        if not isinstance(data, dict):
            raise _NoCaseError("no keys and values")
        case = GoldenCase.model_validate(data)
    except ValidationError as error:
        wrong = validation_problems(error, Document(data, origin), GoldenCase)
        reasons = [(problem.message, problem.hint) for _, problem in wrong]
    except RecursionError:
        reasons = [("nested too deeply", _A_CASE)]
    except ValueError as error:
        reasons = [(_no_case(line, error), _A_CASE)]
    else:
        if case.label in policy.labels:
            return case
        reasons = [(f"unknown label {case.label!r}", nearest(case.label, policy.labels))]
    raise Problems([Problem(file, number, message, hint) for message, hint in reasons])


def _no_case(line: str, error: ValueError) -> str:
    """Why a line is no JSON object."""
    if not line.strip():
        return "an empty line"
    if isinstance(error, json.JSONDecodeError):
        rest = line[error.pos : error.pos + _SHOWN]
        return f"no JSON at character {error.pos + 1}" + (f": {rest}" if rest else ", its end")
    return first_line(error) if isinstance(error, _NoCaseError) else "a number too long to read"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.

    Raises:
        _NoCaseError: A key stands twice: which one counts is a guess.
    """
    names = [name for name, _ in pairs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise _NoCaseError(f"key {twice[0]!r} stands twice")
    return dict(pairs)


def _split(file: str, source: str) -> tuple[Document, str]:
    """Front matter and text. Raises `Problems`."""
    first, *lines = source.split("\n")
    if first.rstrip() != _FENCE:
        message = "no front matter" if source.strip() else "the file is empty"
        hint = "begin the file with a block of YAML between two lines of ---"
        raise Problems([Problem(file, 1, message, hint)])
    end = next((n for n, line in enumerate(lines) if line.rstrip() == _FENCE), None)
    if end is None:
        hint = "end it with a line of ---, and write the policy's text below"
        raise Problems([Problem(file, 1, "the front matter has no end", hint)])
    shape = "front matter must be keys and values"
    front = parse("\n".join(lines[:end]), file, shape, "such as id: spam", above=1)
    if "text" in front.data:
        front.wrong("text", "unknown key 'text'", "the text stands below the front matter")
    return front, "\n".join(lines[end + 1 :]).strip()


def _no_folder(file: Path) -> tuple[str, str]:
    """What to say of a file where a policy's folder must be, and a hint."""
    if file.name == "policy.md":
        return (
            "a policy is a folder, and this a file",
            f"name its folder: {nearby(str(file.parent))}",
        )
    return "a policy is a folder, and this a file", "`moderay policy new ID` makes one"


def _neighbours(file: Path) -> str:
    """A hint: policies that lie beside the one that is missing."""
    around = file.parent.parent
    names = [other.parent.name for other in around.glob("*/policy.md")] if around.is_dir() else []
    if not names:
        return _A_POLICY
    return nearest(file.parent.name, names)
