"""Arrow files and streams: in bounded memory, whatever they say of themselves."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.project import ROOT, environment

from moderay.core.errors import Problems
from moderay.core.storage import FileState, filesystem, version
from moderay.corpus.content import contents
from moderay.corpus.formats import UnreadableError, format_of, ipc_checks, ipc_file
from moderay.corpus.views import rows_at, without_views
from moderay.pipeline.check import check

MIB = 2**20


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in/a.arrow"


def write(file: Path, *tables: Any, stream: bool = False, codec: str | None = None) -> None:
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    options = pa.ipc.IpcWriteOptions(compression=codec, emit_dictionary_deltas=not stream)
    with new(str(file), tables[0].schema, options=options) as writer:
        for table in tables:
            writer.write(table)


def read(file: Path, *names: str, rows: int | None = None) -> Iterator[pa.Table]:
    location = filesystem(str(file))
    listed = FileState(file.stat().st_size, version(location[0].info(location[1])))
    form = format_of(file.name)
    form.footer(*location, listed, names)
    yield from form.tables(*location, names, None, rows=rows, listed=listed)


def test_batch_is_handed_out_in_pieces_that_are_bounded(hostile: Path) -> None:
    texts = ["x" * (MIB if i % 50 == 0 else 10) for i in range(2000)]
    write(hostile, pa.table({"text": texts, "n": range(2000)}), codec="lz4")
    pieces = list(read(hostile, "text", rows=512))
    assert [row for piece in pieces for row in piece["text"].to_pylist()] == texts
    assert max(map(len, pieces)) <= 512
    assert max(piece.nbytes for piece in pieces) <= ipc_checks.PIECE_BYTES


@pytest.mark.parametrize("stream", [False, True])
def test_one_text_in_all_rows_is_no_memory(hostile: Path, stream: bool) -> None:
    """As an index of a dictionary, or as a view."""
    text = "claim " * 200_000
    once = pa.array(["a", text], pa.string_view())
    views = np.frombuffer(once.buffers()[1], np.uint8).reshape(2, 16)[1]
    many = pa.py_buffer(np.tile(views, 3000).tobytes())
    viewed = pa.Array.from_buffers(once.type, 3000, [None, many, *once.buffers()[2:]])
    coded = pa.DictionaryArray.from_arrays(np.zeros(3000, np.int8), [text])
    write(hostile, pa.table({"view": viewed, "code": coded}), stream=stream)
    assert hostile.stat().st_size < 3 * MIB  # and 7 GB written out
    for name in ("view", "code"):
        rows = 0
        for piece in read(hostile, name):
            assert len(piece) * len(text) <= ipc_checks.PIECE_BYTES
            rows += len(piece)
            if rows < 50:
                assert {row.text for row in contents(without_views(piece), name)} == {text}
        assert rows == 3000


def test_dictionaries_that_grow_or_are_replaced_are_those_of_their_batch(hostile: Path) -> None:
    batches = [
        pa.table({"text": pa.array(words).dictionary_encode()})
        for words in (["a", "b", "a"], ["a", "b", "c"], ["d", "d", "a"])
    ]
    write(hostile, *batches, stream=True)
    form, location = format_of(hostile.name), filesystem(str(hostile))
    expected = [table["text"].to_pylist() for table in batches]
    for number in range(3):
        [piece] = form.tables(*location, ["text"], None, groups=(number, number + 1))
        assert piece["text"].to_pylist() == expected[number]
    grown = [
        pa.table(
            {"text": pa.DictionaryArray.from_arrays(pa.array([0, size - 1]), list("abcd"[:size]))}
        )
        for size in (2, 3, 4)
    ]
    write(hostile, *grown)
    assert [piece["text"].to_pylist() for piece in read(hostile, "text")] == [
        table["text"].to_pylist() for table in grown
    ]


def test_dictionaries_of_which_two_do_not_fit_into_one_are_carried_and_copied(
    hostile: Path, tmp_path: Path
) -> None:
    names = [[f"{batch}-{number}" for number in range(100)] for batch in range(3)]
    every = [name for batch in names for name in batch]
    indices = pa.array(range(100), pa.int8())
    batches = [
        pa.table({"c": pa.DictionaryArray.from_arrays(indices, words), "n": indices})
        for words in names
    ]
    write(hostile, *batches, stream=True)
    carried = pa.concat_tables(map(without_views, read(hostile, "c"))).combine_chunks()
    assert carried["c"].to_pylist() == every
    out = tmp_path / "kept.arrow"
    with format_of(hostile.name).verbatim(*filesystem(str(hostile))) as source:
        part = source.part(out, [])
        for _, rows in source.batches():
            even = rows_at(rows, np.arange(0, len(rows), 2))
            part.add(even, [], np.zeros(len(even), bool))
        part.close()
    with pa.ipc.open_stream(str(out)) as kept:
        assert kept.schema == batches[0].schema
        texts = [text for batch in kept for text in batch.column("c").to_pylist()]
    assert texts == every[::2]


def test_text_that_is_no_utf8_is_a_row_without_content(hostile: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 2, 5, 6], np.int32))
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"okca\xe9!")])
    write(hostile, pa.table({"text": text}))
    rows = [row for piece in read(hostile, "text") for row in contents(piece, "text")]
    assert [row.status for row in rows] == ["ok", "invalid", "ok"]
    assert rows[1].detail == "invalid UTF-8 at byte 2"


def big_endian(data: bytes, schema_at: int) -> bytes:
    """A stream whose schema says that its numbers begin with their largest byte.

    The field is missing where it has its default: it is made to point at a 1 that is there.
    """
    changed = bytearray(data)
    root = schema_at + struct.unpack_from("<I", data, schema_at)[0]
    message_fields = root - struct.unpack_from("<i", data, root)[0]
    header = root + struct.unpack_from("<H", data, message_fields + 8)[0]
    schema = header + struct.unpack_from("<I", data, header)[0]
    fields = schema - struct.unpack_from("<i", data, schema)[0]
    one = next(
        at
        for at in range(schema + 8, len(data), 2)
        if data[at : at + 2] == b"\1\0" and (at - schema_at) % 2 == 0
    )
    struct.pack_into("<H", changed, fields + 4, one - schema)
    return bytes(changed)


def test_big_endian_file_is_read_and_one_that_only_claims_to_be_is_left_out(hostile: Path) -> None:
    offsets = np.array([0, 3, 5], np.int32)
    write(hostile, pa.table({"text": ["one", "tw"]}), stream=True)
    data = big_endian(hostile.read_bytes(), 8)
    hostile.write_bytes(data.replace(offsets.tobytes(), offsets.astype(">i4").tobytes()))
    assert [piece["text"].to_pylist() for piece in read(hostile, "text")] == [["one", "tw"]]
    hostile.write_bytes(data)
    with pytest.raises(UnreadableError):
        list(read(hostile, "text"))


def test_offsets_outside_of_their_text_are_not_followed(hostile: Path) -> None:
    sound = np.array([0, 3, 5], np.int32).tobytes()
    write(hostile, pa.table({"text": ["one", "tw"]}))
    whole = hostile.read_bytes()
    for offsets in ([0, 2**30, 2**31 - 1], [0, -5, 5], [3, 0, 5]):
        hostile.write_bytes(whole.replace(sound, np.array(offsets, np.int32).tobytes()))
        with pytest.raises(UnreadableError):
            list(read(hostile, "text"))
    codes = pa.array([0, 100], pa.int8())
    coded = pa.DictionaryArray.from_arrays(codes, pa.array(["a"]), safe=False)
    write(hostile, pa.table({"text": coded}))
    with pytest.raises(UnreadableError):
        list(read(hostile, "text"))


def test_what_would_unpack_to_more_than_is_read_is_refused_before_it_is(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc_file, "MOST_BYTES", 16 * MIB)
    table = pa.table({"text": ["x" * MIB] * 64, "n": range(64)})
    write(hostile, table, codec="zstd")
    assert hostile.stat().st_size < MIB
    before = pa.total_allocated_bytes()
    with pytest.raises(UnreadableError, match="write it in batches of fewer rows"):
        list(read(hostile, "text"))
    assert pa.total_allocated_bytes() - before < MIB
    assert sum(map(len, read(hostile, "n"))) == 64  # the other column is not unpacked
    write(hostile, table)
    with pytest.raises(
        UnreadableError, match=r"a record batch of 67,\d+,\d+ bytes, and 16,777,216"
    ):
        list(read(hostile, "text"))


def test_damage_is_told_in_a_sentence(hostile: Path) -> None:
    table = pa.table({"text": [f"row {i}" for i in range(100)]})
    write(hostile, table)
    whole = hostile.read_bytes()
    write(hostile, table, stream=True)
    stream = hostile.read_bytes()
    size = int.from_bytes(whole[-10:-6], "little")
    footer = whole[-10 - size : -10]
    blocks = footer.index(struct.pack("<q", whole.index(b"\xff\xff\xff\xff", 16)))
    moved = bytearray(whole)
    moved[len(whole) - 10 - size + blocks] += 8
    for data, reason in {
        whole[:-1]: "no Arrow footer at its end",
        whole[:12]: "no Arrow footer at its end",
        bytes(moved): "where",
        b"FEA1" + whole: "Feather of version 1",
        stream[:-40]: "ends within a record batch",
        stream + stream: "more behind the end of its stream",
        b"PAR1" * 20: "its metadata are damaged|no Arrow",
        b"id,text\n1,hello\n" * 50: "its metadata are damaged|no Arrow",
    }.items():
        hostile.write_bytes(data)
        with pytest.raises(UnreadableError, match=reason):
            list(read(hostile, "text"))


def test_columns_that_no_label_file_can_have_are_told(
    job: Callable[..., Path], hostile: Path
) -> None:
    odd = pa.array([1, 2]).cast(pa.int8())
    union = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [odd])
    write(hostile, pa.table({"text": ["a", "b"], "u": union}))
    with pytest.raises(Problems, match=r"column 'u' is sparse_union<.*>, which Parquet has not"):
        check(job())
    assert check(job(output={"path": "out", "columns": ["text"]})).scan.rows == 2


def test_label_rows_are_those_of_parquet(job: Callable[..., Path], hostile: Path) -> None:
    turns = [[{"role": "user", "content": f"row {i}"}] for i in range(50)]
    table = pa.table({"text": turns, "day": pa.array([1, 2] * 25, pa.date32())})
    write(hostile, table)
    pq.write_table(table, hostile.with_name("b.parquet"))
    actual = check(job()).scan
    assert [shard.rows for shard in actual.shards] == [50, 50]
    assert all(shard.conversation for shard in actual.shards)
    assert actual.columns.names == ["text", "day"]


@pytest.mark.slow
def test_mutated_files_are_left_out_or_read_alike_in_every_way(tmp_path: Path) -> None:
    script = ROOT / "tests/support/ipc_mutation.py"
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "0", "150"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    outcomes = json.loads(result.stdout)
    assert sum(outcomes.values()) == 150 and 10 < outcomes["read"] < 140
