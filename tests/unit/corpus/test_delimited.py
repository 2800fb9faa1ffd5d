"""CSV and TSV: Python's own reader agrees on sound files, and a stray quote costs its line."""

from __future__ import annotations

import csv
import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from support.corpora import get, put
from support.line_files import scanned

from moderay.core.storage import FileState, filesystem
from moderay.corpus.formats import UNREADABLE, csv_records, delimited, format_of
from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.ranges import Range

ENDS = ("csv", "csv.gz", "tsv.zst")
WHY = pa.field("moderay", pa.struct([("row", pa.int64())]))


def opened(file: Path) -> tuple[Any, Any, Any]:
    form, location = format_of(file.name), filesystem(str(file))
    return form, location, form.footer(*location, FileState(file.stat().st_size, ""), [])


def read(file: Path, groups: Range | None = None) -> list[dict[str, Any]]:
    form, location, footer = opened(file)
    [schema] = form.common([footer.schema])
    tables = list(form.tables(*location, schema.names, schema, groups=groups))
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist() if tables else []
    if groups is None:
        assert len(rows) == sum(footer.row_groups)
    return rows


def records(file: Path) -> list[bytes]:
    form, location, _ = opened(file)
    with form.verbatim(*location) as source:
        return [row for _, table in source.batches() for row in table["record"].to_pylist()]


def reasons(file: Path) -> dict[int, str]:
    return {
        at: row[UNREADABLE] for at, row in enumerate(read(file)) if row.get(UNREADABLE) is not None
    }


FIELD = st.text(st.sampled_from('ab é,;|\t"\n\\0'), max_size=6)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda wide: st.lists(st.lists(FIELD, min_size=wide, max_size=wide), min_size=1)
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["csv", "csv.gz", "csv.zst"]),
    st.integers(1, 200),
    st.booleans(),
)
def test_python_reads_the_same_from_any_piece_and_any_group(
    tmp_path_factory, rows, delimiter: str, newline: str, quoting: int, end: str, size: int,
    mark: bool,
) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
    folder = tmp_path_factory.mktemp("any")
    # A quote behind a backslash is the other dialect: it has a test of its own.
    rows = [[field.replace("\\", "") for field in row] for row in rows]
    names = [f"n{i}" for i in range(len(rows[0]))]
    if len(names) == 1:
        delimiter = ","
        # An empty line is no row.
        rows = [row if row[0] else ["x"] for row in rows]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=newline, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([names, *rows])
    text = stream.getvalue()
    expected = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[1:]
    file = put(folder, f"a.{end}", (b"\xef\xbb\xbf" if mark else b"") + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "READ_BYTES", size)
        patch.setattr(delimited, "GROUP_BYTES", size)
        groups = opened(file)[2].row_groups
        actual = [row for g in range(len(groups)) for row in read(file, (g, g + 1))]
        whole = records(file)
    assert [[row[name] or "" for name in names] for row in actual] == expected
    assert all(row.get(UNREADABLE) is None for row in actual)
    header = text.encode()[: text.index("\n") + 1]
    assert header + b"".join(whole) == text.encode()


def test_stray_quotes_cost_their_own_line_and_are_named(tmp_path: Path) -> None:
    lines = [f"{i},row {i}\n" for i in range(5000)]
    lines[7] = '7,"never closed\n'
    for row in range(20, 4000, 50):
        lines[row] = f'{row},"a "quoted" word\n'
    lines[4000] = '4000,an inch: 5"\n'
    rows = read(put(tmp_path, "a.csv", ("id,text\n" + "".join(lines)).encode()))
    faults = {at: row[UNREADABLE] for at, row in enumerate(rows) if row[UNREADABLE]}
    # The quote of row 7 ends at the next one that stands in the way, 13 rows on.
    assert faults == dict.fromkeys(
        range(20, 4000, 50), "the row has text behind a closing quote"
    ) | {7: "the row opens a quote that is not closed"}
    assert [row["id"] for row in rows if row["id"]] == [
        str(i) for i in range(5000) if i not in faults
    ]
    assert rows[4000]["text"] == 'an inch: 5"'


def test_long_quoted_texts_are_one_row(tmp_path: Path) -> None:
    text = "\n".join(f"1,a line, number {i}" if i % 3 else "" for i in range(300_000))
    file = put(tmp_path, "a.csv", f'id,text\n1,"{text}"\n2,b\n'.encode())
    assert len(text) > 2 * delimited.READ_BYTES
    assert [row["text"] for row in read(file)] == [text, "b"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (b"1", "has 1 field, and the header 2"),
        (b"1,2,3", "has 3 fields, and the header 2"),
        (b'"a"b,2', "has text behind a closing quote"),
        (b'1,"a', "opens a quote that is not closed"),
        (b"1,caf\xe9", "has invalid UTF-8 at byte 5"),
    ],
)
@pytest.mark.parametrize("end", ["csv", "csv.gz", "csv.zst"])
def test_row_that_is_none_is_named_and_its_neighbours_are_read(
    tmp_path: Path, row: bytes, why: str, end: str
) -> None:
    data = b'id,text\n0,"a\nb"\n' + row + b"\n2,c\0\n" + b"3,d\n" * 20
    first, fault, last, *_ = read(put(tmp_path, f"a.{end}", data))
    assert (first["text"], last["text"]) == ("a\nb", "c\0")
    assert fault == {"id": None, "text": None, UNREADABLE: f"the row {why}"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it has no header: it is empty"),
        (b"\n\r\n", "it has no header: it is empty"),
        (b"a,b,a\n1,2,3\n", "its header has the column 'a' twice: rename one"),
        (b'"a,b\n1,2\n', "its header has a quote that is not closed, or is longer than 1,048,576"),
        (b"a,b\r1,2\r", "its lines end in a carriage return alone"),
        ("a,b\n1,2\n".encode("utf-16"), "it is UTF-16, not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "it is UTF-16, not UTF-8"),
        (b"caf\xe9,b\n1,2\n", "its header is not UTF-8: convert the file, for example with iconv"),
        (
            b"a,b\n1,2\n1,caf\xe9\n",
            "^it is not UTF-8: convert the file, .* iconv -f WINDOWS-1252 -t",
        ),
        (b"a,b\n1,2\n" + b"x" * 17_000_000, "a line is longer than 16,777,216 bytes"),
        (b",".join(b"%d" % i for i in range(10_001)), "more than 10,000 columns"),
        (b"a,b\n1\n2\n", "not one of its rows is sound; its first row has 1 field"),
    ],
)
def test_file_that_is_no_csv_is_named(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        opened(put(tmp_path, "a.csv", data))


def test_fault_that_was_not_there_when_rows_were_counted_is_told(tmp_path: Path) -> None:
    form, location, footer = opened(put(tmp_path, "a.csv", b"a,b\n1,2\n3,4\n"))
    put(tmp_path, "a.csv", b"a,b\n1,2\n3;4\n")
    with pytest.raises(UnreadableError, match="a row has 1 field, and the header 2"):
        list(form.tables(*location, ["a"], footer.schema))


def test_file_with_some_utf8_in_it_keeps_the_rows_that_are(tmp_path: Path) -> None:
    file = put(tmp_path, "a.csv", "a,b\n1,2\n1,é\n".encode() + b"1,caf\xe9\n")
    assert reasons(file) == {2: "the row has invalid UTF-8 at byte 5"}


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("a.csv", b",text,\n0,a,\n", [{"column_1": "0", "text": "a", "column_3": None}]),
        ("a.csv", b'id;"te,x;t"\n0;a,b\n', [{"id": "0", "te,x;t": "a,b"}]),
        ("a.tsv", b"id\tte,x,t\n0\ta,b\n", [{"id": "0", "te,x,t": "a,b"}]),
        ("a.csv", b"id|text\n0|C:\\\n", [{"id": "0", "text": "C:\\"}]),
        ("a.csv", b'text\n"a\n\n,b"\n\n""\n', [{"text": "a\n\n,b"}, {"text": None}]),
        (
            "a.csv",
            b"id,text\n1,a\rb\r\n2,\r",
            [{"id": "1", "text": "a\rb"}, {"id": "2", "text": None}],
        ),
        (
            "a.csv",
            b"\xef\xbb\xbfid,text\n\xef\xbb\xbf1,NULL\n",
            [{"id": "\ufeff1", "text": "NULL"}],
        ),
        ("a.csv", b"id,text", []),
        ("a.csv", b"\r\nid,text\r\n\r\n", []),
    ],
)
def test_file_of_any_dialect_is_read(
    tmp_path: Path, name: str, data: bytes, rows: list[dict[str, Any]]
) -> None:
    assert read(put(tmp_path, name, data)) == rows


def test_columns_are_read_by_name_whatever_their_order(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    put(tmp_path, "a.csv", b"id,text\n1,a\n")
    put(tmp_path, "b.csv.gz", b"text;more;id\nb;x;2\n")
    put(tmp_path, "c.csv", b"id,title\n3,c\n")
    put(tmp_path, "d.csv", b"id,text\n4,d\n")
    scan, _ = scanned(job())
    assert not scan.problems and scan.columns.names == ["id", "text"]
    assert [(shard.file, shard.rows) for shard in scan.shards] == [
        ("a.csv", 1),
        ("b.csv.gz", 1),
        ("d.csv", 1),
    ]
    assert [name for name, _ in scan.unreadable] == ["c.csv"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("end", ["csv", "csv.gz", "csv.zst"])
def test_filter_keeps_records_as_they_were(tmp_path: Path, end: str, newline: bytes) -> None:
    rows = [b'0,"a,\n""b"""' + newline, b"torn" + newline, b"2, c " + newline]
    file = put(tmp_path, f"a.{end}", b"id,text" + newline + b"".join(rows))
    form, location, _ = opened(file)
    kept, held = tmp_path / f"kept.{end}", tmp_path / f"held.{end}"
    with form.verbatim(*location) as source:
        as_is, with_why = source.part(kept, []), source.part(held, [WHY])
        for start, table in source.batches():
            numbers = pa.array(range(start, start + len(table)), pa.int64())
            why = pa.StructArray.from_arrays([numbers], fields=list(WHY.type))
            as_is.add(table, [], np.ones(len(table), bool))
            with_why.add(table, [why], np.ones(len(table), bool))
        as_is.close(always=True)
        with_why.close(always=True)
    assert get(kept) == get(file)
    first, torn, last = read(held)
    assert torn[UNREADABLE] and b"torn" + newline in get(held)
    assert [first, last] == [
        {"id": "0", "text": 'a,\n"b"', "moderay": '{"row":0}', UNREADABLE: None},
        {"id": "2", "text": " c ", "moderay": '{"row":2}', UNREADABLE: None},
    ]


TOKENS = [b'"', b",", b"\n", b"\r\n", b"\r", b"a", b'""', b"\xef\xbb\xbf", b"\0", b"\xff", b"x,y\n"]


@pytest.mark.slow
@pytest.mark.parametrize("most", [csv_records.RECORD_BYTES, 16])
def test_any_bytes_are_rows_that_do_not_hang_on_where_pieces_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(csv_records, "RECORD_BYTES", most)
    seen = too_long = 0
    for seed in range(100):
        rng = random.Random(seed)
        body = b"".join(rng.choices(TOKENS, k=rng.randrange(60)))
        # With a row that is UTF-8, and so not all of it is another encoding.
        file = put(tmp_path, "a.csv", "a,b\né,2\n".encode() + body)
        monkeypatch.setattr(delimited, "READ_BYTES", most)
        monkeypatch.setattr(delimited, "GROUP_BYTES", 2**20)
        whole = read_or_none(file)
        monkeypatch.setattr(delimited, "READ_BYTES", rng.randrange(1, 9))
        monkeypatch.setattr(delimited, "GROUP_BYTES", rng.randrange(1, 30))
        if whole is None:
            too_long += 1
            assert read_or_none(file) is None
            continue
        groups = opened(file)[2].row_groups
        assert [row for g in range(len(groups)) for row in read(file, (g, g + 1))] == whole
        cut = records(file)
        assert len(cut) == len(whole)
        # Nothing but empty lines lies between them.
        missing = "é,2\n".encode() + body
        for record in cut:
            start = missing.find(record.removesuffix(b"\n"))
            assert start >= 0 and not missing[:start].strip(b"\r\n"), (seed, record)
            missing = missing[start + len(record) :]
        assert not missing.strip(b"\r\n")
        seen += len(whole)
    assert seen > 500 and (too_long > 0) == (most == 16)


def read_or_none(file: Path) -> list[dict[str, Any]] | None:
    """Its rows; none of a file with a line that is too long."""
    try:
        return read(file)
    except UnreadableError as error:
        assert "a line is longer than 16 bytes" in str(error)
        return None


@pytest.mark.parametrize("record", [b"x" * 10**8, b'"' + b"x" * 10**8, (b"x" * 10**8) + b'"'])
def test_memory_is_bounded_whatever_the_length_of_a_line(tmp_path: Path, record: bytes) -> None:
    file = put(tmp_path, "a.csv.zst", b"text\n" + record + b"\n")
    del record
    tracemalloc.start()
    with pytest.raises(UnreadableError, match="a line is longer than 16,777,216 bytes"):
        opened(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * 2**20


def test_record_of_several_lines_that_is_too_long_is_a_stray_quote(tmp_path: Path) -> None:
    line = b"x" * 999 + b"\n"
    data = b'text\n"' + line * (csv_records.RECORD_BYTES // 1000 + 1) + b'"\n2\n'
    rows = read(put(tmp_path, "a.csv", data))
    assert rows[0][UNREADABLE] == "the row opens a quote that is not closed"
    # At the end there is the quote that would have closed it, which opens one now.
    assert [row["text"] for row in rows[1:-2]] == [line[:-1].decode()] * (len(rows) - 3)
    assert [row["text"] for row in rows[-2:]] == [None, "2"]
    data = data.replace(line, b"", 2)
    assert len(read(put(tmp_path, "b.csv", data))) == 2


@pytest.mark.parametrize("closed", [b"", b'x,"closed"\n'])
def test_memory_is_bounded_whatever_a_quote_takes_with_it(tmp_path: Path, closed: bytes) -> None:
    rows = b"a plain row of text,2\n" * 1_000_000
    file = put(tmp_path, "a.csv.zst", b'text,n\n"open,1\n' + rows + closed)
    tracemalloc.start()
    form, location, footer = opened(file)
    tables = form.tables(*location, ["text"], footer.schema)
    faults = [sum(table[UNREADABLE].is_valid().to_pylist()) for table in tables]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(footer.row_groups) == 1_000_001 + bool(closed) and sum(faults) == 1
    assert peak < 150 * 2**20
