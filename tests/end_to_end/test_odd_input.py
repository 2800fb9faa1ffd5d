"""Odd names, links and odd files through a run, a filter and back."""

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from support.outputs import labels

ODD = [
    "new\nline.parquet",
    "a.parquet::x.parquet",
    "a..%2fx.parquet",
    "x#y?z*.parquet",
    "\udcff.parquet",
    f"{'n' * 247}.parquet",
    f"{'j' * 248}.jsonl",
]


def put(file: Path, texts: list[str]) -> None:
    """Rows of a text each, in Parquet or lines, under any name."""
    with file.open("wb") as opened:
        if file.suffix == ".jsonl":
            opened.write(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
        else:
            pq.write_table(pa.table({"text": texts}), opened)


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
    manifest = json.loads((tmp_path / "out/_moderay/manifest.json").read_text())
    assert set(manifest["unreadable"]) >= {"0-odd.parquet", "4.parquet"}
