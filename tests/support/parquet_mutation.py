"""Real Parquet files with a few bytes changed, and what must hold of each: it is left out with a
reason, or every way to read it gives the same rows.

`python tests/support/parquet_mutation.py FOLDER SEED COUNT` makes and reads some, each in its turn,
and prints what became of them as JSON; a reader that dies takes this process along.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.config.job import Job, UnitSize
from moderay.core.storage import filesystem
from moderay.corpus.columns import read_columns
from moderay.corpus.formats import format_of
from moderay.corpus.ranges import Range
from moderay.corpus.scan import scan
from moderay.corpus.shard import Shard
from moderay.pipeline.stages.prepare import POSITION
from moderay.pipeline.stages.spans import RowStream, spans

ROWS = 300
# What the scripted engine tells apart.
WORDS = ("word ", "prize ", "shop ")
# What a run expects of a reader; anything else would end it.
EXPECTED = (pa.ArrowException, OSError)


def table_of(conversation: bool = False) -> pa.Table:
    texts = [None if i % 17 == 0 else f"row {i} {WORDS[i % 3] * (i % 9)}" for i in range(ROWS)]
    turns = [[{"role": "user", "content": text}] * (1 + i % 3) for i, text in enumerate(texts)]
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return pa.table(
        {
            "id": pa.array([f"id-{i}" for i in range(ROWS)]),
            "text": pa.array(turns, kind) if conversation else pa.array(texts, pa.string()),
            "n": pa.array(range(ROWS), pa.int64()),
            "kind": pa.array(["a", "b", None] * (ROWS // 3)).dictionary_encode(),
            "score": pa.array([i / 7 for i in range(ROWS)], pa.float32()),
        }
    )


# How the files are written that are mutated.
WAYS: dict[str, dict[str, Any]] = {
    "snappy": {},
    "zstd, checksums": {"compression": "zstd", "write_page_checksum": True},
    "plain, small pages": {"compression": "none", "use_dictionary": False, "data_page_size": 512},
    "gzip, version 2 pages": {"compression": "gzip", "data_page_version": "2.0"},
    "row groups of 70": {"row_group_size": 70},
    "delta": {
        "use_dictionary": False,
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "n": "DELTA_BINARY_PACKED"},
    },
    "conversations": {"conversation": True, "row_group_size": 120},
    "polars": {"polars": True},
}


def originals(folder: Path) -> dict[str, bytes]:
    """A file of each of `WAYS`."""
    files = {}
    for name, options in WAYS.items():
        file = folder / "original.parquet"
        rest = {
            key: value for key, value in options.items() if key not in ("conversation", "polars")
        }
        table = table_of(options.get("conversation", False))
        if options.get("polars"):
            frame: Any = pl.from_arrow(table)
            frame.write_parquet(file)
        else:
            pq.write_table(table, file, **rest)
        files[name] = file.read_bytes()
        file.unlink()
    return files


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three changes, every fourth of them in the footer for certain."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        size = len(changed)
        footer = int.from_bytes(changed[-8:-4], "little") + 8
        low = max(0, size - footer) if chance.random() < 0.25 else 0
        at = chance.randrange(low, size)
        length = min(chance.choice((1, 1, 2, 4, 8, 64)), size - at)
        kind = chance.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + length] = chance.randbytes(length)
        elif kind == 2:
            changed[at : at + length] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF))]) * length
        elif kind == 3:
            start = chance.randrange(size)
            changed[at : at + length] = changed[start : start + length]
        elif kind == 4:
            del changed[at : at + length]
        elif kind == 5:
            changed[at:at] = chance.randbytes(length)
        else:
            changed[at] = (changed[at] + chance.choice((-2, -1, 1, 2))) % 256
        if len(changed) < 64:
            break
    return bytes(changed)


def outcome(folder: Path, seed: int) -> str:
    """What becomes of the one file in a folder: `left out ...`, or `read` where all agrees.

    Raises:
        AssertionError: Two ways to read it disagree.
    """
    job = Job.model_validate(
        {
            "input": {"path": str(folder), "content": "text"},
            "output": {"path": f"{folder}-out"},
            "policies": ["spam"],
        }
    )
    found = scan(job, ["spam"])
    if found.problems or not found.shards:
        return "left out by the scan"
    [shard] = found.shards
    try:
        columns = pa.concat_tables(_carried(shard, found.columns.names))
    except EXPECTED:
        return "left out by the columns that are carried"
    try:
        units = list(_units(shard, job, random.Random(seed)))
    except EXPECTED:
        return "left out by a unit"
    assert len(columns) == shard.rows, f"{len(columns)} rows of {shard.rows}"
    for (start, end), unit in units:
        assert unit.column(POSITION).to_pylist() == list(range(start, end))
        judged, carried = unit.column("text"), columns.column("text").slice(start, end - start)
        assert _bytes(judged) == _bytes(carried), f"rows {start}-{end} are not what is carried"
    return "read"


def _bytes(column: pa.ChunkedArray) -> list[Any]:
    """Values of texts that need not be valid UTF-8."""
    kind: Any = pa.large_binary()
    if pa.types.is_list(column.type):
        kind = pa.list_(pa.struct([("role", kind), ("content", kind)]))
    return [value for chunk in column.chunks for value in chunk.cast(kind, safe=False).to_pylist()]


def _carried(shard: Shard, names: list[str]) -> Iterator[pa.Table]:
    yield from format_of(shard.url).tables(
        *filesystem(shard.url), names, shard.schema, listed=shard.state
    )


def _units(shard: Shard, job: Job, chance: random.Random) -> Iterator[tuple[Range, pa.Table]]:
    """Some of its rows, cut at random, as a resumed run reads them."""
    edges = sorted(chance.sample(range(shard.rows + 1), min(6, shard.rows + 1)))
    missing = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < b]
    for span in spans(shard, missing, UnitSize(rows=chance.choice((1, 7, 64)))):
        stream = RowStream(span, job, read_columns(job))
        for start, end in span.missing:
            at = start
            while at < end:
                unit = stream.upto(at, min(at + span.step, end))
                yield (at, at + len(unit)), unit
                at += len(unit)


def main(folder: Path, seed: int, count: int) -> None:
    """Print each outcome's number."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    whole = originals(folder)
    file = folder / "in" / "a.parquet"
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
