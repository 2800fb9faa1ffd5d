"""`make bench`, last part: duplicates, verdicts that are all there already, and what the index
costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.outputs import manifest_of
from support.scripted import write_job

from moderay.core.storage import remove, stamp
from moderay.corpus.content import content_hash
from moderay.labels.layout import Layout, file_stamp, list_state, published_markers
from moderay.labels.partition import File, Partition, Source

SHARDS = 20


def corpus(folder: Path, texts: list[str]) -> None:
    folder.mkdir()
    for shard, part in enumerate(np.array_split(np.arange(len(texts)), SHARDS)):
        pq.write_table(
            pa.table({"text": [texts[i] for i in part]}), folder / f"{shard:03d}.parquet"
        )


def run(folder: Path, output: str, **sections: Any) -> tuple[dict[str, Any], float]:
    """The manifest's entry of a run on the scripted engine, and seconds in all. Its events are in
    `<output>.jsonl`.
    """
    script = {
        "default": {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}
    }
    write_job(folder, script, output={"path": output, "columns": []}, **sections)
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "moderay",
        "run",
        str(folder / "job.yaml"),
        "--progress",
        str(folder / f"{output}.jsonl"),
    ]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"RAY_ADDRESS": "local"}
    )
    manifest = manifest_of(folder / output)
    return manifest["runs"][-1], time.monotonic() - began


def earlier(folder: Path, texts: list[str]) -> None:
    """An output `before` of the corpus: its first shard is judged, the others get the same verdicts
    with their own hashes and markers, since the scripted engine would take a quarter of an hour for
    a million.
    """
    whole, alone = folder / "in", folder / "alone"
    alone.mkdir()
    for file in sorted(whole.iterdir())[1:]:
        file.rename(alone / file.name)
    run(folder, "before")
    layout = Layout(str(folder / "before"))
    state, out = list_state(layout), folder / "before"
    published = state.published("000.parquet")
    (marker,) = published_markers(layout).values()
    assert published is not None
    remove(layout.fs, layout.marker("000.parquet", published))
    first = pq.read_table(out / "000.parquet")
    for number, part in enumerate(np.array_split(np.arange(len(texts)), SHARDS)):
        hashes = pa.array([content_hash([texts[i]]) for i in part])
        rows = first.slice(0, len(part))
        pq.write_table(
            rows.set_column(
                rows.schema.get_field_index("content_hash"),
                rows.schema.field("content_hash"),
                hashes,
            ),
            out / f"{number:03d}.parquet",
        )
        shard = f"{number:03d}.parquet"
        size, version = stamp(layout.fs, layout.label(shard)) or (0, "")
        name = published._replace(stamp=file_stamp(size, version))
        copied = marker.model_copy(update={"shard": shard})
        layout.write(layout.marker(shard, name), copied.to_json())
    for file in alone.iterdir():
        file.rename(whole / file.name)


def steady(events: Path) -> float:
    """Rows/s at which shards were published, from the first fifth of them to the last."""
    logged = [json.loads(line) for line in events.read_text().splitlines()]
    published: list[tuple[float, int]] = [
        (event["time"], event["rows"]) for event in logged if event["event"] == "shard published"
    ]
    middle = published[len(published) // 5 : -(len(published) // 5)]
    return sum(rows for _, rows in middle[1:]) / (middle[-1][0] - middle[0][0])


def index_bytes(rows: int) -> float:
    """Of each entry, added a unit at a time."""
    partition, random = Partition(), np.random.default_rng(0)
    for start in range(0, rows, 512):
        keys = random.integers(0, 2**63, min(512, rows - start), np.uint64)
        partition.add(
            File(Source(0, f"{start // 5000}.parquet", "k", 0), start, start + 512),
            keys,
            np.arange(len(keys)),
            np.ones(len(keys), np.uint64),
        )
    size = partition.size()
    return size.bytes / size.entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--reused", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moderay-bench-") as name:
        folder, distinct = Path(name) / "duplicates", int(options.rows * 0.7)
        folder.mkdir()
        random = np.random.default_rng(0)
        numbers = np.concatenate(
            [np.arange(distinct), random.integers(0, distinct, options.rows - distinct)]
        )
        corpus(folder / "in", [f"a text with the number {i}" for i in random.permutation(numbers)])
        entry, seconds = run(folder, "out")
        answers = entry["usage"]["requests"] / 2
        print(
            f"{options.rows:,} rows, 30% duplicates: {answers / distinct:.4f} answers for each of "
            f"{distinct:,} distinct contents (goal 1.03), in {seconds:.0f} s; "
            f"at most {2 * 512:,} rows in judging at a time",
            flush=True,
        )
        folder = Path(name) / "reused"
        folder.mkdir()
        texts = [f"a text with the number {i}" for i in range(options.reused)]
        corpus(folder / "in", texts)
        earlier(folder, texts)
        entry, seconds = run(folder, "after", reuse=["before"])
        assert entry["reused_verdicts"] == options.reused and not entry["usage"].get("requests")
        print(
            f"{options.reused:,} rows all reused: {steady(folder / 'after.jsonl'):,.0f} rows/s in "
            "steady state (goal 50,000), "
            f"{options.reused / seconds:,.0f} with start and end",
            flush=True,
        )
    print(f"index: {index_bytes(options.reused):.1f} bytes for each of {options.reused:,} rows")


if __name__ == "__main__":
    main()
