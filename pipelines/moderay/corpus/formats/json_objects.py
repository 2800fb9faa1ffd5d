"""Lines as JSON objects: which of them are none, and why; and the values of the others.

Whether a line is an object depends neither on the lines beside it nor on the columns that are
wanted: a scan, a reader and a filter must agree on it. Arrow says it of many lines at once. Where
it refuses them, each is looked at.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from moderay.core.errors import first_line
from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.lines import Lines, few_rows, no_text

# Looked through for their types at once. Where each row has keys of its own, Arrow makes rows x
# rows values of them.
LOOK_ROWS = 1_000
# Of an object that is a row, and of a file.
MOST_COLUMNS = 10_000
# Objects and lists in each other. Arrow takes time that grows with the square of it to find their
# types, and at some ten thousand crashes.
MOST_DEEP = 100

_OPEN, _CLOSE, _LIST = b"{}["
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NO_COLUMNS = pa.schema([])
_NAME_CHARS = 50


def parsed(data: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """Objects as rows.

    Args:
        data: One object a line.
        schema: The columns that are read; by default all, in the types that Arrow finds.

    Raises:
        ArrowInvalid: A line is no JSON, or a column has no one type.
    """
    options = (
        {} if schema is None else {"explicit_schema": schema, "unexpected_field_behavior": "ignore"}
    )
    read = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
    return pj.read_json(
        pa.BufferReader(data), read_options=read, parse_options=pj.ParseOptions(**options)
    )


def whole(lines: Lines) -> pa.Table | None:
    """All columns of a few lines, in the types that Arrow finds.

    None where a line is no object, or a column has no one type.
    """
    if _malformed(lines):
        return None
    try:
        table = parsed(lines.data)
    except pa.ArrowInvalid:
        return None
    is_sound = len(table) == len(lines) and table.num_columns <= MOST_COLUMNS
    return table if is_sound and not any(map(_is_infinite, table.columns)) else None


def faults(lines: Lines) -> dict[int, str]:
    """The rows that are no object, and why: what stands behind "the line"."""
    found: dict[int, str] = {}
    start = 0
    for part in few_rows([lines], LOOK_ROWS):
        if whole(part) is None:
            found |= {start + row: reason for row, reason in objects(part)[0].items()}
        start += len(part)
    return found


def objects(lines: Lines) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """Each line by itself: the `faults`, and the values of all rows; of those, none."""
    found = _malformed(lines)
    found |= _refused(lines.without(found), 0, len(lines))
    values: list[dict[str, Any]] = []
    for row in range(len(lines)):
        value: dict[str, Any] = {}
        if row not in found:
            try:
                value = loaded(lines[row])
            except UnreadableError as error:
                found[row] = first_line(error)
        values.append(value)
    return found, values


def loaded(line: bytes) -> dict[str, Any]:
    """The values of a line that is JSON.

    Raises:
        UnreadableError: A key is there twice, or a number is too big, which Arrow sees only where
            it reads that column.
    """
    try:
        value: dict[str, Any] = json.loads(
            line, parse_int=_integer, parse_float=_float, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        raise UnreadableError(f"is no JSON object: {error.msg}") from None
    if len(value) > MOST_COLUMNS:
        raise UnreadableError(f"has more than {MOST_COLUMNS:,} keys")
    return value


def _integer(text: str) -> int | float:
    """As Arrow takes them: one of more than 64 bits is a floating-point number."""
    value = int(text) if len(text) < 20 else 2**63
    return value if -(2**63) <= value < 2**63 else _float(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise UnreadableError("has a number that is too big")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise UnreadableError(f"has the key {twice[:_NAME_CHARS]!r} twice")
    return value


def _is_infinite(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether a number in it is one that Arrow makes of what no double holds."""
    if pa.types.is_floating(column.type):
        return bool(pc.any(pc.is_inf(column)).as_py())
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if pa.types.is_list(column.type):
        return any(_is_infinite(chunk.flatten()) for chunk in chunks)
    return pa.types.is_struct(column.type) and any(
        _is_infinite(part) for chunk in chunks for part in chunk.flatten()
    )


def _malformed(lines: Lines) -> dict[int, str]:
    """Rows that are no text, no object from end to end, or too deep.

    One that begins and ends as an object does leaves no way for it to go over two lines.
    """
    array = np.frombuffer(lines.data, np.uint8)
    found = no_text(lines)
    for row in np.flatnonzero((array[lines.starts] != _OPEN) | (array[lines.ends - 1] != _CLOSE)):
        text = lines[row].strip()
        if not (text.startswith(b"{") and text.endswith(b"}")):
            found.setdefault(int(row), "is no JSON object")
    opened = np.searchsorted(
        np.flatnonzero((array == _OPEN) | (array == _LIST)), np.append(lines.starts, len(array))
    )
    for row in np.flatnonzero(np.diff(opened) > MOST_DEEP):
        if int(row) not in found and _depth(lines[row]) > MOST_DEEP:
            found[int(row)] = f"has objects and lists in each other more than {MOST_DEEP} deep"
    return found


def _depth(text: bytes) -> int:
    array = np.frombuffer(_STRING.sub(b"", text), np.uint8)
    steps = np.isin(array, list(b"{[")).astype(np.int64) - np.isin(array, list(b"}]"))
    return int(steps.cumsum().max(initial=0))


def _refused(lines: Lines, low: int, high: int) -> dict[int, str]:
    """Rows that are no JSON, found by halving."""
    reason = "holds more than one JSON object"
    try:
        if len(parsed(lines.part(low, high).data, _NO_COLUMNS)) == high - low:
            return {}
    except pa.ArrowInvalid as error:
        reason = re.sub(r"^JSON parse error: |\.? in row \d+$", "", first_line(error))
        reason = f"is no JSON object: {reason}"
    if high - low == 1:
        return {low: reason}
    half = (low + high) // 2
    return _refused(lines, low, half) | _refused(lines, half, high)
