"""JSON lines beside Parquet: the same rows give the same labels, lines come out as they went in,
and what is no JSON is named.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from support.corpora import get, put
from support.outputs import plain
from support.project import ROOT

from moderay.config.job import UnitSize
from moderay.config.policy import load_policy
from moderay.core.errors import Problems, TryAgainError, UserError
from moderay.core.storage import FileState, filesystem, version
from moderay.core.verdicts import Status, Verdict, label_fields, verdict_array
from moderay.corpus.columns import read_columns
from moderay.corpus.formats import format_of, is_input, jsonlines, label_file, suffix
from moderay.corpus.formats import lines as lines_
from moderay.corpus.formats.jsonlines import spliced
from moderay.corpus.shard import Shard
from moderay.labels.decisions import decide, flagged
from moderay.labels.layout import Layout
from moderay.labels.lease import Lease
from moderay.labels.records import ShardMarker, WrittenFile
from moderay.labels.shard_writer import ShardFailedError
from moderay.pipeline.check import check
from moderay.pipeline.stages.prepare import POSITION
from moderay.pipeline.stages.spans import RowStream, spans
from moderay.tasks.calibrate.truth import from_people
from moderay.tasks.filter.records import FATES, Fate
from moderay.tasks.filter.shard import FilterRule, Sifting, sift

SPAM = load_policy(ROOT / "policies/spam")
KEEP = "NOT spam.violates"
ENDS = ("jsonl", "jsonl.gz", "ndjson.zst")


def rows(shard: Shard, *names: str) -> list[dict[str, Any]]:
    actual: list[dict[str, Any]] = pa.concat_tables(
        format_of(shard.url).tables(*filesystem(shard.url), names, shard.schema)
    ).to_pylist()
    return actual


def problems(file: Path) -> str:
    with pytest.raises(Problems) as caught:
        check(file)
    return str(caught.value) + "\n"


def test_name_decides_by_its_end_and_label_files_are_parquet() -> None:
    names = ["a.parquet", "b/c.jsonl", "c.NDJSON.gz", "d.jsonl.zst", "e.txt", "f.json", "part-0"]
    assert [is_input(name) for name in names] == [True, True, True, True, False, False, False]
    assert [label_file(name) for name in names] == [
        "a.parquet",
        "b/c.parquet",
        "c.parquet",
        "d.parquet",
        "e.parquet",
        "f.json",
        "part-0",
    ]
    assert is_input("e.txt", text=True) and not is_input("f.json", text=True)
    assert suffix("s3://x/y.jsonl.GZ") == ".jsonl.gz" and format_of("s3://x/part-0") is format_of(
        "a.parquet"
    )


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUE = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
ROWS = st.lists(
    st.fixed_dictionaries(
        {"text": st.one_of(st.none(), TEXT)},
        optional={
            "n": VALUE,
            "o": st.fixed_dictionaries({}, optional={"a": TEXT, "l": st.lists(TEXT)}),
        },
    ),
    min_size=1,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.sampled_from(ENDS), st.integers(1, 300), st.booleans(), st.data())
@example([{"text": "2020-01-01T00:00:00Z"}, {"text": "x"}], "jsonl", 1, True, None)
def test_rows_of_any_lines_are_read_from_any_group_and_in_any_piece(
    tmp_path_factory, given_rows, end: str, size: int, newline: bool, data: Any
) -> None:  # type: ignore[no-untyped-def]
    """Blank lines are no rows, the last newline may be missing, and where pieces and row groups end
    does not matter.
    """
    folder = tmp_path_factory.mktemp("any")
    between = [
        data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \t\n"])) if data else b"\n"
        for _ in given_rows
    ]
    text = b"".join(
        json.dumps(row, ensure_ascii=size % 2 == 0).encode() + gap
        for row, gap in zip(given_rows, between, strict=True)
    )
    file = put(folder, f"a.{end}", text if newline else text.rstrip())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LOOK_BYTES", "LOOK_ROWS", "READ_BYTES", "GROUP_BYTES"):
            patch.setattr(jsonlines, name, size)
        form, location = format_of(file.name), filesystem(str(file))
        footer = form.footer(*location, FileState(file.stat().st_size, ""), ["text"])
        [schema] = form.common([footer.schema])
        tables = [
            list(
                form.tables(
                    *location, schema.names, form.explicit_schema(schema), rows=3, groups=(g, g + 1)
                )
            )
            for g in range(len(footer.row_groups))
        ]
        assert [sum(map(len, actual)) for actual in tables] == list(footer.row_groups)
        actual = pa.concat_tables([table for group in tables for table in group])
        with form.verbatim(*location) as verbatim:
            lines = [line for _, table in verbatim.batches() for line in table["line"].to_pylist()]
    assert len(actual) == len(given_rows) == len(lines)
    assert [json.loads(line) for line in lines] == given_rows
    for row, line in zip(actual.to_pylist(), given_rows, strict=True):
        assert row["text"] == line["text"] and row.get("n") == line.get("n")
        if line.get("o") and "o" in row:
            assert {key: value for key, value in row["o"].items() if value is not None} == line["o"]


def test_columns_of_many_files_have_one_type(job: Callable[..., Path], tmp_path: Path) -> None:
    put(
        tmp_path,
        "a.jsonl",
        [{"text": None, "n": 1, "o": {"a": 1}}, {"text": None, "when": "2020-01-01T00:00:00Z"}],
    )
    put(
        tmp_path,
        "b.jsonl.gz",
        [{"n": 2.5, "text": "x", "l": []}, {"o": {"b": [None]}}, {"l": [1]}, {"l": [0.5]}],
    )
    put(tmp_path, "c.ndjson.zst", [])
    put(tmp_path, "d.jsonl", b'{"n": 99999999999999999999}\n{"n": null, "x": true}')
    actual = check(job()).scan
    types = {
        "text": pa.string(),
        "n": pa.float64(),
        "when": pa.string(),
        "l": pa.list_(pa.float64()),
        "x": pa.bool_(),
    }
    types["o"] = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.null()))])
    assert dict(zip(actual.columns.names, actual.columns.types, strict=True)) == types
    assert [shard.rows for shard in actual.shards] == [2, 4, 0, 2] and {
        shard.schema for shard in actual.shards
    } == {actual.columns}
    assert rows(actual.shards[0], "n", "when", "x") == [
        {"n": 1.0, "when": None, "x": None},
        {"n": None, "when": "2020-01-01T00:00:00Z", "x": None},
    ]
    assert rows(actual.shards[1], "o")[:2] == [{"o": None}, {"o": {"a": None, "b": [None]}}]
    assert rows(actual.shards[3], "n") == [{"n": 1e20}, {"n": None}]


def test_columns_without_one_type_are_text_and_a_problem_where_numbers_are_compared(
    job: Callable[..., Path], tmp_path: Path, golden
) -> None:  # type: ignore[no-untyped-def]
    put(
        tmp_path,
        "a.jsonl",
        [
            {"text": "a", "n": 1, "odd": 1, "empty": {}, "time": "2020-01-01"},
            {"odd": "x", "deep": {"a": 1}},
            {"deep": {"a": [1]}},
        ],
    )
    put(tmp_path, "b.jsonl", [{"text": "b", "n": "1"}, {"text": 7, "time": "never"}])
    wide = {f"k{i}": i for i in range(1001)}
    put(tmp_path, "c.jsonl", [{"text": "c", "time": "soon", "wide": wide}])
    compared = problems(job(input={"path": "in", "content": "text", "where": "odd = 1 AND n > 0"}))
    golden("input-json-types", plain(compared, tmp_path))
    where = {"path": "in", "content": "text", "where": "odd = '1' OR CAST(n AS BIGINT) > 0"}
    assert check(job(input=where)).scan.rows == 6
    assert set(check(job()).scan.columns.types) == {pa.string()}


def test_torn_streams_are_named_and_the_rest_is_read(
    job: Callable[..., Path], tmp_path: Path, golden
) -> None:  # type: ignore[no-untyped-def]
    good = [{"text": f"row {i}", "n": [i]} for i in range(5000)]
    whole = put(tmp_path, "good.jsonl", good).read_bytes()
    for end, codec in (("gz", "gzip"), ("zst", "zstd")):
        data = (
            put(tmp_path, f"good.jsonl.{end}", good)
            .rename(tmp_path / f"in/whole.jsonl.{end}")
            .read_bytes()
        )
        for name, torn in {
            "torn": data[: len(data) // 2],
            "end": data[:-1],
            "none": b"",
            "plain": whole,
            "behind": data + b"garbage",
        }.items():
            (tmp_path / f"in/{name}-{codec}.jsonl.{end}").write_bytes(torn)
        (tmp_path / f"in/whole.jsonl.{end}").rename(tmp_path / f"in/sound-{end}.jsonl.{end}")
    put(
        tmp_path,
        "strings.jsonl",
        [{"text": "[" * 5000 + '"\\' + "{" * 5000, "n": [1]}, {"n": [["x"]]}],
    )
    actual = check(job(output={"path": "out", "columns": ["text"]})).scan
    assert [shard.file for shard in actual.shards] == [
        "good.jsonl",
        "sound-gz.jsonl.gz",
        "sound-zst.jsonl.zst",
        "strings.jsonl",
    ]
    golden("json-unreadable", "".join(f"{name}: {reason}\n" for name, reason in actual.unreadable))


def test_store_that_fails_is_no_unreadable_file(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jsonl.gz", [{"text": "a"}])

    def lost(*_: int) -> bytes:
        raise ConnectionResetError("lost")

    monkeypatch.setattr("os.pread", lost)
    with pytest.raises(TryAgainError, match=r"a\.jsonl\.gz: the storage does not answer \(lost\)"):
        check(job())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file_and_a_long_line_is_read(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = b"".join(b'{"text": "%s", "n": %d}\n' % (b"x" * 1000, i) for i in range(1000))
    put(tmp_path, "a.jsonl.zst", block * 300)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    [shard] = check(job()).scan.shards
    most = 0
    length = 0
    for table in format_of(shard.url).tables(
        *filesystem(shard.url), ["text"], shard.schema, rows=100
    ):
        length, most = length + len(table), max(most, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shard.rows == length == 300_000 and peak < 100 * 2**20 and most < 50 * 2**20
    put(
        tmp_path,
        "a.jsonl.zst",
        b'{"text": "a"}\n{"text": "' + b"y" * 100 * 2**20 + b'"}\n{"text": "c"}',
    )
    [shard] = check(job()).scan.shards
    assert [len(row["text"]) for row in rows(shard, "text")] == [1, 100 * 2**20, 1]
    monkeypatch.setattr(lines_, "LINE_BYTES", 10 * 2**20)
    put(tmp_path, "b.jsonl", [{"text": "b"}])
    assert [reason for _, reason in check(job()).scan.unreadable] == [
        "line 2 is longer than 10,485,760 bytes"
    ]


def test_units_of_a_large_plain_file_are_read_from_its_middle(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonlines, "GROUP_BYTES", 1000)
    monkeypatch.setattr("moderay.pipeline.stages.spans.SPAN_BYTES", 1)
    put(tmp_path, "day=2/a.jsonl", [{"text": f"{i}" * (i % 60)} for i in range(500)])
    checked = check(job(input={"path": "in", "content": "text", "where": "day = '2'"}))
    [shard] = checked.scan.shards
    cut = spans(shard, [(3, 260), (300, 500)], UnitSize(rows=7))
    assert len(shard.row_groups) > 20 and len(cut) > 10
    actual = {}
    for span in cut:
        stream = RowStream(span, checked.job, read_columns(checked.job))
        for start, end in span.missing:
            for at in range(start, end, span.step):
                unit = stream.upto(at, min(at + span.step, end)).to_pylist()
                actual |= {row[POSITION]: (row["text"], row["day"]) for row in unit}
    assert actual == {i: (f"{i}" * (i % 60), "2") for i in [*range(3, 260), *range(300, 500)]}


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        (b"{}\n", b'{"m":1}\n'),
        (b'{"a":1}\r\n', b'{"a":1,"m":1}\r\n'),
        (b" { } \n", b' { "m":1} \n'),
        (b'{"a":{}}\n', b'{"a":{},"m":1}\n'),
        (b'{"a":"}" }\n', b'{"a":"}" ,"m":1}\n'),
    ],
)
def test_keys_are_added_behind_the_others(line: bytes, whole: bytes) -> None:
    assert spliced(line, b'{"m":1}') == whole and json.loads(whole)["m"] == 1


VERDICTS = {
    "kept": Verdict(Status.OK, [0.75, 0.0, 0.25]),
    "removed": Verdict(Status.OK, [0.1, 0.0, 0.9]),
    "held": Verdict(Status.INVALID),
}


def sifted(
    folder: Path,
    file: Path,
    fates: Sequence[str],
    unselected: Fate | None = None,
    verdicts: bool = False,
) -> dict[str, Path]:
    """Filter a file whose rows have these fates (or `unselected`, without a label row)."""
    name, rows = (
        label_file(file.name),
        [row for row, fate in enumerate(fates) if fate != "unselected"],
    )
    decisions = decide(verdict_array([VERDICTS[fates[row]] for row in rows], 0), SPAM.rule)
    columns = [
        pa.array(rows, pa.int64()),
        pa.nulls(len(rows), pa.string()),
        flagged([decisions]),
        decisions,
    ]
    (folder / "labels").mkdir(exist_ok=True)
    pq.write_table(
        pa.Table.from_arrays(columns, schema=pa.schema(label_fields([SPAM.rule]))),
        folder / "labels" / name,
    )
    fs, path = filesystem(str(file))
    info = fs.info(path)
    marker = ShardMarker(
        shard=name,
        source=path,
        identity=(name, info["size"], version(info)),
        rows=len(rows),
        label_file=WrittenFile(size=0, version="", digest=""),
        input_rows=len(fates),
        flagged=0,
        policies={},
        judges={},
        thresholds={"spam": 0.5},
        run=0,
    )
    out = Layout(str(folder / "clean"))
    with Lease(out) as lease:
        sift(
            Sifting(
                FilterRule(KEEP, (SPAM.rule,), unselected, verdicts),
                Layout(str(folder / "labels")),
                out,
                marker,
                "0" * 16,
                "1" * 16,
                (),
                lease.run,
                {},
            )
        )
    return {fate: folder / "clean" / fate / file.name for fate in FATES}


NO_OBJECTS = ['{"a": "\\ud800", "moderay": 1}', '{"a": 1, "a": 2}', "[1] ", '{"a": ']
LINES = [
    *NO_OBJECTS,
    "{}",
    '{ "a": 1 } ',
    '{"a":"é\\u00e9 [}","b":{"x":[]}}',
    '\t{"a": 1.50, "b": 2}',
    '{"n": 123456789012345678901}',
]
FATED = st.lists(
    st.tuples(st.sampled_from([*FATES, "unselected"]), st.sampled_from(LINES)), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(
    FATED,
    st.sampled_from(ENDS),
    st.sampled_from(FATES),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_filtered_lines_are_what_they_were_and_those_that_are_no_objects_stay_so(
    tmp_path_factory, rows, end: str, unselected: Fate, verdicts: bool, gap: str, newline: bool
) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("sift")
    rows = [
        ("held" if line in NO_OBJECTS and fate != "unselected" else fate, line)
        for fate, line in rows
    ]
    text = "".join(line + gap for _, line in rows).encode()
    file = put(folder, f"a.{end}", text if newline else text.rstrip(b"\r\n"))
    parts = sifted(folder, file, [fate for fate, _ in rows], unselected, verdicts)
    for fate in FATES:
        mine = [
            row for row in rows if row[0] in (fate, "unselected" if fate == unselected else fate)
        ]
        assert parts[fate].exists() == (bool(mine) or fate == "kept")
        actual = (
            [line for line in get(parts[fate]).decode().split("\n") if line]
            if parts[fate].exists()
            else []
        )
        if fate == "kept" and not verdicts:
            assert [line.rstrip("\r") for line in actual] == [line for _, line in mine]
            continue
        for line, (label, before) in zip(actual, mine, strict=True):
            if before in NO_OBJECTS:
                assert line.rstrip("\r") == before
                continue
            messages = json.loads(line)
            added = {
                name: messages.pop(name)
                for name in (("flagged", "spam") if fate == "kept" else ("moderay",))
            }
            assert messages == json.loads(before) and line.startswith(before.rstrip()[:-1])
            if label == "unselected":
                assert (
                    added == {"flagged": None, "spam": None}
                    if fate == "kept"
                    else added["moderay"]["reasons"] == []
                )
            elif fate == "kept":
                assert added["flagged"] is False and added["spam"]["probability"] == 0.25
            else:
                [reason] = added["moderay"]["reasons"]
                assert reason["policy"] == "spam" and reason["probability"] == (
                    0.9 if label == "removed" else None
                )


def test_key_of_the_name_of_an_added_one_is_refused(tmp_path: Path) -> None:
    file = put(
        tmp_path, "a.jsonl", [{"text": 'no "moderay": 1', "o": {"moderay": 1}}, {"text": "a"}]
    )
    assert sifted(tmp_path, file, ["removed", "kept"])["removed"].exists()
    for line in (b'{"moderay": 1}', b'{"m\\u006Fderay": 1}'):
        file = put(tmp_path, "a.jsonl", b'{"text": "a"}\n' + line)
        with pytest.raises(ShardFailedError, match="an object has a key 'moderay'"):
            sifted(tmp_path, file, ["kept", "removed"])


def test_truths_of_people_are_read_from_lines(job: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"text": f"row {i}", **({} if i % 4 == 3 else {"gold": i % 2})} for i in range(100)]
    put(tmp_path, "day=1/a.jsonl.gz", rows[:60])
    put(tmp_path, "b.jsonl", [*rows[60:], {"text": "no gold"}])
    checked = check(job())
    actual = from_people(checked, SPAM, "gold", 1000)
    known = [*rows[60:], *rows[:60]]
    assert actual.texts.to_pylist() == [row["text"] for row in known if "gold" in row]
    assert actual.violates.tolist() == [row["gold"] == 1 for row in known if "gold" in row]
    with pytest.raises(UserError, match=r"b\.jsonl has no such column; it has text, gold"):
        from_people(checked, SPAM, "golf", 1000)
