"""Contents of an output's label rows, read back from where they lie.

That is the label file where it carries them, else the input file that its marker names. Either may
have changed since: a content counts only where its hash is the row's.
"""

from __future__ import annotations

import json
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
from moderay.core.verdicts import ROW, Status
from moderay.corpus.content import contents, is_list, template_columns
from moderay.corpus.formats import Footer, format_of, kind_column
from moderay.corpus.shard import Footers
from moderay.corpus.sources import path_values
from moderay.corpus.views import rows_at, without_views
from moderay.labels.footer_cache import read_footers
from moderay.labels.layout import Layout
from moderay.labels.records import ShardMarker

# Rows read at once: few, since a content may be long.
STEP = 4096


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody says in a conversation.

    Attributes:
        role: Who.
        content: What.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class FoundContent:
    """What was judged of one row.

    Attributes:
        text: As the model read it; empty where there was nothing to judge, and None where it is not
            to be had.
        missing: Why it is not to be had, as a clause; empty where it is.
        turns: Of a conversation.
    """

    text: str | None
    missing: str = ""
    turns: tuple[Turn, ...] = ()


# A row's position, its content, and that content's hash.
_Found = tuple[int, FoundContent, str | None]


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
        found: dict[int, FoundContent] = {}
        wanted = dict(zip(rows.tolist(), hashes, strict=True))
        reason = ""
        for read in (self._carried, self._of_input):
            left = np.array([row for row in rows.tolist() if row not in found], np.int64)
            if not len(left):
                break
            try:
                found |= {row: one for row, one, key in read(marker, left) if key == wanted[row]}
            except (ModerayError, pa.ArrowException) as error:
                reason = first_line(error)
        missing = FoundContent(None, reason or "another content stands there now")
        return [found.get(row, missing) for row in rows.tolist()]

    def _carried(self, marker: ShardMarker, rows: np.ndarray) -> Iterator[_Found]:
        """From the columns that the label file carries."""
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

    def _of_input(self, marker: ShardMarker, rows: np.ndarray) -> Iterator[_Found]:
        """From the input file: of that, the row groups in which some of the rows lie."""
        if self._most_bytes is not None and marker.identity[1] > self._most_bytes:
            raise UserError("the input file is too large to be read through for it")
        fs, path = listed_file(marker.source, self._storage)
        with plain_errors(marker.source):
            format_ = format_of(marker.source, marker.whole)
            footer = self._footer(marker, fs, path)
            schema = format_.explicit_schema(format_.common([footer.schema])[0])
            starts = np.cumsum([0, *footer.row_groups])
            groups = np.unique(np.searchsorted(starts, rows, "right") - 1)
            for group in groups[groups < len(footer.row_groups)].tolist():
                start = int(starts[group])
                for batch in format_.tables(
                    fs, path, self._columns, schema, rows=STEP, groups=(group, group + 1)
                ):
                    low, high = np.searchsorted(rows, (start, start + len(batch)))
                    table = self._with_parts(without_views(batch), marker.shard)
                    if not set(self._columns) <= set(table.column_names):
                        return
                    yield from self._texts(table, rows[low:high] - start, rows[low:high])
                    start += len(batch)

    def _with_parts(self, table: pa.Table, shard: str) -> pa.Table:
        """A table with those of the columns that stand in the folders' names."""
        for name, value in path_values(shard):
            if name in self._columns and name not in table.column_names:
                table = table.append_column(name, pa.array([value] * len(table), pa.string()))
        return table

    def _footer(self, marker: ShardMarker, fs: Any, path: str) -> Footer:
        """What is known of the input file; one that says nothing of itself was counted once."""
        if self._footers is None:
            self._footers = read_footers(self._layout, self._columns)
        known = self._footers.get(marker.identity)
        if known is not None and not marker.whole:
            return known
        size, version = size_and_version(fs, path) or (0, "")
        return format_of(marker.source, marker.whole).footer(
            fs, path, FileState(size, version), self._columns
        )

    def _texts(self, table: pa.Table, at: np.ndarray, rows: np.ndarray) -> Iterator[_Found]:
        chosen = rows_at(table, at)
        read = contents(chosen, self._content)
        for number, (row, content) in enumerate(zip(rows.tolist(), read, strict=True)):
            is_read = content.status is Status.OK
            turns = _turns(chosen, self._content, number) if is_read else ()
            yield row, FoundContent(content.text, turns=turns), content.hash


def _turns(table: pa.Table, content: str, row: int) -> tuple[Turn, ...]:
    """The turns of a row's content; none where it is a text."""
    if content not in table.column_names:
        return ()
    kind = kind_column(content)
    is_json = kind in table.column_names and table.column(kind)[row].as_py() == "a list"
    if not is_json and not is_list(table.schema.field(content).type):
        return ()
    value = table.column(content)[row].as_py()
    turns = json.loads(value) if is_json else value
    return tuple(Turn(_text(turn["role"]), _text(turn["content"])) for turn in turns or ())


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


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
