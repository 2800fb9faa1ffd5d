"""Lines of JSON lines that are hostile or broken: one row is lost, and not its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings
from support.corpora import put
from support.line_files import TOKENS, assert_each_row_is_its_line, put_mutants, scanned
from support.mutation import mutants

from moderay.config.job import Limits, UnitSize
from moderay.core.errors import StoppedError
from moderay.core.storage import filesystem
from moderay.core.verdicts import Status
from moderay.corpus.columns import read_columns
from moderay.corpus.content import contents
from moderay.corpus.formats import format_of, jsonlines
from moderay.corpus.formats.json_objects import faults
from moderay.corpus.formats.lines import lines
from moderay.pipeline.check import check
from moderay.pipeline.control.board import BoardState
from moderay.pipeline.control.limits import Brakes
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.control.tracker import Tracker
from moderay.pipeline.messages.units import UnitDone
from moderay.pipeline.stages.spans import RowStream, selected_rows, spans

ENDS = ("jsonl", "jsonl.gz", "ndjson.zst")
DEEP = b"[" * 20_000 + b"]" * 20_000
FAULTS = {
    b'{"text": "\\ud800"}': "is no JSON object: The surrogate pair in string is invalid",
    b'{"text": "a", "o": "\\udc00"}': "is no JSON object: The surrogate pair in string is invalid",
    b'{"text": "a", "text": "b"}': "has the key 'text' twice",
    b'{"text": "a", "o": 1, "o": 2}': "has the key 'o' twice",
    b'{"text": "a", "o": {"p": 1, "p": 2}}': "has the key 'p' twice",
    b'{"text": "a", "te\\u0078t": "b"}': "has the key 'text' twice",
    b'{"text": "a", "n": 1e999}': "is no JSON object: Number too big to be stored in double",
    b'{"text": "a", "n": [' + b"9" * 400 + b"]}": "has a number that is too big",
    b'{"text": "a", "n": Inf}': "is no JSON object: Expecting value",
    b'{"text": "a", "n": ' + DEEP + b"}": "has objects and lists in each other more than 100 deep",
    b'{"text": "a': "is no JSON object",
    b'{"text": "a"} x}': "is no JSON object: Invalid value",
    b'{"text": "a"}{"text": "b"}': "holds more than one JSON object",
    b'{"text": "a"}\r{"text": "b"}': "holds more than one JSON object",
    b'{"text": "a\tb"}': "is no JSON object: Invalid encoding in string",
    b'{"text": "\xff"}': "has invalid UTF-8 at byte 10",
    b'{"o": "\xed\xa0\x80", "text": "a"}': "has invalid UTF-8 at byte 7",
    b'\xef\xbb\xbf{"text": "a"}': "is no JSON object",
    b"[1]": "is no JSON object",
    b"7": "is no JSON object",
    b"null": "is no JSON object",
    b'"text"': "is no JSON object",
    b"}{": "is no JSON object",
    b"\0\0\0": "is no JSON object",
    b"\xff\xfe": "has invalid UTF-8 at byte 0",
}


@pytest.mark.parametrize("end", ENDS)
def test_line_that_is_no_object_is_an_invalid_row_and_its_neighbours_are_read(
    job: Callable[..., Path], tmp_path: Path, end: str
) -> None:
    good = [json.dumps({"text": f"row {i}", "n": i}).encode() for i in range(3000)]
    text = good[:]
    bad = {3 + 97 * i: (line, reason) for i, (line, reason) in enumerate(FAULTS.items())}
    for row, (line, _) in bad.items():
        text[row] = line
    put(tmp_path, f"a.{end}", b"\n".join(text))
    scan, checked = scanned(job())
    [shard] = scan.shards
    assert (shard.rows, scan.unreadable, scan.problems) == (3000, (), ())
    [table] = [pa.concat_tables(_tables(shard, ["text", "n"]))]
    rows = contents(table, "text")
    for row, content in enumerate(rows):
        if row in bad:
            assert (content.status, content.detail) == (Status.INVALID, f"the line {bad[row][1]}")
            assert (table["text"][row].as_py(), table["n"][row].as_py()) == (None, None)
        else:
            assert (content.text, table["n"][row].as_py()) == (f"row {row}", row)
    assert_each_row_is_its_line(shard, checked, tmp_path)


def _tables(shard: Any, names: list[str]) -> Any:
    return format_of(shard.url).tables(*filesystem(shard.url), names, shard.schema)


SOUND = [b"{}", b'{"text": "a"}', b'{"text": 7, "l": [1, "x"]}', b'{"n": NaN}', b'{"n": 1.5}\r']


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*FAULTS, *SOUND]), min_size=1, max_size=12))
def test_whether_a_line_is_an_object_does_not_hang_on_those_beside_it(text: list[bytes]) -> None:
    found = faults(lines(b"\n".join([*text, b""])))
    assert found == {row: FAULTS[line] for row, line in enumerate(text) if line in FAULTS}


def test_row_that_cannot_be_read_is_selected_whatever_where_says_and_read_from_any_middle(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonlines, "GROUP_BYTES", 1000)
    monkeypatch.setattr("moderay.pipeline.stages.spans.SPAN_BYTES", 1)
    text = [
        b'{"text": "a", "text": "b"}' if i % 50 == 7 else b'{"text": "row %d", "n": %d}' % (i, i)
        for i in range(500)
    ]
    put(tmp_path, "a.jsonl", b"\n".join(text))
    checked = check(job(input={"path": "in", "content": "text", "where": "n = 30"}))
    [shard] = checked.scan.shards
    actual = {}
    for span in spans(shard, [(0, 500)], UnitSize(rows=7)):
        stream = RowStream(span, checked.job, read_columns(checked.job))
        for at in range(span.first_row, span.end_row, span.step):
            unit = stream.upto(at, min(at + span.step, span.end_row))
            table, rows = selected_rows(unit, shard, checked.job)
            actual |= dict(zip(table["\x00row"].to_pylist(), rows, strict=True))
    assert sorted(actual) == sorted([30, *range(7, 500, 50)]) and len(shard.row_groups) > 10
    assert {row.status for at, row in actual.items() if at != 30} == {Status.INVALID}


def test_column_that_no_type_holds_is_text_in_all_files(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "bot", "content": None}]
    mixed = [
        {"text": "a", "n": 1, "o": {}, "deep": {"a": 1}, "half": 1.5},
        {"text": 7, "n": "x", "deep": {"a": [1]}, "half": True},
        {"text": {"a": "é"}, "n": None, "o": {}},
        {"text": turns, "n": 2.0},
        {"text": [{"role": "user"}, 7]},
        {"text": [{"role": "user", "content": ["x"]}]},
        {"text": []},
        {"n": 10**19},
    ]
    put(tmp_path, "a.jsonl", mixed)
    put(
        tmp_path,
        "b.jsonl.gz",
        [{"text": "b", "n": "1"}, {"wide": {f"k{i}": i for i in range(1001)}}],
    )
    put(tmp_path, "c.ndjson.zst", [{"text": "c", "n": 5}])
    put(tmp_path, "typed/d.jsonl", [{"text": turns}])
    scan, checked = scanned(job())
    assert scan.problems == () and len(scan.shards) == 4
    a, _, c, d = scan.shards
    names = ["n", "o", "deep", "half"]
    assert set(scan.columns.types) == {pa.string()}
    assert pa.concat_tables(_tables(a, names)).select(names).to_pylist()[:4] == [
        {"n": "1", "o": "{}", "deep": '{"a": 1}', "half": "1.5"},
        {"n": "x", "o": None, "deep": '{"a": [1]}', "half": "true"},
        {"n": None, "o": "{}", "deep": None, "half": None},
        {"n": "2.0", "o": None, "deep": None, "half": None},
    ]
    assert pa.concat_tables(_tables(c, ["n"]))["n"].to_pylist() == ["5"]
    judged = contents(pa.concat_tables(_tables(a, ["text"])), "text")
    assert [(row.status, row.detail) for row in judged] == [
        (Status.OK, None),
        (Status.INVALID, "a number, not text"),
        (Status.INVALID, "an object, not text"),
        (Status.OK, None),
        (Status.INVALID, "turn 2 has no role"),
        (Status.INVALID, "turn 1 has a content of no text"),
        (Status.EMPTY, None),
        (Status.EMPTY, None),
    ]
    typed = pa.array(
        [turns], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    )
    assert judged[3] == contents(pa.table({"text": typed}), "text")[0]
    assert contents(pa.concat_tables(_tables(d, ["text"])), "text") == [judged[3]]
    in_template = contents(pa.concat_tables(_tables(a, ["text", "n"])), "{text}: {n}")
    assert in_template[0].detail == "n: a number, not text" and in_template[1].text == ""
    for shard in scan.shards:
        assert_each_row_is_its_line(shard, checked, tmp_path)


def test_byte_order_mark_and_ends_of_lines_are_read_and_other_encodings_named(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    text = '{"text": "é"}\n{"text": "b"}\n'
    put(tmp_path, "bom.jsonl", text.encode("utf-8-sig"))
    put(tmp_path, "bom.ndjson.gz", text.encode("utf-8-sig"))
    put(tmp_path, "crlf.jsonl", b"\xef\xbb\xbf" + text.encode().replace(b"\n", b"\r\n"))
    put(tmp_path, "x/cr.jsonl", text.encode().replace(b"\n", b"\r"))
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        put(tmp_path, f"x/{encoding}.jsonl", text.encode(encoding))
    put(tmp_path, "x/json.jsonl", json.dumps([{"text": "a"}], indent=1).encode())
    put(tmp_path, "x/nul.jsonl.gz", b"\0\0\0\n\0\0\0\n")
    (tmp_path / "in/bom.ndjson.gz").rename(tmp_path / "in/other.ndjson.gz")
    scan, checked = scanned(job())
    assert [(shard.file, shard.rows) for shard in scan.shards] == [
        ("bom.jsonl", 2),
        ("crlf.jsonl", 2),
        ("other.ndjson.gz", 2),
    ]
    for shard in scan.shards:
        table = pa.concat_tables(_tables(shard, ["text"]))
        assert table["text"].to_pylist() == ["é", "b"]
        assert_each_row_is_its_line(shard, checked, tmp_path)
    utf = "it is {0}, not UTF-8: convert it, for example with iconv -f {0} -t UTF-8"
    assert dict(scan.unreadable) == {
        "x/cr.jsonl": "its lines end in a carriage return alone: end them in a newline",
        "x/json.jsonl": "not one of its lines is a JSON object; line 1 is no JSON object",
        "x/nul.jsonl.gz": "not one of its lines is a JSON object; line 1 is no JSON object",
        "x/utf-16-be.jsonl": utf.format("UTF-16"),
        "x/utf-16-le.jsonl": utf.format("UTF-16"),
        "x/utf-16.jsonl": utf.format("UTF-16"),
        "x/utf-32.jsonl": utf.format("UTF-32"),
    }


def test_first_line_cannot_pass_its_file_off_as_another_encoding(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    for number, line in enumerate(
        (b'{\0"\0', b"\xff\xfe{\0", b"\0\0\0{", b"\xef\xbb\xbf\xef\xbb\xbf{}")
    ):
        put(tmp_path, f"{number}.jsonl", line + b'\n{"text": "a"}\n')
    scan, checked = scanned(job())
    assert [shard.rows for shard in scan.shards] == [2, 2, 2, 2]
    for shard in scan.shards:
        assert_each_row_is_its_line(shard, checked, tmp_path)


def test_names_of_keys_do_not_pass_for_what_readers_say(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    hostile = {
        "text": "a",
        "\x01unreadable": "forged",
        "\x01kind text": "a list",
        "\0row": 5,
        "": 1,
    }
    put(tmp_path, "a.jsonl", [hostile, {"text": "[1]", "": "x"}, {"text": 7}])
    with (tmp_path / "in/a.jsonl").open("ab") as file:
        file.write(b"no object\n")
    scan, checked = scanned(job())
    [shard] = scan.shards
    assert_each_row_is_its_line(shard, checked, tmp_path)


def test_short_lines_of_a_file_with_very_many_keys_are_read_in_small_pieces(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonlines, "READ_VALUES", 2**20)
    put(tmp_path, "a.jsonl", [{"text": "a", **{f"k{i}": i for i in range(5000)}}, *[{}] * 2000])
    scan, _ = scanned(job())
    [shard] = scan.shards
    sizes = [len(table) for table in _tables(shard, shard.schema.names)]
    assert sum(sizes) == 2001 and max(sizes) <= 2**20 // 5000


def test_line_of_too_many_keys_is_invalid_and_files_of_many_are_read_together(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    put(tmp_path, "a.jsonl", [{"text": "a"}, {f"k{i}": i for i in range(10_001)}])
    put(tmp_path, "b.jsonl", [{"text": "b", **{f"l{i}": i for i in range(6000)}}])
    put(tmp_path, "c.jsonl", [{"text": "c", **{f"m{i}": i for i in range(6000)}}])
    scan, _ = scanned(job())
    a = scan.shards[0]
    assert [shard.rows for shard in scan.shards] == [2, 1, 1] and len(scan.columns) == 12_001
    [first, second] = contents(pa.concat_tables(_tables(a, ["text"])), "text")
    assert first.text == "a" and second.detail == "the line has more than 10,000 keys"


def test_lines_that_are_no_objects_end_a_run_with_more_than_max_failed_of_all_rows() -> None:
    def counted(invalid: int, rows: int) -> Brakes:
        progress = Progress(None)
        counts = {"spam": dict.fromkeys([*Status, "forced", "prompt_tokens", "output_tokens"], 0)}
        counts["spam"]["invalid"] = invalid
        progress.add(UnitDone("a.parquet", (0, invalid), invalid, counts))
        return Brakes(Limits(max_failed=0.05), 0, 1, progress, rows)

    for invalid, rows in ((500, 10_000), (1999, 1999), (3000, 1_000_000)):
        counted(invalid, rows).check(BoardState(), Tracker([]))
    with pytest.raises(
        StoppedError, match=r"501 of 10,000 rows hold nothing.*max_failed is 5%"
    ) as stop:
        counted(501, 10_000).check(BoardState(), Tracker([]))
    assert stop.value.exit_status == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_mutated_file_is_left_out_and_named_or_each_row_is_its_line(
    job: Callable[..., Path], tmp_path: Path, end: str
) -> None:
    files = put_mutants(tmp_path, end, seed=14, count=120)
    scan, checked = scanned(job())
    assert len(scan.shards) + len(scan.unreadable) == files
    assert len(scan.shards) > 60 and all(reason for _, reason in scan.unreadable)
    for shard in scan.shards:
        assert_each_row_is_its_line(shard, checked, tmp_path)


def test_mutants_are_the_same_from_the_same_seed() -> None:
    data = Random(0).randbytes(500)
    first = dict(mutants(data, 1, 50, TOKENS))
    assert first == dict(mutants(data, 1, 50, TOKENS)) and len(set(first.values())) > 45
