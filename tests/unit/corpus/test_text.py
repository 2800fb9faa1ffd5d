"""Plain text: rows are lines or files, and come out as they went in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from support.corpora import get, put

from moderay.core.errors import Problems
from moderay.core.storage import FileState, filesystem
from moderay.corpus.content import contents
from moderay.corpus.formats import UnreadableError, format_of, lines, text, text_file
from moderay.corpus.shard import Shard
from moderay.pipeline.check import check


def read(file: Path, whole: bool = False) -> Iterator[pa.Table]:
    form, location = format_of(file.name, whole), filesystem(str(file))
    footer = form.footer(*location, FileState(file.stat().st_size, ""), ["text"])
    [schema] = form.common([footer.schema])
    for group in range(len(footer.row_groups)):
        groups = (group, group + 1)
        tables = form.tables(
            *location, ["text"], form.explicit_schema(schema), rows=5, groups=groups
        )
        rows = list(tables)
        assert sum(map(len, rows)) == footer.row_groups[group]
        yield from rows


def rows_of(file: Path, whole: bool = False) -> list[tuple[str, str | None]]:
    """Status and text, or detail, of each row."""
    return [
        (row.status.value, row.detail if row.status == "invalid" else row.text)
        for table in read(file, whole)
        for row in contents(table, "text")
    ]


def verbatim(file: Path, out: Path, keep: Callable[[int], bool], whole: bool = False) -> None:
    with format_of(file.name, whole).verbatim(*filesystem(str(file))) as source:
        part = source.part(out, [])
        for start, rows in source.batches():
            chosen = [row for row in range(len(rows)) if keep(start + row)]
            some = rows.take(pa.array(chosen, pa.int64()))
            part.add(some, [], np.zeros(len(some), bool))
        part.close(always=True)


LINE = st.one_of(
    st.binary(max_size=6), st.sampled_from([b"", b"\xc3\xa9", b" ", b"\xef\xbb\xbf", b"a\r"])
)
GAP = st.sampled_from([b"\n", b"\r\n"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(LINE, GAP), min_size=1),
    st.integers(1, 40),
    st.sampled_from(["", ".gz"]),
    st.booleans(),
)
@example([(b"", b"\r\n")] * 3, 1, "", False)
def test_rows_are_the_lines_of_any_bytes_and_a_copy_is_the_file(
    tmp_path_factory: Any, pairs: list[tuple[bytes, bytes]], size: int, end: str, ended: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    data = b"first" + b"".join(gap + line for line, gap in pairs) + (b"\n" if ended else b"")
    file = put(folder, f"a.txt{end}", data)
    expected = data.removesuffix(b"\n").split(b"\n") if ended else data.split(b"\n")
    if not ended and expected[-1] == b"":
        expected.pop()  # the newline before ends the last line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "READ_BYTES", size)
        patch.setattr(text, "GROUP_BYTES", size)
        actual = rows_of(file)
        verbatim(file, folder / file.name, lambda row: True)
        verbatim(file, folder / f"odd-{file.name}", lambda row: row % 2 == 1)
    assert len(actual) == len(expected)
    for (status, value), line in zip(actual, expected, strict=True):
        line = line.removesuffix(b"\r")
        try:
            assert value == (line.decode() if line.decode().strip() else "")
            assert status == ("ok" if line.decode().strip() else "empty")
        except UnicodeDecodeError as error:
            assert (status, value) == (
                "invalid",
                f"the line has invalid UTF-8 at byte {error.start}",
            )
    assert get(folder / file.name) == data
    whole = [line + b"\n" for line in data.split(b"\n")]
    whole[-1] = whole[-1][:-1]
    assert get(folder / f"odd-{file.name}") == b"".join(whole[1::2])


def test_byte_order_mark_is_no_part_of_the_first_line_and_stays_in_its_file(tmp_path: Path) -> None:
    file = put(tmp_path, "a.txt", b"\xef\xbb\xbfone\r\n\r\ntwo")
    assert rows_of(file) == [("ok", "one"), ("empty", ""), ("ok", "two")]
    verbatim(file, tmp_path / "kept", lambda row: row == 2)
    assert (tmp_path / "kept").read_bytes() == b"\xef\xbb\xbftwo"
    assert rows_of(file, whole=True) == [("ok", "one\r\n\r\ntwo")]
    verbatim(file, tmp_path / "whole", lambda row: True, whole=True)
    assert (tmp_path / "whole").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("one\ntwo\n".encode("utf-16"), "it is UTF-16, not UTF-8: convert it"),
        ("one\ntwo\n".encode("utf-32-le"), "it is UTF-32, not UTF-8: convert it"),
        (b"one\rtwo\rthree", "its lines end in a carriage return alone"),
        (
            b"caf\xe9\nna\xefve\n",
            "not one of its lines is text; line 1 has invalid UTF-8 at byte 3",
        ),
    ],
)
def test_file_that_is_no_text_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        rows_of(put(tmp_path, "a.txt", data))


def test_line_and_file_longer_than_the_bound_are_refused_within_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES", 2**20)
    monkeypatch.setattr(text_file, "LINE_BYTES", 2**20)
    file = put(tmp_path, "a.txt.zst", b"x" * 2**26)
    assert file.stat().st_size < 2**16
    for whole in (False, True):
        with pytest.raises(UnreadableError, match="longer than 1,048,576 bytes"):
            rows_of(file, whole)


def test_whole_files_that_are_empty_torn_or_no_text_are_told(tmp_path: Path) -> None:
    assert rows_of(put(tmp_path, "a.txt", b""), whole=True) == [("empty", "")]
    assert rows_of(put(tmp_path, "a.txt", b"")) == []
    bad = put(tmp_path, "b.txt", b"caf\xe9")
    assert rows_of(bad, whole=True) == [("invalid", "the file has invalid UTF-8 at byte 3")]
    wide = put(tmp_path, "c.txt", "one".encode("utf-16"))
    [(status, detail)] = rows_of(wide, whole=True)
    assert status == "invalid" and str(detail).startswith("the file is UTF-16, not UTF-8")
    torn = put(tmp_path, "d.txt.gz", b"one\n" * 9999)
    torn.write_bytes(torn.read_bytes()[:40])
    with pytest.raises(UnreadableError):
        rows_of(torn, whole=True)


def test_text_in_a_folder_is_input_where_the_job_says_what_a_row_is(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    put(tmp_path, "LICENSE.txt", b"All rights\nreserved\n")
    with pytest.raises(Problems, match=r"plain text in a folder is read with input\.text: lines"):
        check(job())
    put(tmp_path, "a.jsonl", [{"text": "hello"}])
    scan = check(job()).scan
    assert scan.rows == 1 and "LICENSE.txt" in " ".join(scan.notes)
    for kind, rows in (("lines", 3), ("file", 2)):
        scan = check(job(input={"path": "in", "content": "text", "text": kind})).scan
        assert (scan.rows, len(scan.shards)) == (rows, 2)
    named = check(job(input={"path": "in/LICENSE.txt", "content": "text"})).scan
    assert (named.rows, [shard.name for shard in named.shards]) == (2, ["LICENSE.parquet"])


def test_a_shard_of_one_row_is_told_from_one_of_lines() -> None:
    one = Shard("in/a.txt", "a.parquet", 1, "x", whole=True)
    assert isinstance(one.format, text_file.TextFile)
    assert not isinstance(Shard("in/a.txt", "a.parquet", 1, "x").format, text_file.TextFile)
