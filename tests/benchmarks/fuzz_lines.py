"""`python -m benchmarks.fuzz_lines --files 5000 --seed 1`: damaged files of JSON lines, plain and
compressed. Each must be left out and named, or have all its rows, each of them its own line.

Files of a failure are kept in the folder that is named.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from support.line_files import assert_each_row_is_its_line, put_mutants, scanned
from support.scripted import write_job

ENDS = ("jsonl", "jsonl.gz", "ndjson.zst")
# Files of one job: their columns are made common.
TOGETHER = 100


def episode(folder: Path, seed: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    written = put_mutants(folder, ENDS[seed % len(ENDS)], seed, TOGETHER)
    scan, checked = scanned(write_job(folder))
    assert len(scan.shards) + len(scan.unreadable) == written
    assert all(reason for _, reason in scan.unreadable)
    for shard in scan.shards:
        assert_each_row_is_its_line(shard, checked, folder)
        counts["rows"] += shard.rows
    return counts + Counter(
        {"files": written, "read": len(scan.shards), "named": len(scan.unreadable)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, seed = time.monotonic(), options.seed
    total: Counter[str] = Counter()
    while total["files"] < options.files:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-lines-"))
        try:
            total += episode(folder, seed)
        except BaseException:
            print(f"seed {seed}: {folder}")
            raise
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        folder.rmdir()
        seed += 1
    print(f"seeds {options.seed}-{seed - 1}: {dict(total)} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
