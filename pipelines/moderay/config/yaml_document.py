"""A YAML file with the line of every key, so that a mistake can be shown where it stands."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moderay.config.bounded_yaml import (
    DEEPEST,
    LONGEST_NUMBER,
    NUMBERS,
    YamlBoundError,
    compose,
    shortened,
    why_not,
)
from moderay.config.text_file import read_text
from moderay.core.errors import Problem, Problems

# Of names of YAML files, and how many of them a hint names.
_ENDS = (".yaml", ".yml")
_NAMED = 3
SET = "--set"
VARIABLE = re.compile(r"\$\{(\w+)\}")
LONGEST_KEY = 500

# The dotted key that a problem is about, and the problem.
KeyedProblem = tuple[str, Problem]


@dataclass(frozen=True)
class DocumentOrigin:
    """Where a document's keys came from.

    Attributes:
        file: The file's name, for messages.
        lines: The line of every dotted key in the file, counted from 1.
        overridden: Dotted keys that `--set` put there.
        sets: The assignments of `--set`, as they were written.
    """

    file: str = "job"
    lines: dict[str, int] = field(default_factory=dict)
    overridden: set[str] = field(default_factory=set)
    sets: list[str] = field(default_factory=list)

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
        if path.is_dir():
            raise Problems([Problem(str(path), None, "is a folder, not a file", _inside(path))])
        text = read_text(path, pipes=True)
    except FileNotFoundError:
        raise Problems([Problem(str(path), None, "no such file", _beside(path))]) from None
    return parse(text, str(path), shape, hint)


def _inside(folder: Path) -> str:
    """A hint: the files of a folder that may be meant."""
    names = sorted(str(file) for end in _ENDS for file in folder.glob(f"*{end}"))[:_NAMED]
    return f"name a file in it: {', '.join(names)}" if names else ""


def _beside(path: Path) -> str:
    """A hint: files of a name like that of one that is missing."""
    near = [file for end in _ENDS for file in path.parent.glob(f"*{end}")]
    close = difflib.get_close_matches(path.name, [file.name for file in near], n=1)
    return f"did you mean {str(path.parent / close[0])!r}?" if close else ""


def parse(text: str, file: str, shape: str, hint: str = "", above: int = 0) -> Document:
    """Keys and values, `${VAR}` not filled in.

    Args:
        text: YAML.
        file: Where it stands, for messages.
        shape: What to say where it is YAML, but no keys and values.
        hint: What to write instead.
        above: Lines of the file that stand above the text.

    Raises:
        Problems: It is no such YAML, or passes a bound of `bounded_yaml`.
    """
    try:
        node = compose(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 + above if mark else None
        raise Problems([Problem(file, line, *why_not(error))]) from None
    if not isinstance(node, yaml.MappingNode):
        raise Problems([Problem(file, 1 + above, shape, hint)])
    document = Document({}, DocumentOrigin(file))
    document.data.update(_NodeReader(document, above).mapping(node, ""))
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
    if len(path) >= DEEPEST:
        problem = Problem(SET, None, f"a key of {len(path) + 1:,} parts", f"at most {DEEPEST}")
        document.problems.append((SET, problem))
        return
    parent: Any = document.data
    for part in path:
        parent = _child(parent, part)
    if not isinstance(parent, dict) and not _is_index(parent, last):
        problem = Problem(SET, None, f"{key!r}: {'.'.join(path)!r} is no group of keys")
        document.problems.append((SET, problem))
        return
    parent[int(last) if isinstance(parent, list) else last] = _set_value(document, text)
    lines = document.origin.lines
    for name in [name for name in lines if name == key or name.startswith(key + ".")]:
        del lines[name]
    document.origin.overridden.add(key)
    document.origin.sets.append(assignment)


def _set_value(document: Document, text: str) -> Any:
    """The value of a `--set`: as YAML, or as it stands where it is none."""
    try:
        node = compose(text)
    except YamlBoundError as error:
        document.problems.append((SET, Problem(SET, None, *why_not(error))))
        return text
    except yaml.YAMLError:
        return text
    if node is None:
        return None
    written = Document({}, DocumentOrigin())
    value = _NodeReader(written).value(node, "")
    messages = [problem.message for _, problem in written.problems]
    document.problems.extend((SET, Problem(SET, None, message)) for message in messages)
    return value


class _NodeReader:
    """Turns YAML nodes into Python data, and notes their lines and what is wrong with them."""

    def __init__(self, document: Document, above: int = 0) -> None:
        """`above`: lines of the file that stand above the text."""
        self._document = document
        self._above = above
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, key: str) -> Any:
        """The node at a dotted key."""
        self._document.origin.lines.setdefault(key, self._line(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{key}.{i}") for i, item in enumerate(node.value)]
        return self._scalar(node, key)

    def mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        """Keys and values at a dotted key; of a key that stands twice, the last."""
        out: dict[str, Any] = {}
        for name, value in node.value:
            line = self._line(name)
            if not isinstance(name, yaml.ScalarNode):
                message = f"{key or 'the file'}: a key must be one word, line {line}"
                self._document.wrong(key, message)
                continue
            below = f"{key}.{name.value}".lstrip(".")
            if len(below) > LONGEST_KEY:  # it is kept for every key below
                message = f"a key of {len(below):,} characters, line {line}"
                self._document.wrong(key, message, f"at most {LONGEST_KEY}, with those it is under")
                continue
            self._document.origin.lines[below] = line
            if name.value in out:
                self._document.wrong(below, f"key {below!r} stands twice")
            out[name.value] = self.value(value, below)
        return out

    def _scalar(self, node: yaml.Node, key: str) -> Any:
        if VARIABLE.search(node.value):
            return node.value
        try:
            if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
                raise ValueError("too long for a number")
            return self._scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError):
            message = f"{key}: {shortened(node.value)!r} cannot be read as {node.tag}"
            self._document.wrong(key, message, "put it in quotes")
            return node.value

    def _line(self, node: yaml.Node) -> int:
        line: int = node.start_mark.line
        return line + 1 + self._above


def _child(parent: Any, part: str) -> Any:
    """The value under a part of a dotted key, made where a group of keys may still grow."""
    if isinstance(parent, dict):
        if parent.get(part) is None:
            parent[part] = {}
        return parent[part]
    return parent[int(part)] if _is_index(parent, part) else None


def _is_index(parent: Any, part: str) -> bool:
    return isinstance(parent, list) and part.isdecimal() and int(part) < len(parent)
