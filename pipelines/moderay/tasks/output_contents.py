"""Contents of an output's label rows, read back from where they lie.

That is the label file where it carries them, else the input file that its marker names. Either may
have changed since: a content counts only where its hash is the row's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.errors import ModerayError, UserError, first_line
from moderay.core.storage import (
    FileState,
    RemoteFile,
    listed_file,
    plain_errors,
    size_and_version,
)
from moderay.core.verdicts import ROW
from moderay.corpus.content import contents, template_columns
from moderay.corpus.formats import format_of
from moderay.corpus.shard import Footers
from moderay.corpus.sources import path_values
from moderay.corpus.views import rows_at, without_views
from moderay.labels.footer_cache import read_footers
from moderay.labels.layout import Layout
from moderay.labels.records import ShardMarker

# Rows read at once: few, since a content may be long.
STEP = 4096


@dataclass(frozen=True, slots=True)
class FoundContent:
    """What was judged of one row.

    Attributes:
        text: As the model read it; empty where there was nothing to judge, and None where it is not
            to be had.
        missing: Why it is not to be had, as a clause; empty where it is.
    """

    text: str | None
    missing: str = ""


class OutputContents:
    """Reads the contents of an output's rows."""

    def __init__(
        self,
        layout: Layout,
        content: str,
        storage: Mapping[str, Any],
        most_bytes: int | None = None,
    ) -> None:
        """Of one output.

        Args:
            layout: Of it.
            content: What was judged, as `input.content` of its job has it.
            storage: Options of the input's storage.
            most_bytes: Of an input file; a larger one is not read through. By default any is.
        """
        self._layout = layout
        self._content = content
        self._columns = template_columns(content)
        self._storage = storage
        self._most_bytes = most_bytes
        self._footers: Footers | None = None

    def read(
        self, marker: ShardMarker, rows: np.ndarray, hashes: Sequence[str | None]
    ) -> list[FoundContent]:
        """The contents of some rows of a shard.

        Args:
            marker: Of the shard.
            rows: Positions in the input file, rising.
            hashes: The rows' content hashes, as the label file has them.
        """
        found: dict[int, str] = {}
        wanted = dict(zip(rows.tolist(), hashes, strict=True))
        reason = ""
        for read in (self._carried, self._of_input):
            left = np.array([row for row in rows.tolist() if row not in found], np.int64)
            if not len(left):
                break
            try:
                found |= {row: text for row, text, key in read(marker, left) if key == wanted[row]}
            except (ModerayError, pa.ArrowException) as error:
                reason = first_line(error)
        reason = reason or "another content stands there now"
        return [
            FoundContent(found[row]) if row in found else FoundContent(None, reason)
            for row in rows.tolist()
        ]

    def _carried(
        self, marker: ShardMarker, rows: np.ndarray
    ) -> Iterator[tuple[int, str, str | None]]:
        """Row, text and hash, from the columns that the label file carries."""
        path = self._layout.label(marker.shard)
        with (
            plain_errors(self._layout.url),
            pq.ParquetFile(RemoteFile(self._layout.fs, path), pre_buffer=True) as file,
        ):
            names = file.schema_arrow.names
            # Moderay's own columns begin with `row`.
            if not set(self._columns) <= set(names[: names.index(ROW.name)]):
                return
            groups = row_groups(file, rows)
            for batch in file.iter_batches(STEP, groups, [*self._columns, ROW.name]):
                table = pa.Table.from_batches([batch])
                positions = table.column(ROW.name).to_numpy()
                at = np.flatnonzero(np.isin(positions, rows))
                yield from self._texts(table, at, positions[at])

    def _of_input(
        self, marker: ShardMarker, rows: np.ndarray
    ) -> Iterator[tuple[int, str, str | None]]:
        """Row, text and hash, from the input file."""
        if self._most_bytes is not None and marker.identity[1] > self._most_bytes:
            raise UserError("the input file is too large to be read through for it")
        fs, path = listed_file(marker.source, self._storage)
        parts = dict(path_values(marker.shard))
        start = 0
        with plain_errors(marker.source):
            format_ = format_of(marker.source)
            schema = format_.explicit_schema(self._schema(marker, fs, path))
            for batch in format_.tables(fs, path, self._columns, schema, rows=STEP):
                low, high = np.searchsorted(rows, (start, start + len(batch)))
                table = without_views(batch)
                for name in self._columns:
                    if name not in table.column_names and name in parts:
                        value = pa.array([parts[name]] * len(table), pa.string())
                        table = table.append_column(name, value)
                if not set(self._columns) <= set(table.column_names):
                    return
                yield from self._texts(table, rows[low:high] - start, rows[low:high])
                start += len(batch)
                if start > rows[-1]:
                    return

    def _schema(self, marker: ShardMarker, fs: Any, path: str) -> pa.Schema:
        """What a file that says nothing of itself was read with."""
        format_ = format_of(marker.source)
        if self._footers is None:
            self._footers = read_footers(self._layout, self._columns)
        footer = self._footers.get(marker.identity)
        if footer is None:
            size, version = size_and_version(fs, path) or (0, "")
            footer = format_.footer(fs, path, FileState(size, version), self._columns)
        return format_.common([footer.schema])[0]

    def _texts(
        self, table: pa.Table, at: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[int, str, str | None]]:
        for row, content in zip(
            rows.tolist(), contents(rows_at(table, at), self._content), strict=True
        ):
            yield row, content.text, content.hash


def row_groups(file: pq.ParquetFile, rows: np.ndarray) -> list[int]:
    """The row groups of a label file in which some of these rows may lie.

    Args:
        file: A label file, whose rows rise.
        rows: Positions in the input file, rising.
    """
    schema = file.metadata.schema
    column = next(at for at in range(len(schema)) if schema.column(at).path == ROW.name)

    def may_hold(group: int) -> bool:
        known = file.metadata.row_group(group).column(column).statistics
        if known is None or not known.has_min_max:
            return True
        first, behind = np.searchsorted(rows, known.min), np.searchsorted(rows, known.max, "right")
        return bool(first < behind)

    return list(filter(may_hold, range(file.num_row_groups)))
