"""Odd names, links and odd files through a run, a filter and back."""

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels

from moderay.corpus.views import plain_type

ODD = [
    "new\nline.parquet",
    "a.parquet::x.parquet",
    "a..%2fx.parquet",
    "x#y?z*.parquet",
    "\udcff.parquet",
    f"{'n' * 200}.parquet",
    f"{'j' * 200}.jsonl",
]


def put(file: Path, texts: list[str]) -> None:
    """Rows of a text each, in Parquet or lines, under any name."""
    with file.open("wb") as opened:
        if file.suffix == ".jsonl":
            opened.write(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
        else:
            pq.write_table(pa.table({"text": texts}), opened)


@pytest.mark.slow
def test_odd_names_are_labelled_once_and_filtered_as_themselves(job, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate([*ODD, "x.parquet", "a.parquet"]):
        put(folder / name, [f"prize {number}", f"hello {number}"])
    result = cli("run", job())
    assert result.returncode == 0, result.stderr
    texts = [table.column("text").to_pylist() for table in labels(tmp_path / "out").values()]
    assert sorted(text for both in texts for text in both) == sorted(
        f"{word} {number}" for number in range(9) for word in ("prize", "hello")
    )
    assert "nothing to do" in cli("run", job()).stdout
    for labelled in (("--labels", tmp_path / "out"), (job(),)):
        clean = tmp_path / f"clean{len(labelled)}"
        result = cli("filter", *labelled, "--keep", "NOT spam.violates", "--out", clean)
        assert result.returncode == 0, result.stderr
        kept = []
        for file in (clean / "kept").rglob("*"):
            read = pl.read_ndjson if file.suffix == ".jsonl" else pl.read_parquet
            kept += read(file.read_bytes())["text"].to_list()
        assert sorted(kept) == [f"hello {number}" for number in range(9)]


def test_hub_cache_is_labelled_and_odd_files_are_named_with_status_1(
    job, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    blobs = tmp_path / "hub/blobs"
    snapshot = tmp_path / "hub/snapshots/main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number in range(4):
        put(blobs / f"{number}.parquet", [f"prize {number}", "hello"])
        (blobs / f"{number}.parquet").rename(blobs / str(number))
        (snapshot / f"{number}.parquet").symlink_to(f"../../blobs/{number}")
    sections = {"input": {"path": "hub/snapshots/main", "content": "text"}}
    result = cli("run", job(**sections))
    assert result.returncode == 0 and len(labels(tmp_path / "out")) == 4, result.stderr
    pq.write_table(pa.table({"text": [1]}), snapshot / "0-odd.parquet")
    (snapshot / "4.parquet").symlink_to("../../blobs/4")
    for _ in range(2):
        result = cli("run", job(**sections), "--prune")
        assert result.returncode == 1
        assert "0-odd.parquet is left out: column 'text' is int64" in result.stderr
        assert "4.parquet is left out: a link to ../../blobs/4" in result.stderr
        assert len(labels(tmp_path / "out")) == 4
    # A disk that is away for a night takes no labels with it.
    (blobs / "1").rename(tmp_path / "away")
    result = cli("run", job(**sections), "--prune")
    assert result.returncode == 1 and len(labels(tmp_path / "out")) == 4


def test_columns_of_every_type_that_parquet_holds_are_carried_as_they_are(
    job, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    values = {
        "string_view": pa.array(["a", None], pa.string_view()),
        "binary_view": pa.array([b"a", None], pa.binary_view()),
        "views": pa.array([["a"], None], pa.list_(pa.string_view())),
        "view in struct": pa.array([{"a": "x"}, None], pa.struct([("a", pa.string_view())])),
        "list_view": pa.array([[1], None], pa.list_view(pa.int8())),
        "large": pa.array([["a"], None], pa.large_list(pa.large_string())),
        "decimal256": pa.array([Decimal("1" * 60), None], pa.decimal256(70, 3)),
        "decimal32": pa.array([Decimal("1.5"), None], pa.decimal32(5, 1)),
        "half": pa.array(np.array([1.5, 2.5], np.float16)),
        "fixed": pa.array([b"abcd", None], pa.binary(4)),
        "fixed_list": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
        "map": pa.array([[("k", [1])], None], pa.map_(pa.string(), pa.list_(pa.int16()))),
        "dictionary": pa.array(["a", None]).dictionary_encode(),
        "nested": pa.array(
            [{"a": [{"b": None}]}, None],
            pa.struct([("a", pa.list_(pa.struct([("b", pa.int8())])))]),
        ),
        "null": pa.nulls(2),
        "time": pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
        "duration": pa.array([1, None], pa.duration("us")),
        "uuid": pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([b"u" * 16, None], pa.binary(16))
        ),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None])),
        "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
        "tensor": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int32(), [2, 2]),
            pa.array([[1, 2, 3, 4]] * 2, pa.list_(pa.int32(), 4)),
        ),
        "opaque": pa.ExtensionArray.from_storage(
            pa.opaque(pa.int64(), "geometry", "elsewhere"), pa.array([1, None])
        ),
    }
    table = pa.table({"text": ["prize", "hello"], **values})
    pq.write_table(table, tmp_path / "in/a.parquet")
    before = pq.read_table(tmp_path / "in/a.parquet")
    result = cli("run", job())
    assert result.returncode == 0, result.stderr
    after = labels(tmp_path / "out")["a.parquet"]
    for name in before.column_names:
        assert after.column(name).type == plain_type(before.column(name).type), name
        assert after.column(name).to_pylist() == before.column(name).to_pylist(), name
