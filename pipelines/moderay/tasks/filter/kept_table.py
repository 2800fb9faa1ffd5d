"""Where a filter writes, and how kept rows are named in a Delta table.

In a folder a kept file has the name of its input file, and takes the place of one that another
rule left. In a table that would change what its readers see before the commit, and what earlier
versions hold: there, each filter's files have names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from moderay.core.errors import UserError
from moderay.core.hashing import digest
from moderay.core.storage import files_below, shown
from moderay.corpus.formats import Part
from moderay.corpus.tables.location import parse
from moderay.labels.layout import Layout, State, file_stamp, list_state
from moderay.tasks.filter.records import FilterMarker

# In a table that a filter makes: its card, and what it removed and held. Readers and writers of
# tables pass over names that begin so.
BESIDE = "_filter"


@dataclass(frozen=True)
class KeptTable:
    """The Delta table in which kept rows are; picklable.

    Attributes:
        layout: Of the table's folder.
        beside: URL of the folder with all else that the filter writes.
        in_place: Whether it is the input itself, of which only files that lose rows are replaced.
    """

    layout: Layout
    beside: str
    in_place: bool

    def name(self, source: str, key: str, decision: str) -> str:
        """Path below the table's folder of a kept file.

        Of another filter's it is different, so that who clears up takes nobody's file away.

        Args:
            source: Path of the input file, below the table's folder where it is the input.
            key: Of the labels.
            decision: Of the rule.
        """
        stem = source.removesuffix(".parquet")
        return f"{stem}-{digest([key, decision, shown(self.beside)])}.parquet"

    def path(self, source: str, key: str, decision: str) -> str:
        """The same as a path of the file system."""
        return f"{self.layout.root}/{self.name(source, key, decision)}"

    def stamps(self) -> dict[str, str]:
        """Of the files in the table's folder, by path below it."""
        root = self.layout.root
        return {
            file.name: file_stamp(file.size, file.version)
            for file in files_below(self.layout.fs, root)
        }

    def is_written(self, marker: FilterMarker, unselected: str | None) -> bool:
        """Whether a shard's kept rows are a file: in place, those of one that loses some."""
        rows = kept_rows(marker, unselected)
        return rows > 0 and not (self.in_place and rows == marker.rows.input)


@dataclass(frozen=True)
class WithoutColumns:
    """A `Part` of rows that have columns which it has not: those by which a table is parted."""

    part: Part
    names: tuple[str, ...]

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        """As `Part.add`."""
        self.part.add(rows.drop_columns(list(self.names)), more, doubtful)

    def close(self, always: bool = False) -> None:
        """As `Part.close`."""
        self.part.close(always)


@dataclass(frozen=True)
class Target:
    """Where a filter writes.

    Attributes:
        layout: Of the folder with its card and its markers, and what it removed and held.
        table: The Delta table that kept rows go into; None where they go into the folder.
    """

    layout: Layout
    table: KeptTable | None = None

    def state(self, keys: Mapping[str, str], decision: str) -> State:
        """What is there, as of a folder: kept files by the names of their input files.

        Args:
            keys: Of each shard's labels, by input file.
            decision: Of the rule.
        """
        state = list_state(self.layout)
        if self.table is None:
            return state
        stamps = self.table.stamps()
        kept = {
            f"kept/{name}": stamp
            for name, key in keys.items()
            if (stamp := stamps.get(self.table.name(name, key, decision))) is not None
        }
        return replace(state, stamps={**state.stamps, **kept})


def kept_rows(marker: FilterMarker, unselected: str | None) -> int:
    """Rows of a shard that are kept, also those that were not selected for judging."""
    rows = marker.rows
    return rows.kept + (rows.unselected if unselected == "kept" else 0)


def folder_of(out: str) -> str:
    """URL of the folder that a filter writes its card to, and what it removed and held.

    Args:
        out: What was asked for: a folder, or `delta://WHERE`.

    Raises:
        UserError: It is a table that a filter cannot write.
    """
    table = parse(out)
    if table is None:
        return out
    if table.kind != "delta":
        raise UserError(
            f"{shown(out)}: a filter writes a folder, or a Delta table: --out delta://..."
        )
    return f"{table.url}/{BESIDE}"
