"""Thousands of mutated Parquet files: none ends a reader, and none gives a row the content or the
label of another.

First each file by itself, in processes that may die (`support.parquet_mutation`), then those whose
columns are whole as the input of one run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from support.outputs import labels
from support.parquet_mutation import WAYS, mutated, originals, shard_alone
from support.project import ROOT
from support.scripted import SCRIPT

from moderay import run

# Files for one process.
BATCH = 500


def alone(folder: Path, files: int, seed: int) -> Counter[str]:
    """What became of each file by itself; a process that dies is counted by how it ended."""
    outcomes: Counter[str] = Counter()
    for first in range(seed, seed + files, BATCH):
        count = min(BATCH, seed + files - first)
        result = subprocess.run(
            [
                sys.executable,
                str(ROOT / "tests/support/parquet_mutation.py"),
                str(folder),
                str(first),
                str(count),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            outcomes.update(json.loads(result.stdout))
        else:
            outcomes[f"process ended with {result.returncode}"] += 1
            print(result.stderr[-2000:])
    return outcomes


def in_one_run(folder: Path, files: int, seed: int) -> Counter[str]:
    """What became of so many files in one run.

    Raises:
        AssertionError: A row has another's label, or a file is neither labelled nor named.
    """
    whole = {name: data for name, data in originals(folder).items() if name != "conversations"}
    target = folder / "in"
    target.mkdir()
    number = seed
    while len(list(target.iterdir())) < files:
        number += 1
        chance = random.Random(number)
        file = target / f"{number:06}.parquet"
        file.write_bytes(mutated(whole[chance.choice(list(whole))], chance))
        if not shard_alone(file):
            file.unlink()
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT))
    job = folder / "job.yaml"
    job.write_text(
        yaml.safe_dump(
            {
                "name": "fuzz",
                "input": {"path": "in", "content": "text"},
                "output": {"path": "out", "columns": ["id", "text"]},
                "policies": [str(ROOT / "policies/spam")],
                "model": {"source": "scripted:script.yaml"},
                "unit": {"rows": 100},
            }
        )
    )
    outcome = run(job)
    published = labels(folder / "out")
    left_out = {*outcome.manifest.failed, *outcome.manifest.unreadable}
    assert {*published, *left_out} == {file.name for file in target.iterdir()}
    for name, table in published.items():
        assert len(table) == pq.read_metadata(target / name).num_rows
        assert_labels_fit(table)
    return Counter({"labelled": len(published), "left out": len(left_out)})


def assert_labels_fit(table: pa.Table) -> None:
    """Every label is what the script says of the row's own text."""
    texts = table.column("text").cast(pa.large_binary()).to_pylist()
    for text, flagged in zip(texts, table.column("flagged").to_pylist(), strict=True):
        words = [word for word in (b"prize", b"shop") if word in (text or b"")]
        assert flagged in (None, bool(words))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--in-run", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(f"{options.files:,} files of {len(WAYS)} kinds, seed {options.seed}")
        for name, count in alone(Path(temporary), options.files, options.seed).most_common():
            print(f"{count:6,} {name}")
    with tempfile.TemporaryDirectory() as temporary:
        ended = in_one_run(Path(temporary), options.in_run, options.seed)
        print(f"in one run of {options.in_run:,}: {dict(ended)}")
