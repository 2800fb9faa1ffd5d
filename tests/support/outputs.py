"""What a run wrote and printed, read back."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from support.project import ROOT

# The columns of a verdict in which two runs are compared, beside the probability.
COMPARED = (
    "status",
    "violates",
    "label",
    "rationale",
    "reasoning",
    "decided_by",
    "forced",
    "windows",
)


def labels(folder: Path) -> dict[str, pa.Table]:
    """Every label file of an output on disk, by its path in the output."""
    return {
        str(file.relative_to(folder)): pq.read_table(file, partitioning=None)
        for file in sorted(folder.rglob("*.parquet"))
        if "_moderay" not in file.parts
    }


def manifest_file(folder: Path) -> Path:
    """The manifest of an output on disk that counts: the last one."""
    found = (folder / "_moderay").glob("manifest-*.json")
    return max(found, key=lambda file: int(file.stem.removeprefix("manifest-")))


def manifest_of(folder: Path) -> dict[str, Any]:
    """The same, read."""
    content: dict[str, Any] = json.loads(manifest_file(folder).read_text())
    return content


def saved(folder: Path) -> int:
    """Units of an output that are saved and not yet published."""
    return len(list((folder / "_moderay/units").rglob("*.arrow")))


def verdicts_of(table: pa.Table, policy: str) -> list[dict[str, Any]]:
    """A policy's verdicts, each with the fields of its trace beside the others."""
    return [flat(decision) for decision in table.column(policy).to_pylist()]


def flat(decision: dict[str, Any]) -> dict[str, Any]:
    """A decision with the fields of its trace beside the others."""
    fields: dict[str, Any] = {**decision, **decision["trace"]}
    del fields["trace"]
    return fields


def compared(table: pa.Table, policy: str) -> list[tuple[Any, ...]]:
    """A row's verdict under a policy as a tuple that equals another run's; the probability is to
    three digits.
    """
    return [
        (
            *[verdict[name] for name in COMPARED],
            None if verdict["probability"] is None else round(verdict["probability"], 3),
        )
        for verdict in verdicts_of(table, policy)
    ]


def plain(text: str, folder: Path) -> str:
    """A message without what differs from machine to machine."""
    return re.sub(re.escape(str(folder)), "<tmp>", text).replace(str(ROOT), "<root>")
