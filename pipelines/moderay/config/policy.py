"""A policy folder (`policy.md`, `golden.jsonl`) into a frozen `Policy`, all problems at once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moderay.config.text_file import read_text
from moderay.config.yaml_document import Document, DocumentOrigin, parse
from moderay.core.decision_rule import DecisionRule
from moderay.core.errors import Problem, Problems, first_line, nearest

# A column name that Polars SQL reads without quoting: no hyphen.
POLICY_ID = r"[a-z][a-z0-9_]*"
# Characters of golden.jsonl.
LONGEST_GOLDEN = 2**24
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


class GoldenCase(BaseModel):
    """A labelled example: together they define "works".

    Attributes:
        content: What is judged.
        label: The right one of the policy's labels.
        boundary: Whether it is meant to be hard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    content: str
    label: str
    boundary: bool = False

    @field_validator("content")
    @classmethod
    def _is_text(cls, content: str) -> str:
        if _HALF_PAIR.search(content):
            raise ValueError("half of a surrogate pair, which no text can hold")
        return content


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
                f"labels are letters, digits, '_', '.' or '-', not {', '.join(map(repr, bad))}"
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


def load_policy(folder: str | Path) -> Policy:
    """Read `<folder>/policy.md`. Raises `Problems` with a line for everything wrong in it."""
    file = Path(folder) / "policy.md"
    try:
        source = read_text(file, hint="a policy is a page or two")
    except FileNotFoundError:
        raise Problems(
            [Problem(str(folder), None, "no policy.md in this policy folder", _neighbours(file))]
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
    try:
        policy = Policy.model_validate({**front.data, "text": text})
    except ValidationError as error:
        problems += [_problem(front.origin, item) for item in error.errors()]
    if problems:
        raise Problems(problems)
    return policy


def load_golden(folder: str | Path) -> list[GoldenCase]:
    """Read `<folder>/golden.jsonl`, checked against the policy's labels. Raises `Problems`."""
    policy = load_policy(folder)
    file = Path(folder) / "golden.jsonl"
    try:
        text = read_text(file, LONGEST_GOLDEN, "a golden set is some hundred cases")
    except FileNotFoundError:
        hint = "one case a line: content, label, boundary"
        raise Problems([Problem(str(folder), None, "no golden.jsonl", hint)]) from None
    cases: list[GoldenCase] = []
    problems: list[Problem] = []
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, start=1):
        try:
            case = _golden_case(line)
        except ValueError as error:
            problems.append(Problem(str(file), number, first_line(error)))
            continue
        if case.label not in policy.labels:
            hint = nearest(case.label, policy.labels)
            problems.append(Problem(str(file), number, f"unknown label {case.label!r}", hint))
        cases.append(case)
    if problems:
        raise Problems(problems)
    return cases


def _golden_case(line: str) -> GoldenCase:
    """A line of a golden set. Raises `ValueError` where it is none."""
    try:
        return GoldenCase.model_validate(json.loads(line, object_pairs_hook=_once))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(where + first["msg"].removeprefix("Value error, ")) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` where a key stands twice: which one counts is a guess."""
    names = [name for name, _ in pairs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"key {twice[0]!r} stands twice")
    return dict(pairs)


def _split(file: str, source: str) -> tuple[Document, str]:
    """Front matter and text. Raises `Problems`."""
    match = re.match(r"---\n(.*?)\n---\n(.*)", source, re.DOTALL)
    if match is None:
        hint = "begin the file with a block of YAML between two lines of ---"
        raise Problems([Problem(file, 1, "no front matter", hint)])
    front = parse(match[1], file, "front matter must be keys and values", above=1)
    if "text" in front.data:
        front.wrong("text", "unknown key 'text'", "the text stands below the front matter")
    return front, match[2].strip()


def _problem(origin: DocumentOrigin, item: Any) -> Problem:
    """An error of pydantic's at the line of its key."""
    path = [str(part) for part in item["loc"]]
    key = ".".join(path)
    if item["type"] == "extra_forbidden":
        own = Policy.model_fields.keys() - {"text"}
        known = Label.model_fields if path[0] == "labels" else own
        return origin.problem(key, f"unknown key {key!r}", nearest(path[-1], known))
    if key == "text":
        return Problem(origin.file, None, "no policy text below the front matter")
    return origin.problem(key, f"{key}: {item['msg'].removeprefix('Value error, ')}")


def _neighbours(file: Path) -> str:
    """A hint: policies that lie beside the one that is missing."""
    around = file.parent.parent
    names = [other.parent.name for other in around.glob("*/policy.md")] if around.is_dir() else []
    if not names:
        return "a policy is a folder with policy.md and golden.jsonl"
    return nearest(file.parent.name, names)
