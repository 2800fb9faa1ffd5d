"""One corpus in every format."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather
from support.corpora import get, put
from support.outputs import compared, labels, manifest_of, verdicts_of
from support.scripted import SCRIPT

from moderay.corpus.formats import Footer, jsonlines
from moderay.pipeline.check import check

KEEP = "NOT spam.violates"


def test_same_rows_in_every_form_get_the_same_labels_and_are_filtered_in_their_form(
    job, cli, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    words = ["hello there", "claim your prize", "visit my shop", None, "  "]
    given_rows = [
        {
            "id": f"{i}",
            "text": w if not (w := words[i % 5]) or w == "  " else f"{w} {i}",
            "n": i,
            "tags": ["é"] * (i % 3),
        }
        for i in range(40)
    ]
    names = ["p.parquet", "day=1/a.jsonl", "day=1/b.jsonl.gz", "c.ndjson.zst"]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(given_rows), tmp_path / "in/p.parquet")
    for name in names[1:]:
        put(tmp_path, name, given_rows)
    feather.write_feather(pa.Table.from_pylist(given_rows), tmp_path / "in/q.feather")
    put(tmp_path, "torn.jsonl", b'{"text": \n')
    file = job(filter={"keep": KEEP, "out": "clean"})
    result = cli("filter", file)
    assert result.returncode == 1 and "line 1 is no JSON object" in result.stderr, (
        result.stdout + result.stderr
    )
    assert list(manifest_of(tmp_path / "out")["unreadable"]) == ["torn.jsonl"]
    actual = labels(tmp_path / "out")
    assert sorted(actual) == [
        *("c.parquet", "day=1/a.parquet", "day=1/b.parquet", "p.parquet", "q.parquet"),
    ]
    for table in actual.values():
        assert table.schema == actual["p.parquet"].schema and table["row"].to_pylist() == list(
            range(40)
        )
        assert table.select(["id", "text", "n", "tags"]).to_pylist() == given_rows
        assert (
            compared(table, "spam") == compared(actual["p.parquet"], "spam")
            and table["content_hash"] == actual["p.parquet"]["content_hash"]
        )
    removed = pq.read_table(tmp_path / "clean/removed/p.parquet").to_pylist()
    assert len(removed) == 16
    assert feather.read_table(tmp_path / "clean/removed/q.feather").to_pylist() == removed
    assert feather.read_table(tmp_path / "clean/kept/q.feather").to_pylist() == given_rows[::5]
    for name in names[1:]:
        lines = get(tmp_path / "in" / name).splitlines(keepends=True)
        assert get(tmp_path / "clean/kept" / name) == b"".join(
            line for i, line in enumerate(lines) if i % 5 == 0
        )
        messages = [
            json.loads(line) for line in get(tmp_path / "clean/removed" / name).splitlines()
        ]
        assert [{**row, "moderay": None} for row in messages] == [
            {**row, "moderay": None} for row in removed
        ]
        assert [row["moderay"]["reasons"][0]["label"] for row in messages] == [
            row["moderay"]["reasons"][0]["label"] for row in removed
        ]
        held = [json.loads(line) for line in get(tmp_path / "clean/held" / name).splitlines()]
        assert [row["id"] for row in held] == [str(i) for i in range(40) if i % 5 > 2]
    counts = json.loads((tmp_path / "clean/filter.json").read_text())
    assert counts["rows"] == {"input": 200, "kept": 40, "removed": 80, "held": 80, "unselected": 0}
    card = (tmp_path / "clean/README.md").read_text()
    assert all(
        f"path: kept/**/*{end}\n" in card
        for end in (".parquet", ".feather", ".jsonl", ".jsonl.gz", ".ndjson.zst")
    )
    result = cli("run", file)
    assert result.returncode == 1 and "nothing to do: 5 shards with 200 rows" in result.stdout, (
        result.stdout + result.stderr
    )
    read = []
    monkeypatch.setattr(
        jsonlines.JsonLines,
        "footer",
        lambda self, fs, path, *_: (
            read.append(path)
            or Footer(pa.schema([("text", pa.string()), ("id", pa.string())]), (9,), 9)
        ),
    )
    assert check(file).scan.rows == 209 and read == [
        str(tmp_path / "in/torn.jsonl")
    ]  # the others are known
    os.utime(tmp_path / "in/c.ndjson.zst", (1, 1))
    assert check(file).scan.rows == 178 and read[1:] == [str(tmp_path / "in/c.ndjson.zst"), read[0]]
    assert check(file, ["input.content=id"]).scan.rows == 80 + 4 * 9  # other columns' bytes


HOSTILE = {
    3: b'{"text": "claim your prize \\ud800", "n": 3}',
    4: b'{"text": "hello", "text": "claim your prize", "n": 4}',
    9: b'{"text": "hello", "n": 1e999}',
    10: b'{"text": "claim your prize", "n": 10',
    17: b'["visit my shop"]',
    25: b'{"text": "caf\xe9", "n": 25}\r',
    39: b"\0\0",
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz", "ndjson.zst"])
def test_hostile_lines_cost_their_rows_and_not_their_file(
    job, cli, tmp_path: Path, end: str
) -> None:  # type: ignore[no-untyped-def]
    words = ["hello there", "claim your prize", "visit my shop"]
    text = [
        HOSTILE.get(i) or json.dumps({"text": f"{words[i % 3]} {i}", "n": i}).encode()
        for i in range(40)
    ]
    text[6] = b'{"text": {"$ne": "prize"}, "n": 6}'
    put(tmp_path, f"a.{end}", b"\n".join(text) + b"\n")
    result = cli("filter", job(filter={"keep": KEEP, "out": "clean"}))
    assert result.returncode == 0, result.stdout + result.stderr
    table = labels(tmp_path / "out")["a.parquet"]
    assert table["row"].to_pylist() == list(range(40))
    for row, verdict in enumerate(verdicts_of(table, "spam")):
        if row in HOSTILE or row == 6:
            assert (verdict["status"], verdict["violates"]) == ("invalid", None)
            assert verdict["detail"].startswith("the line " if row in HOSTILE else "an object")
        else:
            assert verdict["label"] == ["SP0", "SP4", "SP2"][row % 3]
        n = None if row in HOSTILE else row
        assert table["n"][row].as_py() == n
        assert (table["text"][row].as_py() is None) == (row in HOSTILE)
    held = get(tmp_path / f"clean/held/a.{end}").split(b"\n")[:-1]
    of_objects = [line for line in held if line not in HOSTILE.values()]
    assert [line for line in held if line in HOSTILE.values()] == list(HOSTILE.values())
    assert [json.loads(line)["moderay"]["row"] for line in of_objects] == [6]
    kept = get(tmp_path / f"clean/kept/a.{end}").split(b"\n")[:-1]
    assert kept == [line for i, line in enumerate(text) if i % 3 == 0 and i not in {6, *HOSTILE}]


@pytest.mark.slow
def test_more_lines_that_are_no_objects_than_max_failed_end_the_run(
    job, cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    text = [b'{"text": "row %d"}' % i if i % 10 else b'{"text": "half' for i in range(5000)]
    put(tmp_path, "a.jsonl", b"\n".join(text))
    script = {"default": SCRIPT["default"], "delay": {"mean_s": 0.05}}
    result = cli("run", job(script, unit={"rows": 100}))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert (
        "of 5,000 rows hold nothing that can be judged (invalid), and limits.max_failed is 5%"
        in (result.stderr)
    )
    assert cli("run", job(script, unit={"rows": 100}, limits={"max_failed": 0.2})).returncode == 0
    table = labels(tmp_path / "out")["a.parquet"]
    statuses = table["spam"].combine_chunks().field("status").value_counts().to_pylist()
    assert {(count["values"], count["counts"]) for count in statuses} == {
        ("ok", 4500),
        ("invalid", 500),
    }


@pytest.mark.slow
def test_csv_is_labelled_and_filtered_record_by_record(job, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    records = {
        "kept": [b'1,"hello, ""you""\nand you"\r\n', b"4,hello\r\n"],
        "removed": [b"2,claim your prize\r\n"],
        "held": [b'3,"never closed\r\n', b"5,a,b\r\n", b"6,\r\n"],
    }
    header = b"id,text\r\n"
    lines = sorted((record for of_fate in records.values() for record in of_fate), key=bytes)
    put(tmp_path, "day=1/a.csv.gz", header + b"".join(lines))
    file = job(
        filter={"keep": KEEP, "out": "clean"},
        limits={"max_failed": 0.9},
    )
    assert not check(file, ["input.where=CAST(id AS INT) > 3"]).scan.problems
    result = cli("filter", file)
    assert result.returncode == 0, result.stdout + result.stderr
    [(name, table)] = labels(tmp_path / "out").items()
    assert name == "day=1/a.parquet" and table["id"].to_pylist() == ["1", "2", None, "4", None, "6"]
    verdicts = table["spam"].to_pylist()
    assert [verdict["status"] for verdict in verdicts] == [
        "ok", "ok", "invalid", "ok", "invalid", "empty"
    ]  # fmt: skip
    name = "day=1/a.csv.gz"
    assert get(tmp_path / "clean/kept" / name) == header + b"".join(records["kept"])
    removed = get(tmp_path / "clean/removed" / name)
    assert removed.startswith(b'id,text,"moderay"\r\n2,claim your prize,"{""row"":1,""reasons"":[{')
    held = get(tmp_path / "clean/held" / name).splitlines(keepends=True)
    assert held[1:3] == records["held"][:2] and held[3].startswith(b"6,,")


@pytest.mark.slow
def test_text_is_labelled_and_filtered_by_line_or_by_file(job, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    lines = [b"hello\r\n", b"claim your prize\r\n", b"\r\n", b"caf\xe9\r\n", b"a quiet day"]
    put(tmp_path, "a.txt", b"".join(lines))
    put(tmp_path, "day=1/b.txt.gz", b"visit\nmy shop\n")
    more = {"limits": {"max_failed": 0.9}}
    sections = {"input": {"path": "in", "content": "text", "text": "lines"}, **more}
    result = cli("filter", job(**sections, filter={"keep": KEEP, "out": "clean"}))
    assert result.returncode == 0, result.stdout + result.stderr
    tables = labels(tmp_path / "out")
    assert {name: len(table) for name, table in tables.items()} == {
        "a.parquet": 5,
        "day=1/b.parquet": 2,
    }
    texts = ["hello", "claim your prize", "", None, "a quiet day"]
    assert tables["a.parquet"]["text"].to_pylist() == texts
    verdicts = verdicts_of(tables["a.parquet"], "spam")
    statuses = ["ok", "ok", "empty", "invalid", "ok"]
    assert [verdict["status"] for verdict in verdicts] == statuses
    assert get(tmp_path / "clean/kept/a.txt") == lines[0] + lines[4]
    removed = get(tmp_path / "clean/removed/a.txt")
    assert removed.startswith(b'claim your prize\t{"moderay":{"row":1,') and removed[-2:] == b"\r\n"
    held = get(tmp_path / "clean/held/a.txt").split(b"\r\n")
    assert held[0].startswith(b"\t{") and held[1].startswith(b"caf\xe9\t{")

    sections["input"] = {"path": "in", "content": "text", "text": "file"}
    result = cli("run", job(**sections), "--replace")
    assert result.returncode == 0, result.stdout + result.stderr
    tables = labels(tmp_path / "out")
    assert tables["day=1/b.parquet"]["text"].to_pylist() == ["visit\nmy shop\n"]
    assert [len(table) for table in tables.values()] == [1, 1]
    result = cli("filter", job(**sections, filter={"keep": KEEP, "out": "files"}))
    assert result.returncode == 0, result.stdout + result.stderr
    name = "day=1/b.txt.gz"
    assert get(tmp_path / "files/removed" / name) == b"visit\nmy shop\n"
    assert get(tmp_path / "files/held/a.txt") == b"".join(lines)
    result = cli("filter", job(**sections, filter={"keep": KEEP, "out": "more"}), "--verdicts")
    assert result.returncode == 2 and "a row has no place for verdicts" in result.stderr
