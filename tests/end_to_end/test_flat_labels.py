"""One flat table of an output: every row and policy once, of published shards alone."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.outputs import labels
from support.project import ROOT
from support.scripted import SCRIPT

from moderay.config.policy import load_policy
from moderay.tasks import flat_labels

SPAM = load_policy(ROOT / "policies/spam")
POLICIES = ("spam", "harassment")
FIELDS = ("status", "violates", "label", "title", "probability", "rationale")
HEADER = ["file", "row", "policy", *FIELDS]
TEXTS = [
    "hello there",
    'claim "your" prize,\nnow',
    "visit my shop",
    None,
    "=1+1 broken",
    "\x1b]0;title\x07 prize",
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, cli) -> Path:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("flat")
    for number, name in enumerate(("a.parquet", "day=2/c.parquet")):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        rows = {
            "id": [f"{number}-{i}" for i in range(30)],
            "text": [TEXTS[i % len(TEXTS)] for i in range(30)],
            "raw": [b"\xff"] * 30,
            "tags": [[i, None] for i in range(30)],
        }
        pq.write_table(pa.table(rows), folder / "in" / name)
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT))
    job = {
        "name": "flat",
        "input": {"path": "in", "content": "text"},
        "output": {"path": "out"},
        "policies": [str(ROOT / "policies" / policy) for policy in POLICIES],
        "model": {"source": "scripted:script.yaml"},
        "limits": {"max_failed": 1.0},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    result = cli("run", folder / "job.yaml")
    assert result.returncode == 0, result.stderr
    return folder / "out"


def rows_of(output: Path, *columns: str) -> Iterator[dict[str, Any]]:
    """What the flat table must hold, made of label files row by row."""
    titles = {policy: load_policy(ROOT / "policies" / policy).labels for policy in POLICIES}
    for name, table in labels(output).items():
        for row in table.to_pylist():
            for policy in POLICIES:
                verdict = row[policy]
                label = verdict["label"]
                yield {
                    "file": name,
                    "row": row["row"],
                    **{column: row[column] for column in columns},
                    "policy": policy,
                    **{field: verdict.get(field) for field in FIELDS},
                    "title": titles[policy][label].title if label else None,
                }


def as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def from_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_every_row_under_every_policy(output: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("labels", output)
    assert result.returncode == 0, result.stderr
    printed = from_csv(result.stdout)
    assert result.stdout.splitlines()[0].split(",") == HEADER
    expected = list(rows_of(output))
    assert len(printed) == len(expected) == 2 * 30 * len(POLICIES)
    for row, known in zip(printed, expected, strict=True):
        probability, other = row.pop("probability"), known.pop("probability")
        assert row == {name: as_text(value) for name, value in known.items()}
        assert (float(probability) if probability else None) == pytest.approx(other)
    titles = {label.title for label in SPAM.labels.values()}
    assert titles - {"Unwanted promotion"} < {row["title"] for row in printed}


@pytest.mark.parametrize("size", [1, 7, 30])
def test_batches_of_any_size_make_the_same_table(
    size: int, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_labels, "BATCH_ROWS", size)
    tables = list(flat_labels.flat_labels(str(output), {}, ["id", "tags"]).batches())
    assert max(map(len, tables)) == size * len(POLICIES)
    assert pa.concat_tables(tables).to_pylist() == list(rows_of(output, "id", "tags"))


def test_flagged_and_where_choose_rows_and_columns_come_along(output: Path, cli) -> None:  # type: ignore[no-untyped-def]
    where = "policy = 'spam' AND probability > 0.85 AND id <> '0-1'"
    args = ("--flagged", "--where", where, "--column", "id", "--column", "text", "--column", "tags")
    result = cli("labels", output, "--json", *args)
    assert result.returncode == 0, result.stderr
    printed = [json.loads(line) for line in result.stdout.split("\n")[:-1]]
    expected = [
        row
        for row in rows_of(output, "id", "text", "tags")
        if row["policy"] == "spam" and row["label"] == "SP4" and row["id"] != "0-1"
    ]
    assert len(printed) == len(expected) == 19
    for row, known in zip(printed, expected, strict=True):
        assert row == {**known, "probability": pytest.approx(known["probability"])}


def test_texts_come_back_out_of_csv_as_they_were(output: Path, cli) -> None:  # type: ignore[no-untyped-def]
    printed = from_csv(cli("labels", output, "--column", "text").stdout)
    assert [row["text"] for row in printed] == [
        as_text(row["text"]) for row in rows_of(output, "text")
    ]


def test_parquet_is_one_file_outside_the_output(output: Path, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "flat.parquet"
    result = cli("labels", output, "--parquet", file, "--column", "tags")
    assert result.returncode == 0 and "120 rows: " in result.stderr, result.stderr
    assert pq.read_table(file).to_pylist() == list(rows_of(output, "tags"))
    assert list(tmp_path.iterdir()) == [file]
    inside = output / "day=2" / "flat.parquet"
    result = cli("labels", output, "--parquet", inside)
    assert result.returncode == 2 and "outside the output" in result.stderr
    assert not inside.exists()


def test_only_published_shards_are_read(output: Path, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    (marker,) = (copy / "_moderay/shards/day=2").iterdir()
    marker.unlink()
    shutil.copyfile(copy / "a.parquet", copy / "b.parquet")
    printed = from_csv(cli("labels", copy).stdout)
    assert len(printed) == 60 and {row["file"] for row in printed} == {"a.parquet"}
    shutil.rmtree(copy / "_moderay/shards")
    result = cli("labels", copy)
    assert result.returncode == 2 and "no shard of it is labelled yet" in result.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--where", "probabilty > 0.5"), "did you mean 'probability'?"),
        (("--where", "row IN (SELECT a FROM read_csv('x'))"), "a query is not allowed"),
        (("--where", "rationale"), "--where gives String"),
        (("--where", "row > 'a'"), "--where: "),
        (("--where", "reasoning = 'x'"), "no column 'reasoning'"),
        (("--column", "idd"), "did you mean 'id'?"),
        (("--column", "spam"), "the labels carry no such column"),
        (("--column", "tags"), "which CSV cannot hold"),
        (("--column", "raw"), "which CSV cannot hold"),
        (("--column", "raw", "--json"), "bytes go --parquet alone"),
        (("--csv", "--json"), "choose one"),
    ],
)
def test_what_cannot_be_printed_is_refused_in_a_sentence(
    args: tuple[str, ...], words: str, output: Path, cli: Callable[..., Any]
) -> None:
    result = cli("labels", output, *args)
    assert result.returncode == 2 and words in result.stderr, result.stderr
    assert not result.stdout and len(result.stderr.splitlines()) == 1


def test_a_folder_without_labels_is_refused(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("labels", tmp_path)
    assert result.returncode == 2 and "holds no labels of moderay" in result.stderr
