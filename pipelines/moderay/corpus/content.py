"""What is judged: texts and conversations, their hash, and the windows of those that are long."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.verdicts import Status
from moderay.corpus.formats import UNREADABLE, kind_column

# A column of a template: its name between braces.
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Content:
    """One row's content, or why there is none.

    Attributes:
        text: As the model reads it.
        hash: Of `content_hash`; None where nothing could be hashed.
        status: `ok`, `empty` or `invalid`.
        detail: What is invalid.
    """

    text: str
    hash: str | None
    status: Status = Status.OK
    detail: str | None = None


def template_columns(content: str) -> list[str]:
    """The input columns a job's `content` names.

    One column, or those of a template such as "{title}: {body}".
    """
    return list(dict.fromkeys(_PLACEHOLDER.findall(content))) or [content]


def contents(table: pa.Table, content: str) -> list[Content]:
    """Every row's content, in order. Never raises for what a row holds."""
    rows = _readable(table, content)
    if UNREADABLE not in table.column_names:
        return rows
    return [
        row if reason is None else Content("", None, Status.INVALID, reason)
        for row, reason in zip(rows, table.column(UNREADABLE).to_pylist(), strict=True)
    ]


def _readable(table: pa.Table, content: str) -> list[Content]:
    """The contents of rows that could be read."""
    names = template_columns(content)
    if names == [content]:
        column = table.column(content)
        return conversations(column) if is_list(column.type) else _mixed(table, content)
    columns = {name: _only_texts(table, name) for name in names}
    return [
        _filled(content, {name: columns[name][i] for name in names}) for i in range(table.num_rows)
    ]


def content_hashes(table: pa.Table, content: str) -> pa.StringArray:
    """The hash of every row's content, in order; null where nothing could be hashed."""
    return pa.array([row.hash for row in contents(table, content)], pa.string())


def _mixed(table: pa.Table, name: str) -> list[Content]:
    """The contents of a column in which a value may be of another kind than text.

    A list is a conversation, where it is one of turns.
    """
    rows = _only_texts(table, name)
    if kind_column(name) not in table.column_names:
        return rows
    of_turns = pc.equal(table.column(kind_column(name)), "a list").fill_null(False)
    values = table.column(name).filter(of_turns).to_pylist()
    for row, value in zip(np.flatnonzero(of_turns.to_numpy()), values, strict=True):
        rows[row] = _written_conversation(value)
    return rows


def _only_texts(table: pa.Table, name: str) -> list[Content]:
    """The contents of a column in which a value of another kind than text is invalid."""
    rows = texts(table.column(name))
    if kind_column(name) not in table.column_names:
        return rows
    return [
        row if kind is None else Content("", None, Status.INVALID, f"{kind}, not text")
        for row, kind in zip(rows, table.column(kind_column(name)).to_pylist(), strict=True)
    ]


def texts(column: pa.ChunkedArray) -> list[Content]:
    """The contents of a column of strings or bytes.

    They are decoded from bytes row by row, since one invalid row fails a whole string column.
    """
    return [_text(value) for value in _as_bytes(column)]


def conversations(column: pa.ChunkedArray) -> list[Content]:
    """The contents of a column of `list<struct<role, content>>`, rendered as transcripts.

    Each turn is its role on a line of its own, then its text indented by two spaces, so that no
    text can pass for another turn. The hash covers roles and texts as they are.
    """
    return [_conversation(turns) for turns in _turns(column)]


def content_hash(parts: Sequence[str]) -> str:
    """128-bit BLAKE2b, hexadecimal, of a text, or of a conversation's roles and texts.

    The latter as JSON, so that their boundaries count, and with another personalisation, so that no
    text has a conversation's hash.
    """
    if len(parts) == 1:
        data = parts[0]
        kind = b""
    else:
        data = json.dumps(parts, ensure_ascii=False)
        kind = b"conversation"
    return hashlib.blake2b(data.encode("utf-8"), digest_size=16, person=kind).hexdigest()


def windows(ids: Sequence[int], size: int, overlap: int) -> list[Sequence[int]]:
    """Overlapping pieces of at most `size` tokens that cover `ids`; one piece where it fits."""
    return [ids[start:end] for start, end in _spans(len(ids), size, overlap)]


def text_windows(
    ids: Sequence[int], size: int, overlap: int, decode: Callable[[Sequence[int]], str]
) -> list[str]:
    """The texts of the pieces that `windows` gives.

    An edge may fall inside a character: it then moves behind it, by three tokens at most, so that
    every character stands whole in some piece.
    """
    return [
        decode(ids[_whole(ids, start, decode) : _whole(ids, end, decode)])
        for start, end in _spans(len(ids), size, overlap)
    ]


def _spans(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    if length <= size:
        return [(0, length)]
    step = size - overlap
    count = -(-(length - overlap) // step)
    return [(i * step, min(i * step + size, length)) for i in range(count)]


def _whole(ids: Sequence[int], edge: int, decode: Callable[[Sequence[int]], str]) -> int:
    """The first edge from here on that no character lies across.

    There the texts beside it, of four tokens and so of a character each at least, decode to the
    same apart and together.
    """
    while 0 < edge < len(ids):
        before, after = ids[max(0, edge - 4) : edge], ids[edge : edge + 4]
        if decode(before) + decode(after) == decode([*before, *after]):
            break
        edge += 1
    return edge


def most_tokens(size: int, overlap: int, count: int) -> int:
    """The longest content, in tokens, that `count` windows cover."""
    return size + (count - 1) * (size - overlap)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds conversations, and no texts."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _as_bytes(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    """Chunk by chunk: all rows as bytes beside all rows as text would be twice the memory."""
    for chunk in column.chunks:
        yield from chunk.cast(pa.large_binary(), safe=False).to_pylist()


def _turns(column: pa.ChunkedArray) -> list[list[dict[str, bytes | None] | None] | None]:
    """Turns with their strings as bytes."""
    turn = pa.struct([("role", pa.large_binary()), ("content", pa.large_binary())])
    kind = pa.list_(turn)
    return [turns for chunk in column.chunks for turns in chunk.cast(kind, safe=False).to_pylist()]


def _text(value: bytes | None) -> Content:
    if value is None:
        return Content("", None, Status.EMPTY)
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Content("", None, Status.INVALID, f"invalid UTF-8 at byte {error.start}")
    if not text.strip():
        return Content("", content_hash([text]), Status.EMPTY)
    return Content(text, content_hash([text]))


def _conversation(turns: list[dict[str, bytes | None] | None] | None) -> Content:
    if not turns:
        return Content("", None, Status.EMPTY)
    parts: list[str] = []
    for number, turn in enumerate(turns, start=1):
        if turn is None or turn["role"] is None:
            return Content("", None, Status.INVALID, f"turn {number} has no role")
        try:
            parts += [turn["role"].decode("utf-8"), (turn["content"] or b"").decode("utf-8")]
        except UnicodeDecodeError as error:
            detail = f"invalid UTF-8 in turn {number} at byte {error.start}"
            return Content("", None, Status.INVALID, detail)
    roles = parts[::2]
    messages = parts[1::2]
    if not any(message.strip() for message in messages):
        return Content("", content_hash(parts), Status.EMPTY)
    return Content(transcript(roles, messages), content_hash(parts))


def _written_conversation(text: str) -> Content:
    """A conversation from its turns as JSON."""
    turns: list[dict[str, bytes | None] | None] = []
    for number, turn in enumerate(json.loads(text), start=1):
        values = turn if isinstance(turn, dict) else {}
        parts = {name: values.get(name) for name in ("role", "content")}
        for name, part in parts.items():
            if not (part is None or isinstance(part, str)):
                return Content("", None, Status.INVALID, f"turn {number} has a {name} of no text")
        turns.append({name: part and part.encode() for name, part in parts.items()})
    return _conversation(turns)


def transcript(roles: Sequence[str], messages: Sequence[str]) -> str:
    """The turns as the model reads them."""
    return "\n".join(
        f"{' '.join(role.split())}:\n{_indented(message)}"
        for role, message in zip(roles, messages, strict=True)
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines() or [""])


def _filled(template: str, values: Mapping[str, Content]) -> Content:
    """A template's text; a part that is null stands as nothing.

    One that is invalid makes the row invalid.
    """
    for name, value in values.items():
        if value.status is Status.INVALID:
            return Content("", None, Status.INVALID, f"{name}: {value.detail}")
    if all(value.status is Status.EMPTY for value in values.values()):
        return Content("", None, Status.EMPTY)
    text = _PLACEHOLDER.sub(lambda match: values[match[1]].text, template)
    return Content(text, content_hash([text]))
