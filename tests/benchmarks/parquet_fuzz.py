"""Thousands of mutated Parquet files: none ends a reader, and none gives a row the content of
another.

Each file by itself, in processes that may die (`support.parquet_mutation`); `fuzz_runs` has many in
one run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from support.parquet_mutation import WAYS
from support.project import ROOT

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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(f"{options.files:,} files of {len(WAYS)} kinds, seed {options.seed}")
        for name, count in alone(Path(temporary), options.files, options.seed).most_common():
            print(f"{count:6,} {name}")
