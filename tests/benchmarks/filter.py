"""`make bench`: filtering a million rows in a hundred shards whose labels are there, beside a join
and a filter written by hand in Polars over the same files; memory at a tenth of the shards; and the
tweets, labelled with `tiny` and filtered.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from support.project import ROOT, SHARED

from moderay.config.policy import load_policy
from moderay.core.storage import filesystem, stamp, version
from moderay.core.verdicts import VERDICT, label_fields
from moderay.labels.counts import PolicyCounts
from moderay.labels.decisions import decide, flagged, summary
from moderay.labels.layout import Layout, marker_name
from moderay.labels.manifest_record import (
    JudgeRecord,
    Manifest,
    ModelRecord,
    PolicyRecord,
    RunRecord,
    Selection,
)
from moderay.labels.manifest_store import append_manifest
from moderay.labels.records import ShardMarker, WrittenFile

SHARD_ROWS, WORDS = 10_000, 60
KEEP = "NOT (spam.violates OR spam.probability > 0.8)"


def write(folder: Path, shards: int) -> None:
    """A corpus and labels of it as a run leaves them: 5% violate, 1% are not judged."""
    rng, policy = np.random.default_rng(0), load_policy(ROOT / "policies/spam")
    words = np.array([f"word{i}" for i in range(5000)])
    (folder / "in").mkdir(parents=True)
    (folder / "labels").mkdir()
    layout = Layout(str(folder / "labels"))
    schema = pa.schema(label_fields([policy.rule]))
    for number in range(shards):
        name, rows = f"{number:05d}.parquet", SHARD_ROWS
        texts = [" ".join(row) for row in words[rng.integers(0, len(words), (rows, WORDS))]]
        pq.write_table(
            pa.table(
                {"id": np.arange(rows) + number * rows, "text": texts, "score": rng.random(rows)}
            ),
            folder / "in" / name,
        )
        missing, bad = rng.random(rows) < 0.01, rng.random(rows) < 0.05
        p = np.where(bad, rng.uniform(0.5, 1, rows), rng.uniform(0, 0.5, rows)).astype(np.float32)
        scores = pa.array(
            [
                None if gone else [1 - x, x / 2, x / 2]
                for gone, x in zip(missing, p.tolist(), strict=True)
            ],
            pa.list_(pa.float32()),
        )
        inputs = {
            "status": np.where(missing, "timeout", "ok"),
            "scores": scores,
            "rationale": pa.array(
                ["It says what the policy is about, in a sentence or two."] * rows, mask=missing
            ),
            "reasoning": pa.array(
                ["A thought that leads to the label, longer than the answer. " * 4] * rows,
                mask=missing | ~bad,
            ),
        }
        columns = [
            pa.array(inputs[f.name], f.type) if f.name in inputs else pa.nulls(rows, f.type)
            for f in VERDICT
        ]
        decisions = decide(pa.StructArray.from_arrays(columns, fields=list(VERDICT)), policy.rule)
        hashes = pa.array([f"{row:032x}" for row in range(rows)])
        pq.write_table(
            pa.table([np.arange(rows), hashes, flagged([decisions]), decisions], schema=schema),
            folder / "labels" / name,
            compression="zstd",
        )
        written = stamp(layout.fs, layout.label(name)) or (0, "")
        fs, path = filesystem(str(folder / "in" / name))
        info = fs.info(path)
        marker = ShardMarker(
            shard=name,
            source=path,
            identity=(name, info["size"], version(info)),
            rows=rows,
            label_file=WrittenFile(size=written[0], version=written[1], digest=""),
            input_rows=rows,
            flagged=0,
            policies={policy.id: PolicyCounts.of(summary(decisions))},
            judges={},
            thresholds={policy.id: policy.threshold},
            run=0,
        )
        marker_path = layout.marker(name, marker_name(marker, "0" * 16, "0" * 16))
        layout.write(marker_path, marker.to_json())
    judge = JudgeRecord(
        judge="reason",
        labels={label: spec.violates for label, spec in policy.labels.items()},
        answer=policy.answer,
        policy=policy.text,
    )
    record = PolicyRecord(
        title=policy.title,
        version=policy.version,
        threshold=policy.threshold,
        cascade_key="0",
        cascade=(judge,),
        promises={},
    )
    model = ModelRecord(source="tiny")
    manifest = Manifest(
        name="bench",
        complete=True,
        cascade_key="0",
        selection=Selection(content="text", where=None, sample=None),
        policies={policy.id: record},
        runs=(RunRecord(run=0, status="finished", started="2026-01-01", model=model),),
    )
    append_manifest(layout, lambda before: manifest)


def by_hand(folder: Path) -> None:
    """What somebody would write: each file joined with its labels by row, and split in three."""
    for fate in ("kept", "removed", "held"):
        (folder / "hand" / fate).mkdir(parents=True)
    for file in sorted((folder / "in").glob("*.parquet")):
        labels = (
            pl.scan_parquet(folder / "labels" / file.name)
            .select("row", "spam")
            .unnest("spam")
            .select("row", "violates", "probability", "label", "rationale")
        )
        joined = (
            pl.scan_parquet(file, row_index_name="row")
            .with_columns(pl.col("row").cast(pl.Int64))
            .join(labels, on="row", how="left")
            .collect()
        )
        keep = ~(pl.col("violates") | (pl.col("probability") > 0.8))
        verdict = ("row", "violates", "probability", "label", "rationale")
        joined.filter(keep).drop(verdict).write_parquet(
            folder / "hand/kept" / file.name, compression="snappy"
        )
        joined.filter(~keep).write_parquet(
            folder / "hand/removed" / file.name, compression="snappy"
        )
        joined.filter(keep.is_null()).write_parquet(
            folder / "hand/held" / file.name, compression="snappy"
        )


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a process, its start included, and MiB it had at most."""
    began, most = time.monotonic(), 0
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAY_ADDRESS": "local"},
    )
    seen = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            most = max(most, seen.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    _, result = process.communicate()
    assert process.returncode == 0, result.decode()
    return time.monotonic() - began, most / 2**20


def ours(folder: Path) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "moderay",
        "filter",
        "--labels",
        str(folder / "labels"),
        "--keep",
        KEEP,
    ]
    return [*command, "--out", tempfile.mkdtemp(dir=folder)]


def assert_whole(source: Path, out: Path) -> dict[str, int]:
    """Every row of every shard was kept, removed or held: once, unchanged, in order; how many of
    each.
    """
    counts = dict.fromkeys(("in", "kept", "removed", "held"), 0)
    for file in sorted(source.rglob("*.parquet")):
        rows = pq.read_table(file, partitioning=None)
        places = {}
        for fate in ("removed", "held"):
            part = out / fate / file.relative_to(source)
            if part.exists():
                table = pq.read_table(part, partitioning=None)
                places[fate] = table.column("moderay").combine_chunks().field("row")
                assert table.drop_columns("moderay").equals(rows.take(places[fate])), part
        gone = pa.concat_arrays([pa.array([], pa.int64()), *places.values()])
        others = rows.filter(pc.invert(pc.is_in(pa.array(range(len(rows))), gone)))
        assert pq.read_table(out / "kept" / file.relative_to(source), partitioning=None).equals(
            others
        ), file
        for name, count in {
            "in": len(rows),
            "kept": len(others),
            **{fate: len(at) for fate, at in places.items()},
        }.items():
            counts[name] += count
    assert counts["kept"] + counts["removed"] + counts["held"] == counts["in"]
    return counts


def tweets(folder: Path) -> None:
    source = SHARED / "tweets"
    if not source.is_dir():
        print("no tweets beside the project")
        return
    job = [
        str(ROOT / "jobs/tweets.yaml"),
        f"--set=output.path={folder}/labels",
        "--keep",
        "NOT harassment.violates",
        "--out",
        str(folder / "clean"),
    ]
    for what, more in (
        ("labelled and filtered", []),
        ("again", []),
        ("with another threshold", ["--threshold", "harassment=0.2"]),
    ):
        began = time.monotonic()
        env = os.environ | {"RAY_ADDRESS": "local", "CORPUS": str(source)}
        done = subprocess.run(
            [sys.executable, "-m", "moderay", "filter", *job, *more],
            env=env,
            capture_output=True,
            text=True,
        )
        # tiny knows no tweets: rows it gives no label to are told of.
        assert done.returncode in (0, 1), done.stderr
        result = " ".join(
            f"{name} {count:,}" for name, count in assert_whole(source, folder / "clean").items()
        )
        nothing = (
            ", nothing to do"
            if "nothing to do: 8 shards with 24,783 rows are filtered" in done.stdout
            else ""
        )
        print(f"tweets {what}: {result}; {time.monotonic() - began:.0f} s{nothing}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--by-hand", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.by_hand:
        by_hand(args.by_hand)
        return
    with tempfile.TemporaryDirectory(prefix="moderay-filter-") as name:
        whole, tenth = Path(name) / "whole", Path(name) / "tenth"
        write(whole, args.shards)
        write(tenth, args.shards // 10)
        rows = args.shards * SHARD_ROWS
        hand, hand_memory = timed(
            [sys.executable, "-m", "benchmarks.filter", "--by-hand", str(whole)]
        )
        mine, memory = timed(ours(whole))
        _, small = timed(ours(tenth))
        kept = [
            sum(pq.read_metadata(file).num_rows for file in folder.glob("kept/*.parquet"))
            for folder in (whole / "hand", *whole.glob("tmp*"))
        ]
        assert kept[0] == kept[1], kept
        print(
            f"{rows:,} rows in {args.shards} shards: {rows / mine:,.0f} rows/s, {memory:,.0f} MiB"
        )
        print(f"by hand: {rows / hand:,.0f} rows/s, {hand_memory:,.0f} MiB")
        print(
            f"{hand / mine:.2f} of the speed by hand; goal: 0.5. Memory with a tenth of the "
            f"shards: {small:,.0f} MiB"
        )
        tweets(Path(name) / "tweets")


if __name__ == "__main__":
    main()
