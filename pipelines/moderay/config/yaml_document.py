"""A YAML file read with the line of every key, so that whatever is wrong can be shown where it
stands.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moderay.core.errors import Problem, Problems

SET = "--set"
VARIABLE = re.compile(r"\$\{(\w+)\}")

# A problem and the dotted key it is about.
Found = tuple[str, Problem]


@dataclass(frozen=True)
class Origin:
    """Where keys came from. `lines`: by dotted key, counted from 1. `given`: keys that `--set` put
    there.
    """

    file: str = "job"
    lines: dict[str, int] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A problem at a dotted key, or at the nearest key above it that somebody wrote."""
        while key:
            if key in self.given:
                return Problem(SET, None, message, hint)
            if key in self.lines:
                return Problem(self.file, self.lines[key], message, hint)
            if any(name.startswith(key + ".") for name in self.given):
                return Problem(SET, None, message, hint)
            key = key.rpartition(".")[0]
        return Problem(self.file, None, message, hint)


@dataclass(frozen=True)
class Document:
    """A file's keys and values, and what is wrong with the text itself."""

    data: dict[str, Any]
    origin: Origin
    problems: list[Found] = field(default_factory=list)

    def wrong(self, key: str, message: str, hint: str = "") -> None:
        self.problems.append((key, self.origin.problem(key, message, hint)))


def read(path: Path, shape: str, hint: str) -> Document:
    """The file as it stands, `${VAR}` not yet filled in. Raises `Problems` where it cannot be read
    as keys and values, which `shape` and `hint` then say.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except FileNotFoundError:
        raise Problems([Problem(str(path), None, "no such file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Problems([Problem(str(path), None, f"cannot be read: {error}")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise Problems(
            [Problem(str(path), mark.line + 1 if mark else None, f"no YAML: {what}")]
        ) from None
    if not isinstance(node, yaml.MappingNode):
        raise Problems([Problem(str(path), 1, shape, hint)])
    document = Document({}, Origin(str(path)))
    document.data.update(_plain(node, "", document))
    return document


def put(document: Document, given: str) -> None:
    """Apply one `key=value`, the value read as YAML; what is wrong with it becomes a problem of
    `--set`.
    """
    key, equals, text = given.partition("=")
    if not equals or not key:
        document.problems.append((SET, Problem(SET, None, f"{given!r} is no key=value")))
        return
    *path, last = key.split(".")
    place: Any = document.data
    for part in path:
        place = _below(place, part)
    if not isinstance(place, dict) and not _is_index(place, last):
        document.problems.append(
            (SET, Problem(SET, None, f"{key!r}: {'.'.join(path)!r} is no group of keys"))
        )
        return
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    place[int(last) if isinstance(place, list) else last] = value
    for known in [
        name for name in document.origin.lines if name == key or name.startswith(key + ".")
    ]:
        del document.origin.lines[known]
    document.origin.given.add(key)


def fill(
    document: Document, keep: Collection[str] = (), days: Mapping[str, str] | None = None
) -> None:
    """Put the environment's values for `${VAR}`, and of `days`, by default `nights()`; one that is
    not set is a problem, and stays as it is. So do those of the sections `keep`, without being a
    problem.
    """
    known = {**os.environ, **(nights() if days is None else days)}

    def filled(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {
                name: filled(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()
            }
        if isinstance(value, list):
            return [filled(inner, f"{key}.{i}") for i, inner in enumerate(value)]
        return (
            VARIABLE.sub(_variable(document, key, known), value)
            if isinstance(value, str)
            else value
        )

    document.data.update(
        filled({name: value for name, value in document.data.items() if name not in keep}, "")
    )


def nights() -> dict[str, str]:
    """DATE, today (UTC), and YESTERDAY, the day before DATE; of both, what the environment says
    comes first.
    """
    date = os.environ.get("DATE", str(datetime.datetime.now(datetime.UTC).date()))
    try:
        before = str(datetime.date.fromisoformat(date) - datetime.timedelta(days=1))
    except ValueError:
        return {"DATE": date}
    return {"DATE": date, "YESTERDAY": os.environ.get("YESTERDAY", before)}


def _variable(
    document: Document, key: str, known: Mapping[str, str]
) -> Callable[[re.Match[str]], str]:
    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            document.wrong(
                key,
                f"environment variable {match[1]} is not set",
                f"{match[1]}=... before the command, or --set {key}=...",
            )
        return known.get(match[1], match[0])

    return value


def _plain(node: yaml.Node, key: str, document: Document) -> Any:
    """A YAML node as Python data, its lines noted."""
    lines = document.origin.lines
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                document.wrong(
                    key,
                    f"{key or 'the file'}: a key must be one word, line {name.start_mark.line + 1}",
                )
                continue
            below = f"{key}.{name.value}".lstrip(".")
            twice = name.value in out
            lines[below] = name.start_mark.line + 1
            if twice:
                document.wrong(below, f"key {below!r} stands twice")
            out[name.value] = _plain(value, below, document)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, f"{key}.{i}", document) for i, item in enumerate(node.value)]
    if VARIABLE.search(node.value):
        return node.value
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError):
        document.wrong(
            key, f"{key}: {node.value!r} cannot be read as {node.tag}", "put it in quotes"
        )
        return node.value


def _below(place: Any, part: str) -> Any:
    """The value under a part of a dotted key, made where a group of keys may still grow."""
    if isinstance(place, dict):
        if place.get(part) is None:
            place[part] = {}
        return place[part]
    return place[int(part)] if _is_index(place, part) else None


def _is_index(place: Any, part: str) -> bool:
    return isinstance(place, list) and part.isdecimal() and int(part) < len(place)
