"""pydantic's errors about a job -> problems as people read them, at the keys they wrote."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from moderay.config.yaml_document import Document, KeyedProblem
from moderay.core.errors import nearest

# Options of a store may be secrets, and a URL may hold some.
_NEVER_SHOWN = ("storage", "model.endpoint")
_LONGEST_SHOWN = 60


def validation_problems(
    error: ValidationError, document: Document, model: type[BaseModel]
) -> list[KeyedProblem]:
    """One problem for each key: where a value may be of several kinds, they are named together.

    Args:
        error: What pydantic says.
        document: What was validated.
        model: What it should be.
    """
    expected: dict[str, list[str]] = {}
    values: dict[str, object] = {}
    problems: list[KeyedProblem] = []
    for item in error.errors():
        path = _written_key(item["loc"], document.data, item["type"])
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            hint = _unknown_hint(path, model)
            problems.append((key, document.origin.problem(key, f"unknown key {key!r}", hint)))
        elif item["type"] == "missing":
            problems.append((key, document.origin.problem(key, f"{key!r} is missing")))
        else:
            expected.setdefault(key, []).append(_worded(item["msg"]))
            values[key] = item["input"]
    for key, messages in expected.items():
        text = f"{key}: {_any_of(messages)}{_shown(key, values[key])}"
        problems.append((key, document.origin.problem(key, text)))
    return problems


def _worded(message: str) -> str:
    """A message of pydantic's without Python's words."""
    message = (
        message.removeprefix("Value error, ")
        .removeprefix("Input ")
        .removesuffix(", unable to parse string as an integer")
    )
    message = re.sub(
        r"^List should have (.*) after validation, not \d+$", r"should have \1", message
    )
    return re.sub(
        r"a valid dictionary or instance of \w+|a valid dictionary", "keys and values", message
    )


def _any_of(messages: Sequence[str]) -> str:
    return " or ".join([messages[0], *(more.removeprefix("should be ") for more in messages[1:])])


def _shown(key: str, value: object) -> str:
    short = not isinstance(value, dict | list) and len(repr(value)) < _LONGEST_SHOWN
    return f", not {value!r}" if short and not key.startswith(_NEVER_SHOWN) else ""


def _written_key(loc: Sequence[int | str], data: Any, kind: str) -> list[str]:
    """The keys a person wrote.

    In pydantic's location stand members of a union as well, under a type's name.
    """
    path: list[str] = []
    for position, part in enumerate(loc):
        if isinstance(data, dict):
            is_written = part in data
        else:
            is_written = isinstance(data, list) and isinstance(part, int)
        if is_written:
            data = data[part]
        if is_written or (kind == "missing" and position == len(loc) - 1):
            path.append(str(part))
    return path


def _unknown_hint(path: Sequence[str], section: type[BaseModel]) -> str:
    for part in path[:-1]:
        if not part.isdigit():
            section = next(iter(_models(section.model_fields[part].annotation)), section)
    known = list(section.model_fields)
    is_near = difflib.get_close_matches(path[-1], known, n=1)
    return nearest(path[-1], known) if is_near else "valid: " + ", ".join(known)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]
