"""What tests share: the project's folders, a scripted model, and outputs read back."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"

SCRIPT = {
    "default": {
        "answer": '{"label": "SP0", "rationale": "Nothing."}',
        "reasoning": "Nothing here.",
        "p": 0.9,
    },
    "rules": [
        {
            "content": "prize",
            "answer": '{"label": "SP4", "rationale": "A prize."}',
            "reasoning": "A prize.",
            "p": 0.8,
        },
        {
            "content": "shop",
            "answer": '{"label": "SP2", "rationale": "A shop."}',
            "reasoning": "A shop.",
            "p": 0.6,
        },
        {"content": "broken", "output": "<|channel|>analysis<|message|>never ends"},
        {"content": "failing", "fail": "request"},
        {"content": "hanging", "fail": "hang"},
    ],
}


def as_lines(shard: Path) -> None:
    """Make a Parquet shard one of JSON lines, whose label file has the same name."""
    shard.with_suffix(".jsonl.gz").write_bytes(
        gzip.compress(pl.read_parquet(shard).write_ndjson().encode())
    )
    shard.unlink()


@contextmanager
def stored(s3: dict[str, str], folder: Path) -> Iterator[str]:
    """`tiny` in the S3 server, with files beside it from which no model is loaded, and a cache in
    `folder` to fetch it into.
    """
    from moderay.core.storage import filesystem
    from moderay.engines import checkpoint

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3, "MODERAY_CACHE": str(folder / "cache")}.items():
            patch.setenv(name, value)
        url = f"s3://data/{folder.name}/tiny"
        fs, path = filesystem(url)
        fs.put([str(file) for file in weights(checkpoint.TINY_FOLDER)], f"{path}/")
        fs.pipe(
            {
                f"{path}/pytorch_model.bin": b"a pickle",
                f"{path}/original/model.safetensors": b"the same once more",
            }
        )
        yield url
        fs.rm(path, recursive=True)


def weights(folder: Path) -> list[Path]:
    """What of a checkpoint's folder is loaded."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))


def labels(folder: Path) -> dict[str, pa.Table]:
    """Every label file of an output on disk."""
    return {
        str(f.relative_to(folder)): pq.read_table(f, partitioning=None)
        for f in sorted(folder.rglob("*.parquet"))
        if "_moderay" not in f.parts
    }


def compared(table: pa.Table, policy: str) -> list[tuple[Any, ...]]:
    """The columns in which two runs are compared; the probability to three digits."""
    names = (
        "status",
        "violates",
        "label",
        "rationale",
        "reasoning",
        "decided_by",
        "forced",
        "windows",
    )
    return [
        (*[v[n] for n in names], None if v["probability"] is None else round(v["probability"], 3))
        for v in table.column(policy).to_pylist()
    ]


def plain(text: str, folder: Path) -> str:
    """A message without what differs from machine to machine."""
    return re.sub(re.escape(str(folder)), "<tmp>", text).replace(str(ROOT), "<root>")
