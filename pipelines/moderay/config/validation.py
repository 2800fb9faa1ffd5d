"""pydantic's errors about a file -> problems as people read them, at the keys they wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moderay.config.wording import in_words, value_hint, written
from moderay.config.yaml_document import Document, KeyedProblem
from moderay.core.errors import nearest

# Options of a store may be secrets, and a URL may hold some.
_NEVER_SHOWN = ("storage", "model.endpoint")
_LONGEST_SHOWN = 60


def validation_problems(
    error: ValidationError,
    document: Document,
    model: type[BaseModel],
    hints: Mapping[str, str] = {},
) -> list[KeyedProblem]:
    """One problem for each key: where a value may be of several kinds, they are named together.

    Args:
        error: What pydantic says.
        document: What was validated.
        model: What it should be.
        hints: What to write, by dotted key, in which `*` stands for a name of the file's own.
    """
    wrong: dict[str, list[ErrorDetails]] = {}
    problems: list[KeyedProblem] = []
    for item in error.errors():
        path = _written_key(item["loc"], document.data, item["type"])
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            hint = _unknown_hint(path, model)
            problems.append((key, document.origin.problem(key, f"unknown key {key!r}", hint)))
        elif item["type"] == "missing":
            hint = _hint(path, hints)
            problems.append((key, document.origin.problem(key, f"{key!r} is missing", hint)))
        else:
            wrong.setdefault(key, []).append(item)
    for key, items in wrong.items():
        text = f"{key}: {_any_of(map(in_words, items))}{_shown(key, items[0]['input'])}"
        meant = next(filter(None, map(value_hint, items)), "")
        hint = "" if key.startswith(_NEVER_SHOWN) else meant
        problem = document.origin.problem(key, text, hint or _hint(key.split("."), hints))
        problems.append((key, problem))
    return problems


def _hint(path: Sequence[str], hints: Mapping[str, str]) -> str:
    """The one of a key; of a list's items, or of keys with names of their own, that of them all."""
    own = ".".join(path)
    return hints.get(own) or hints.get(".".join([*path[:-1], "*"]), "")


def _any_of(messages: Iterable[str]) -> str:
    first, *others = dict.fromkeys(messages)
    return " or ".join([first, *(more.removeprefix("should be ") for more in others)])


def _shown(key: str, value: object) -> str:
    short = not isinstance(value, dict | list) and len(repr(value)) < _LONGEST_SHOWN
    return f", not {written(value)}" if short and not key.startswith(_NEVER_SHOWN) else ""


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
        if (field := section.model_fields.get(part)) is not None:
            section = next(iter(_models(field.annotation)), section)
    known = list(section.model_fields)
    is_near = difflib.get_close_matches(path[-1], known, n=1)
    return nearest(path[-1], known) if is_near else "valid: " + ", ".join(known)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]
