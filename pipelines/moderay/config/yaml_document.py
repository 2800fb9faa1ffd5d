"""A YAML file with the line of every key, so that a mistake can be shown where it stands."""

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

# The dotted key that a problem is about, and the problem.
KeyedProblem = tuple[str, Problem]


@dataclass(frozen=True)
class DocumentOrigin:
    """Where a document's keys came from.

    Attributes:
        file: The file's name, for messages.
        lines: The line of every dotted key in the file, counted from 1.
        overridden: Dotted keys that `--set` put there.
    """

    file: str = "job"
    lines: dict[str, int] = field(default_factory=dict)
    overridden: set[str] = field(default_factory=set)

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A problem at a dotted key, or at the nearest key above it that somebody wrote."""
        while key:
            if key in self.overridden:
                return Problem(SET, None, message, hint)
            if key in self.lines:
                return Problem(self.file, self.lines[key], message, hint)
            if any(name.startswith(key + ".") for name in self.overridden):
                return Problem(SET, None, message, hint)
            key = key.rpartition(".")[0]
        return Problem(self.file, None, message, hint)


@dataclass(frozen=True)
class Document:
    """A file's keys and values.

    Attributes:
        data: Keys and values, as Python data.
        origin: Where they came from.
        problems: What is wrong with the text itself.
    """

    data: dict[str, Any]
    origin: DocumentOrigin
    problems: list[KeyedProblem] = field(default_factory=list)

    def wrong(self, key: str, message: str, hint: str = "") -> None:
        """Note a problem at a dotted key."""
        self.problems.append((key, self.origin.problem(key, message, hint)))


def read(path: Path, shape: str, hint: str) -> Document:
    """The file as it stands, `${VAR}` not yet filled in.

    Args:
        path: The file.
        shape: What to say where it is YAML, but no keys and values.
        hint: What to write instead.

    Raises:
        Problems: It cannot be read as keys and values.
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
        line = mark.line + 1 if mark else None
        raise Problems([Problem(str(path), line, f"no YAML: {what}")]) from None
    if not isinstance(node, yaml.MappingNode):
        raise Problems([Problem(str(path), 1, shape, hint)])
    document = Document({}, DocumentOrigin(str(path)))
    document.data.update(_value(node, "", document))
    return document


def plain_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of keys and values as YAML would give them: lists for sequences, strings for paths."""
    return {key: _plain(value) for key, value in data.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_data(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def put(document: Document, assignment: str) -> None:
    """Apply one `key=value` of `--set`, the value read as YAML.

    What is wrong with it becomes a problem of `--set`.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        problem = Problem(SET, None, f"{assignment!r} is no key=value")
        document.problems.append((SET, problem))
        return
    *path, last = key.split(".")
    parent: Any = document.data
    for part in path:
        parent = _child(parent, part)
    if not isinstance(parent, dict) and not _is_index(parent, last):
        problem = Problem(SET, None, f"{key!r}: {'.'.join(path)!r} is no group of keys")
        document.problems.append((SET, problem))
        return
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    parent[int(last) if isinstance(parent, list) else last] = value
    lines = document.origin.lines
    for name in [name for name in lines if name == key or name.startswith(key + ".")]:
        del lines[name]
    document.origin.overridden.add(key)


def fill(
    document: Document, keep: Collection[str] = (), days: Mapping[str, str] | None = None
) -> None:
    """Put the environment's values for `${VAR}`; one that is not set is a problem, and stays.

    Args:
        document: Changed in place.
        keep: Sections whose variables stay as they are written, without being a problem.
        days: DATE and YESTERDAY; by default `nights()`.
    """
    known = {**os.environ, **(nights() if days is None else days)}

    def filled(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {
                name: filled(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()
            }
        if isinstance(value, list):
            return [filled(inner, f"{key}.{i}") for i, inner in enumerate(value)]
        if isinstance(value, str):
            return VARIABLE.sub(_variable(document, key, known), value)
        return value

    document.data.update(
        filled({name: value for name, value in document.data.items() if name not in keep}, "")
    )


def nights() -> dict[str, str]:
    """DATE, today (UTC), and YESTERDAY, the day before DATE; the environment's own come first."""
    date = os.environ.get("DATE", str(datetime.datetime.now(datetime.UTC).date()))
    try:
        before = str(datetime.date.fromisoformat(date) - datetime.timedelta(days=1))
    except ValueError:
        return {"DATE": date}
    return {"DATE": date, "YESTERDAY": os.environ.get("YESTERDAY", before)}


def _variable(
    document: Document, key: str, known: Mapping[str, str]
) -> Callable[[re.Match[str]], str]:
    """The replacement of a variable in the value at `key`."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            document.wrong(
                key,
                f"environment variable {match[1]} is not set",
                f"{match[1]}=... before the command, or --set {key}=...",
            )
        return known.get(match[1], match[0])

    return value


def _value(node: yaml.Node, key: str, document: Document) -> Any:
    """A YAML node as Python data, its lines noted."""
    document.origin.lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, key, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, f"{key}.{i}", document) for i, item in enumerate(node.value)]
    if VARIABLE.search(node.value):
        return node.value
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError):
        document.wrong(
            key, f"{key}: {node.value!r} cannot be read as {node.tag}", "put it in quotes"
        )
        return node.value


def _mapping(node: yaml.MappingNode, key: str, document: Document) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        if not isinstance(name, yaml.ScalarNode):
            document.wrong(key, f"{key or 'the file'}: a key must be one word, line {line}")
            continue
        below = f"{key}.{name.value}".lstrip(".")
        document.origin.lines[below] = line
        if name.value in out:
            document.wrong(below, f"key {below!r} stands twice")
        out[name.value] = _value(value, below, document)
    return out


def _child(parent: Any, part: str) -> Any:
    """The value under a part of a dotted key, made where a group of keys may still grow."""
    if isinstance(parent, dict):
        if parent.get(part) is None:
            parent[part] = {}
        return parent[part]
    return parent[int(part)] if _is_index(parent, part) else None


def _is_index(parent: Any, part: str) -> bool:
    return isinstance(parent, list) and part.isdecimal() and int(part) < len(parent)
