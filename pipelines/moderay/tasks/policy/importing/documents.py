"""Cases in JSON lines, JSON, YAML, and in the fenced blocks of Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from moderay.config import bounded_yaml
from moderay.core.errors import Problem, Problems
from moderay.tasks.policy.importing.found import Found, PolicyText, not_placed
from moderay.tasks.policy.importing.records import Record, found_records, is_case

# Keys under which files keep a list of cases.
_LISTS = ("cases", "examples", "golden", "tests", "test_cases", "data", "items", "rows")
_FENCE = re.compile(r"\s*(```+|~~~+)\s*([\w.-]*)")
_HEADING = re.compile(r"#+\s")
_DATA = {"json": "json", "jsonl": "jsonl", "ndjson": "jsonl", "yaml": "yaml", "yml": "yaml"}


class NoDataError(ValueError):
    """A text that is not what it is read as.

    Attributes:
        line: Of the text, where that is known.
    """

    def __init__(self, message: str, line: int = 1) -> None:
        """`line`: counts from 1."""
        super().__init__(message)
        self.line = line


def found_lines(text: str, file: str, above: int = 0) -> Found:
    """The cases of JSON lines; a line that is no object is left.

    Args:
        text: The lines.
        file: The file's name.
        above: Lines of the file that stand above the text.
    """
    records: list[Record] = []
    left = []
    for number, line in enumerate(text.split("\n"), start=above + 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append((number, record))
        else:
            left.append(not_placed(file, number, "a line that is no JSON object"))
    return found_records(file, records) + Found(left=left)


def found_data(text: str, file: str, kind: str) -> Found:
    """The cases of a file of JSON or YAML. Raises `Problems` where it is none."""
    try:
        return found_records(file, _records(text, kind))
    except NoDataError as error:
        hint = f"a list of cases, or one under a key such as {', '.join(_LISTS[:3])}"
        raise Problems([Problem(file, error.line, str(error), hint)]) from None


def found_markdown(text: str, file: str) -> Found:
    """The policy's text and the cases in its fenced blocks, which are taken out of it."""
    lines = text.split("\n")
    front, above, left = _front_matter(lines, file)
    found = Found(left=left)
    kept: list[str] = []
    start = above
    for first, last, kind in _fenced(lines, above):
        block = "\n".join(lines[first + 1 : last])
        cases = _block(block, file, kind, first + 1)
        if not cases.cases:
            what = f"a block of {kind} without cases: it stays in the text"
            found += Found(left=[*cases.left, not_placed(file, first + 1, what)])
            continue
        found += cases
        kept += lines[start:first]
        start = last + 1
        _drop_heading(kept, lines[start:])
    kept += lines[start:]
    body = "\n".join(kept).strip()
    if body or front:
        found += Found([PolicyText(file, above + 1, re.sub(r"\n{3,}", "\n\n", body), front)])
    return found


def _front_matter(lines: Sequence[str], file: str) -> tuple[Mapping[str, Any], int, list[Problem]]:
    """Keys and values above a text, the number of their lines, and what is wrong with them."""
    if not lines or lines[0].rstrip() != "---":
        return {}, 0, []
    end = next((i for i, line in enumerate(lines) if i and line.rstrip() == "---"), None)
    if end is None:
        return {}, 0, []
    try:
        front = bounded_yaml.load("\n".join(lines[1:end]))
    except yaml.YAMLError as error:
        return {}, end + 1, [not_placed(file, 1, f"front matter: {bounded_yaml.why_not(error)[0]}")]
    if not isinstance(front, dict):
        return {}, end + 1, [not_placed(file, 1, "front matter without keys and values")]
    return {str(key): value for key, value in front.items()}, end + 1, []


def _fenced(lines: Sequence[str], above: int) -> Iterator[tuple[int, int, str]]:
    """Blocks of data: the numbers of their fences, from 0, and their kind."""
    opened: tuple[int, str, str] | None = None
    for number, line in enumerate(lines):
        match = _FENCE.match(line) if number >= above else None
        if match is None:
            continue
        if opened is None:
            opened = number, match[1], match[2].lower()
        elif match[1].startswith(opened[1]) and not match[2]:
            if opened[2] in _DATA:
                yield opened[0], number, _DATA[opened[2]]
            opened = None


def _block(block: str, file: str, kind: str, above: int) -> Found:
    """The cases of a block; none where it holds something else."""
    if kind == "jsonl":
        return found_lines(block, file, above)
    try:
        records = [(line + above, record) for line, record in _records(block, kind)]
    except NoDataError as error:
        # A block of JSON often holds a line a case.
        lines = found_lines(block, file, above) if kind == "json" else Found()
        if lines.cases:
            return lines
        return Found(left=[not_placed(file, error.line + above, str(error))])
    return found_records(file, records)


def _drop_heading(kept: list[str], rest: Sequence[str]) -> None:
    """Take out a heading that had nothing but the cases below it."""
    end = len(kept)
    while end and not kept[end - 1].strip():
        end -= 1
    after = next((line for line in rest if line.strip()), "#")
    if end and _HEADING.match(kept[end - 1]) and after.startswith("#"):
        del kept[end - 1 :]


def _records(text: str, kind: str) -> list[Record]:
    """The cases of a JSON or YAML text with their lines.

    Raises:
        NoDataError: It is no such text, or none with cases.
    """
    items = _json_items(text) if kind == "json" else _yaml_items(text)
    records: list[Record] = [(line, item) for line, item in items if isinstance(item, dict)]
    if not any(is_case(record) for _, record in records):
        raise NoDataError("no content and label among its keys")
    return records


def _yaml_items(text: str) -> list[tuple[int, Any]]:
    try:
        node, data = bounded_yaml.compose(text), bounded_yaml.load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise NoDataError(bounded_yaml.why_not(error)[0], line) from None
    if isinstance(node, yaml.MappingNode) and not is_case(data):
        inner = {name.value: value for name, value in node.value}
        key = next((key for key in _LISTS if isinstance(data.get(key), list)), None)
        node, data = (inner[key], data[key]) if key else (node, data)
    if isinstance(node, yaml.SequenceNode):
        lines = [item.start_mark.line + 1 for item in node.value]
        return list(zip(lines, data, strict=True))
    return [(1, data)]


def _json_items(text: str) -> list[tuple[int, Any]]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise NoDataError(f"no JSON: {error.msg}", error.lineno) from None
    except (ValueError, RecursionError):
        raise NoDataError("no JSON that can be read") from None
    if isinstance(data, dict) and not is_case(data):
        key = next((key for key in _LISTS if isinstance(data.get(key), list)), None)
        if key is None:
            return [(1, data)]
        opened = re.search(rf'"{key}"\s*:\s*\[', text)
        return _items_of(text, opened.end() if opened else 0, data[key])
    if isinstance(data, list):
        return _items_of(text, text.index("[") + 1, data)
    return [(1, data)]


def _items_of(text: str, at: int, items: Sequence[Any]) -> list[tuple[int, Any]]:
    """A list's items with the lines in which they begin; `at`: behind its bracket."""
    decoder = json.JSONDecoder()
    found = []
    for item in items:
        at += len(text[at:]) - len(text[at:].lstrip(" \t\n,"))
        found.append((text.count("\n", 0, at) + 1, item))
        _, at = decoder.raw_decode(text, at)
    return found
