"""What every format has to give, whatever its files are made of."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import put

from moderay.core.storage import ChangedError, FileState, filesystem, version
from moderay.corpus.formats import FORMATS, UnreadableError, delimited, format_of, jsonlines, text

ROWS = [{"id": f"{i}", "text": f'row {i}, "é"\nand more' if i % 3 else None} for i in range(300)]
# Of plain text: one column, and no line is null or two.
LINES = [{"text": f'row {i}, "é" and more' if i % 3 else ""} for i in range(300)]
WHY = pa.field("moderay", pa.struct([("row", pa.int64())]))
ARROW = (".arrow", ".feather", ".ipc", ".arrows")
ENDS = [end for form in FORMATS for end in form.suffixes]


def is_text(name: str) -> bool:
    return ".txt" in name or ".text" in name


def rows_of(file: Path) -> list[dict[str, Any]]:
    return LINES if is_text(file.name) else ROWS


def written(folder: Path, end: str) -> Path:
    file = folder / f"in/a{end}"
    if end == ".parquet":
        file.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=40)
    elif end in ARROW:
        file.parent.mkdir()
        table = pa.Table.from_pylist(ROWS)
        new = pa.ipc.new_stream if end == ".arrows" else pa.ipc.new_file
        codec = {".arrow": None, ".feather": "lz4", ".ipc": "zstd", ".arrows": "zstd"}[end]
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with new(str(file), table.schema, options=options) as writer:
            writer.write_table(table, 40)
    elif is_text(end):
        put(folder, file.name, b"".join(row["text"].encode() + b"\n" for row in LINES))
    elif "json" in end:
        put(folder, file.name, b"".join(json.dumps(row).encode() + b"\n" for row in ROWS))
    else:
        text = io.StringIO()
        dialect = "excel-tab" if ".tsv" in end else "excel"
        writer = csv.DictWriter(text, ["id", "text"], dialect=dialect)
        writer.writeheader()
        writer.writerows(ROWS)
        put(folder, file.name, text.getvalue().encode())
    return file


@pytest.fixture(params=ENDS)
def source(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any, Any]:
    for module in (jsonlines, delimited, text):
        monkeypatch.setattr(module, "READ_BYTES", 500)
        monkeypatch.setattr(module, "GROUP_BYTES", 1000)
    file = written(tmp_path, request.param)
    return file, format_of(file.name), filesystem(str(file))


def state(file: Path) -> FileState:
    fs, path = filesystem(str(file))
    return FileState(file.stat().st_size, version(fs.info(path)))


def schema_of(file: Path, form: Any, location: Any) -> tuple[pa.Schema | None, tuple[int, ...]]:
    footer = form.footer(*location, state(file), ["text"])
    [schema] = form.common([footer.schema])
    assert schema.names == list(rows_of(file)[0]) and footer.content_bytes > 1000
    return form.explicit_schema(schema), footer.row_groups


def test_rows_are_those_that_are_counted_from_any_group_on(source: Any) -> None:
    file, form, location = source
    schema, groups = schema_of(file, form, location)
    expected = rows_of(file)
    assert sum(groups) == len(expected) and form.names(*location) == list(expected[0])
    at = 0
    for group, count in enumerate(groups):
        tables = form.tables(
            *location, ["text"], schema, rows=7, groups=(group, len(groups)), listed=state(file)
        )
        rows = [row for table in tables for row in table.to_pylist()]
        assert rows == [{"text": row["text"]} for row in expected[at:]]
        at += count


def test_footer_is_the_same_each_time_and_when_it_was_stored(source: Any) -> None:
    file, form, location = source
    first, again = (form.footer(*location, state(file), ["text"]) for _ in range(2))
    assert first == again and first.schema.equals(again.schema, check_metadata=True)
    stored = pa.ipc.read_schema(pa.py_buffer(first.schema.serialize().to_pybytes()))
    tables = [
        list(form.tables(*location, ["id", "text"], form.explicit_schema(*form.common([schema]))))
        for schema in (first.schema, stored)
    ]
    assert tables[0] == tables[1] and sum(map(len, tables[0])) == len(ROWS)


@pytest.mark.parametrize("end", ENDS)
def test_file_without_rows_has_columns_or_is_told(tmp_path: Path, end: str) -> None:
    file = put(tmp_path, f"a{end}", b"")
    form, location = format_of(file.name), filesystem(str(file))
    if "json" in end or is_text(end):
        assert sum(form.footer(*location, state(file), []).row_groups) == 0
    else:
        with pytest.raises(
            UnreadableError, match=r"no Parquet footer|no Arrow schema|it has no header|truncated"
        ):
            form.footer(*location, state(file), [])
    file.write_bytes(b"")
    if end not in (".jsonl", ".ndjson", ".txt", ".text"):
        with pytest.raises(UnreadableError):
            form.footer(*location, state(file), [])


def test_part_has_the_rows_it_is_handed_and_what_is_added(source: Any, tmp_path: Path) -> None:
    file, form, location = source
    kept, held = tmp_path / f"kept{file.name[1:]}", tmp_path / f"held{file.name[1:]}"
    with form.verbatim(*location, state(file)) as verbatim:
        as_is, with_why = verbatim.part(kept, []), verbatim.part(held, [WHY])
        none = verbatim.part(tmp_path / "none", [])
        for start, rows in verbatim.batches():
            chosen = [row for row in range(len(rows)) if (start + row) % 2]
            some = rows.take(pa.array(chosen, pa.int64()))
            numbers = pa.array([start + row for row in chosen], pa.int64())
            why = pa.StructArray.from_arrays([numbers], fields=list(WHY.type))
            as_is.add(some, [], np.zeros(len(some), bool))
            with_why.add(some, [why], np.zeros(len(some), bool))
        for part, always in ((as_is, True), (with_why, False), (none, False)):
            part.close(always=always)
    assert not (tmp_path / "none").exists()
    expected = rows_of(file)
    own = list(expected[0])
    for part, names in ((kept, own), (held, [*own, "moderay"])):
        there = filesystem(str(part))
        footer = form.footer(*there, state(part), [])
        [schema] = form.common([footer.schema])
        tables = form.tables(*there, names, form.explicit_schema(schema))
        rows = [row for table in tables for row in table.to_pylist()]
        if is_text(part.name) and part is held:  # behind a tab
            rows = [split(row["text"]) for row in rows]
        assert [{name: row[name] for name in own} for row in rows] == expected[1::2]
        why = [row.get("moderay") for row in rows]
        numbers = [
            (json.loads(one) if isinstance(one, str) else one or {}).get("row") for one in why
        ]
        assert numbers == (list(range(1, 300, 2)) if part is held else [None] * 150)


def split(line: str) -> dict[str, Any]:
    text, _, more = line.rpartition("\t")
    return {"text": text} | json.loads(more)


def test_file_that_changed_and_one_cut_short_are_told_apart(source: Any) -> None:
    file, form, location = source
    schema, _ = schema_of(file, form, location)
    before = state(file)
    data = file.read_bytes()
    file.write_bytes(data + data)
    with pytest.raises(ChangedError):
        list(form.tables(*location, ["text"], schema, listed=before))
    if file.suffix in (".parquet", ".gz", ".zst", *ARROW):
        file.write_bytes(data[: len(data) // 2])
        with pytest.raises(UnreadableError):
            form.footer(*location, state(file), [])
