"""Real Arrow files and streams with a few bytes changed: as `parquet_mutation`, whose reading and
comparing it is.

`python tests/support/ipc_mutation.py FOLDER SEED COUNT` prints what became of them as JSON; a
reader that dies takes this process along.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from support.parquet_mutation import mutated, outcome, table_of

# How the files are written that are mutated: stream or file, rows of a batch, compression.
WAYS: dict[str, tuple[bool, int, str | None]] = {
    "file": (False, 300, None),
    "file of small batches": (False, 70, None),
    "file, lz4": (False, 120, "lz4"),
    "file, zstd": (False, 120, "zstd"),
    "stream": (True, 120, None),
    "stream, zstd": (True, 70, "zstd"),
}


def originals(folder: Path) -> dict[str, bytes]:
    """A file of each of `WAYS`, of texts and of conversations, and one of views by Polars."""
    files = {}
    for name, (is_stream, rows, codec) in WAYS.items():
        for conversation in (False, True):
            table = table_of(conversation)
            sink = pa.BufferOutputStream()
            options = pa.ipc.IpcWriteOptions(compression=codec)
            new: Any = pa.ipc.new_stream if is_stream else pa.ipc.new_file
            with new(sink, table.schema, options=options) as writer:
                writer.write_table(table, rows)
            files[f"{name}, conversations: {conversation}"] = sink.getvalue().to_pybytes()
    frame: Any = pl.from_arrow(table_of())
    for codec in ("uncompressed", "zstd"):
        frame.write_ipc(folder / "views", compression=codec)
        files[f"views, {codec}"] = (folder / "views").read_bytes()
    (folder / "views").unlink()
    return files


def main(folder: Path, seed: int, count: int) -> None:
    """Print each outcome's number."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    whole = originals(folder)
    file = folder / "in" / "a.arrow"
    outcomes: Counter[str] = Counter()
    for number in range(seed, seed + count):
        chance = random.Random(number)
        way = chance.choice(list(whole))
        # The last line, should reading it kill this process.
        print(f"{number}: {way}", file=sys.stderr, flush=True)
        file.write_bytes(mutated(whole[way], chance))
        outcomes[outcome(folder / "in", number)] += 1
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
