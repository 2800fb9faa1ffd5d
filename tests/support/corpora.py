"""Corpora that tests make."""

import gzip
from pathlib import Path

import polars as pl


def as_lines(shard: Path) -> None:
    """Make a Parquet shard one of JSON lines, whose label file has the same name."""
    shard.with_suffix(".jsonl.gz").write_bytes(
        gzip.compress(pl.read_parquet(shard).write_ndjson().encode())
    )
    shard.unlink()
