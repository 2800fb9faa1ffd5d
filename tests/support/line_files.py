"""Files of JSON lines, read as a run and a filter do, and held against each line by itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.config.job_file import draft_job
from moderay.core.storage import filesystem
from moderay.core.verdicts import Status
from moderay.corpus.columns import read_columns
from moderay.corpus.content import Content, contents
from moderay.corpus.formats import UNREADABLE, format_of, kind_column
from moderay.corpus.scan import Scan, scan
from moderay.corpus.shard import Shard
from moderay.pipeline.messages.spans import Span
from moderay.pipeline.stages.spans import RowStream
from support.corpora import get, put
from support.mutation import mutants

# What breaks lines, or a reader that looks at several of them.
TOKENS = (
    b"\n", b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800",
    b"\\udc00", b"\\u0000", b"\\", b'"', b"{", b"}", b"[", b"]", b",", b":", b"{}", b"[1]", b"null",
    b"true", b"1e999", b"-1e-999", b"NaN", b"-Infinity", b"9" * 400, b'"text":', b'"text":7,',
    b'"id":"x",', b'"o":{"a":1},', b'"l":["x",1],', b'"text":[{"role":"user","content":"x"}],',
    b'"\\u0074ext":"x",', b"[" * 150, b'{"a":' * 120, b"}\n{", b'"}\n{"text":"other"}\n', b" ",
    b"\t",
)  # fmt: skip
# What is mutated.
ROWS = (
    {"text": "row é 0, a prize", "id": 0, "n": 1.5, "tags": ["a", "b"], "o": {"a": "x"}},
    {"text": 'row "1" {[ in a shop', "id": 1, "n": 2, "tags": []},
    {"text": None, "id": 2, "o": {"a": None, "b": [1]}},
    {"text": "row\n3", "id": 3, "ok": True},
    {"text": "row 4 \ud83d\ude00", "id": 4, "n": -1e-9},
    {"text": "  ", "id": 5},
)
SOUND = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS) * 3
WHY = pa.field("moderay", pa.struct([("row", pa.int64())]))


def put_mutants(folder: Path, end: str, seed: int, count: int) -> int:
    """Write folder/in/*.END: damaged lines, and where it is compressed, damage to that as well.

    Returns:
        How many files.
    """
    for name, data in mutants(SOUND, seed, count, TOKENS):
        put(folder, f"{name}.{end}", data)
    if not end.endswith((".gz", ".zst")):
        return count
    sound = put(folder, f"sound.{end}", SOUND).read_bytes()
    for name, data in mutants(sound, seed, count):
        (folder / f"in/{name}-packed.{end}").write_bytes(data)
    return 2 * count + 1


def scanned(job_file: Path) -> tuple[Scan, Any]:
    """The scan of a job's input, whatever is wrong with it, and the job."""
    job = draft_job(job_file).job
    assert job is not None
    return scan(job, ["spam"]), job


def assert_each_row_is_its_line(shard: Shard, job: Any, scratch: Path) -> None:
    """The rows of a file that is read are its lines, in order, whoever reads them."""
    lines = rows_of(Path(shard.url))
    assert shard.schema is not None and shard.rows == len(lines), shard.name
    form, location = format_of(shard.url), filesystem(shard.url)
    carried = pa.concat_tables(form.tables(*location, shard.schema.names, shard.schema))
    span = Span(shard, (0, len(shard.row_groups)), 0, ((0, shard.rows),), max(1, shard.rows))
    read = RowStream(span, job, read_columns(job)).upto(0, shard.rows)
    judged = contents(read, job.input.content)
    assert len(carried) == len(judged) == len(lines), shard.name
    values = [expected(line) for line in lines]
    reasons = (
        read.column(UNREADABLE).to_pylist()
        if UNREADABLE in read.column_names
        else [None] * len(lines)
    )
    for row, value in enumerate(carried.select(shard.schema.names).to_pylist()):
        where = (shard.name, row, lines[row], reasons[row])
        assert (reasons[row] is None) == (values[row] is not None), where
        assert_carried(values[row] or {}, value, carried, row)
        assert_content(values[row], judged[row], job.input.content, where)
    assert_verbatim(shard, lines, values, scratch)


def rows_of(file: Path) -> list[bytes]:
    """The lines that are rows."""
    data = get(file).removeprefix(b"\xef\xbb\xbf")
    return [line for line in data.split(b"\n") if line.strip(b" \t\r")]


def expected(line: bytes) -> dict[str, Any] | None:
    """What a line holds, by Python's own reader; None where it is no JSON object."""
    try:
        value = json.loads(
            line.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _depth(value) <= 100 else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def _finite(text: str) -> float:
    # Also 0e999: Arrow looks at the exponent alone.
    if math.isinf(float(text)) or re.search(r"[eE]\+?0*([4-9]\d\d|\d{4})", text):
        raise ValueError("too big")
    return float(text)


def _integer(text: str) -> float:
    return int(text) if len(text) < 18 else _finite(text)


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    is_nested = isinstance(value, dict | list)
    return is_nested + max(map(_depth, inside), default=0)


def assert_carried(line: dict[str, Any], row: dict[str, Any], table: pa.Table, at: int) -> None:
    """A row of all columns holds what its line does, and nothing else."""
    for name, actual in row.items():
        value = line.get(name)
        if kind_column(name) in table.column_names and not (
            value is None or isinstance(value, str)
        ):
            value, actual = json.loads(json.dumps(value)), json.loads(actual)
        assert same(value, actual), (at, name, value, actual)
    assert all(name in row for name in line), (at, line)


def same(value: Any, actual: Any) -> bool:
    """Whether a value of JSON is what was read; a key that is missing is null."""
    if isinstance(value, dict) and isinstance(actual, dict):
        return value.keys() <= actual.keys() and all(
            same(value.get(name), actual[name]) for name in actual
        )
    if isinstance(value, list) and isinstance(actual, list):
        return len(value) == len(actual) and all(map(same, value, actual))
    if isinstance(value, bool) or isinstance(actual, bool):
        return value is actual
    if isinstance(value, int | float) and isinstance(actual, int | float):
        return value == actual or float(value) == actual or (value != value and actual != actual)
    return type(value) is type(actual) and bool(value == actual)


def assert_content(
    line: dict[str, Any] | None, content: Content, name: str, where: tuple[Any, ...]
) -> None:
    """A row is judged by what stands in its own line, or not at all."""
    value = None if line is None else line.get(name)
    if line is None:
        assert content.status is Status.INVALID and content.detail, where
    elif isinstance(value, str):
        assert content.text == (value if value.strip() else ""), where
        assert (content.status is Status.OK) == bool(value.strip()), where
    elif value is None or value == []:
        assert content.status is Status.EMPTY, where
    elif content.status is Status.OK:
        assert isinstance(value, list) and all(
            line in content.text for turn in value for line in (turn["content"] or "").splitlines()
        ), where
    else:
        assert content.status in (Status.INVALID, Status.EMPTY), where


def assert_verbatim(
    shard: Shard, lines: Sequence[bytes], values: Sequence[dict[str, Any] | None], folder: Path
) -> None:
    """A filter hands on each line as it was; behind an object it writes what it says of it."""
    kept, held = folder / "kept", folder / "held"
    with format_of(shard.url).verbatim(*filesystem(shard.url)) as source:
        as_is = source.part(kept, [])
        with_reasons = source.part(held, [WHY])
        for start, rows in source.batches():
            numbers = pa.array(range(start, start + len(rows)), pa.int64())
            why = pa.StructArray.from_arrays([numbers], fields=list(WHY.type))
            as_is.add(rows, [], np.ones(len(rows), bool))
            with_reasons.add(rows, [why], np.ones(len(rows), bool))
        as_is.close(always=True)
        with_reasons.close(always=True)
    assert decompressed(kept, shard).split(b"\n")[:-1] == list(lines), shard.name
    for row, (after, line) in enumerate(
        zip(decompressed(held, shard).split(b"\n")[:-1], lines, strict=True)
    ):
        value = values[row]
        if value is None:
            assert after == line, (shard.name, row)
        else:
            assert after.startswith(line.rstrip()[:-1]), (shard.name, row)
            assert same({**value, "moderay": {"row": row}}, json.loads(after)), (shard.name, row)


def decompressed(file: Path, shard: Shard) -> bytes:
    codec = {".gz": "gzip", ".zst": "zstd"}.get(Path(shard.url).suffix)
    data: bytes = pa.input_stream(str(file), compression=codec).read()
    return data
