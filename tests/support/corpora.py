"""Corpora that tests make."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

CODECS = {"gz": "gzip", "zst": "zstd"}


def put(folder: Path, name: str, data: bytes | list[Any]) -> Path:
    """Write folder/in/name, compressed as its name says: bytes, or objects of a line each."""
    file = folder / "in" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(data, bytes):
        data = b"".join(json.dumps(row).encode() + b"\n" for row in data)
    with pa.output_stream(str(file), compression=CODECS.get(name.rpartition(".")[2])) as stream:
        stream.write(data)
    return file


def get(file: Path) -> bytes:
    """What is in a file, as its name says decompressed."""
    data: bytes = pa.input_stream(str(file)).read()
    return data


def as_lines(shard: Path) -> None:
    """Make a Parquet shard one of JSON lines, whose label file has the same name."""
    shard.with_suffix(".jsonl.gz").write_bytes(
        gzip.compress(pl.read_parquet(shard).write_ndjson().encode())
    )
    shard.unlink()
