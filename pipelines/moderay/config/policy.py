"""A policy folder (`policy.md`, `golden.jsonl`) into a frozen `Policy`, all problems at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moderay.core.errors import Problem, Problems, nearest

# A column name that Polars SQL reads without quoting: no hyphen.
POLICY_ID = r"[a-z][a-z0-9_]*"


class Label(BaseModel):
    """One answer the model may give."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    violates: bool
    title: str = ""


class GoldenCase(BaseModel):
    """A labelled example that defines "works"; `boundary` marks those that are meant to be hard."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    content: str
    label: str
    boundary: bool = False


class Policy(BaseModel):
    """What the model is asked to enforce.

    `labels` keeps the file's order, mildest first; without any it is the safeguard guide's binary
    form, 0 safe and 1 violates. `text` is what the policy's author wrote, the answer format apart
    (`prompt.instructions` adds it).
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
        return tuple(self.labels)

    @property
    def violating(self) -> tuple[bool, ...]:
        """Parallel to `label_names`."""
        return tuple(label.violates for label in self.labels.values())


def load_policy(folder: str | Path) -> Policy:
    """Read `<folder>/policy.md`. Raises `Problems` with a line for everything wrong in it."""
    file = Path(folder) / "policy.md"
    try:
        source = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Problems(
            [Problem(str(folder), None, "no policy.md in this policy folder", _neighbours(file))]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Problems([Problem(str(file), None, f"cannot be read: {error}")]) from None
    front, text = _split(file, source)
    try:
        return Policy.model_validate({**front, "text": text})
    except ValidationError as error:
        raise Problems([_problem(file, source, item) for item in error.errors()]) from None


def load_golden(folder: str | Path) -> list[GoldenCase]:
    """Read `<folder>/golden.jsonl`, checked against the policy's labels. Raises `Problems`."""
    policy, file = load_policy(folder), Path(folder) / "golden.jsonl"
    cases: list[GoldenCase] = []
    problems: list[Problem] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            case = GoldenCase.model_validate(json.loads(line))
        except (ValueError, ValidationError) as error:
            problems.append(Problem(str(file), number, str(error).splitlines()[0]))
            continue
        if case.label not in policy.labels:
            problems.append(
                Problem(
                    str(file),
                    number,
                    f"unknown label {case.label!r}",
                    nearest(case.label, policy.labels),
                )
            )
        cases.append(case)
    if problems:
        raise Problems(problems)
    return cases


def _split(file: Path, source: str) -> tuple[dict[str, Any], str]:
    match = re.match(r"---\n(.*?)\n---\n(.*)", source, re.DOTALL)
    if match is None:
        raise Problems(
            [
                Problem(
                    str(file),
                    1,
                    "no front matter",
                    "begin the file with a block of YAML between two lines of ---",
                )
            ]
        )
    try:
        front = yaml.safe_load(match[1]) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 2
        raise Problems(
            [
                Problem(
                    str(file), line, f"front matter is no YAML: {getattr(error, 'problem', error)}"
                )
            ]
        ) from None
    if not isinstance(front, dict):
        raise Problems([Problem(str(file), 2, "front matter must be keys and values")])
    if isinstance(front.get("labels"), dict):  # YAML reads the label 0 as a number
        front["labels"] = {str(name): label for name, label in front["labels"].items()}
    return front, match[2].strip()


def _problem(file: Path, source: str, item: Any) -> Problem:
    where = [str(part) for part in item["loc"]]
    line = next(
        (
            i
            for i, text in enumerate(source.splitlines(), 1)
            if where and re.match(rf"\s*['\"]?{re.escape(where[-1])}['\"]?\s*:", text)
        ),
        None,
    )
    path = ".".join(where)
    if item["type"] == "extra_forbidden":
        known = (
            Label.model_fields if where[0] == "labels" else Policy.model_fields.keys() - {"text"}
        )
        return Problem(str(file), line, f"unknown key {path!r}", nearest(where[-1], known))
    if path == "text":
        return Problem(str(file), None, "no policy text below the front matter")
    return Problem(str(file), line, f"{path}: {item['msg'].removeprefix('Value error, ')}")


def _neighbours(file: Path) -> str:
    around = file.parent.parent
    names = [found.parent.name for found in around.glob("*/policy.md")] if around.is_dir() else []
    return (
        nearest(file.parent.name, names)
        if names
        else "a policy is a folder with policy.md and golden.jsonl"
    )
