"""The contents that people are shown: read from the input, and known by their hashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import ModerayError, first_line
from moderay.core.storage import FileState, RemoteFile, listed_file, plain_errors, stamp
from moderay.core.verdicts import ROW
from moderay.corpus.content import contents, template_columns
from moderay.corpus.formats import Footer, format_of, kind_column
from moderay.corpus.sources import path_values
from moderay.corpus.views import without_views
from moderay.labels.records import ShardMarker
from moderay.tasks.review.items import Item
from moderay.tasks.review.output import ReviewedOutput

# Rows of a piece of the input: few, since contents may be long.
STEP = 1024


@dataclass(frozen=True)
class ShownTurn:
    """What somebody says in a conversation.

    Attributes:
        role: Who.
        content: What.
    """

    role: str
    content: str


@dataclass(frozen=True)
class ShownContent:
    """A content as a person sees it.

    Attributes:
        text: Of a text.
        turns: Of a conversation.
        problem: Why it cannot be shown; empty where it can.
    """

    text: str = ""
    turns: tuple[ShownTurn, ...] = ()
    problem: str = ""


def content_of(output: ReviewedOutput, item: Item) -> ShownContent:
    """The content of an item.

    It is read from the input, or from the label file where that carries it; what has another hash
    than the labelled content is not shown.
    """
    marker = output.markers.get(item.shard)
    if marker is None:
        return ShownContent(problem=f"{item.shard} is not published any more")
    reasons = []
    ways: tuple[Callable[[], pa.Table | None], ...] = (
        lambda: _of_input(output, marker, item.row),
        lambda: _of_labels(output, marker, item.row),
    )
    for way in ways:
        try:
            with plain_errors(marker.source):
                row = way()
        except (ModerayError, pa.ArrowException, OSError) as error:
            reasons.append(first_line(error))
            continue
        if row is None:
            continue
        [content] = contents(row, output.content)
        if content.hash == item.key.content_hash:
            return _shown(row, output.content, content.text)
        reasons.append(f"{marker.source} row {item.row} holds another content than was labelled")
    return ShownContent(problem=reasons[0] if reasons else f"{marker.source} has gone")


def _shown(row: pa.Table, content: str, text: str) -> ShownContent:
    """A text, or the turns that a conversation has."""
    if content not in row.column_names:
        return ShownContent(text)
    value = row.column(content)[0].as_py()
    kind = kind_column(content)
    if kind in row.column_names and row.column(kind)[0].as_py() == "a list":
        value = json.loads(value)
    if not isinstance(value, list):
        return ShownContent(text)
    return ShownContent(
        turns=tuple(ShownTurn(_text(t["role"]), _text(t["content"])) for t in value)
    )


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _of_input(output: ReviewedOutput, marker: ShardMarker, row: int) -> pa.Table | None:
    """One row of the labelled file; None where the file is gone."""
    fs, path = listed_file(marker.source, output.storage)
    if (now := stamp(fs, path)) is None:
        return None
    state, form = FileState(*now), format_of(marker.source)
    wanted = template_columns(output.content)
    footer = form.footer(fs, path, state, wanted)
    [schema] = form.common([footer.schema])
    group, start = _group_of(footer, row)
    tables = form.tables(
        fs,
        path,
        wanted,
        form.explicit_schema(schema),
        rows=STEP,
        groups=(group, group + 1),
        listed=state,
    )
    found = _row_of(tables, row - start)
    if found is None:
        return None
    for name, value in path_values(marker.shard):
        if name in wanted and name not in found.column_names:
            found = found.append_column(name, pa.array([value], pa.string()))
    return found


def _group_of(footer: Footer, row: int) -> tuple[int, int]:
    """The row group with a row, and the row it begins with."""
    start = 0
    for group, rows in enumerate(footer.row_groups):
        if row < start + rows:
            return group, start
        start += rows
    return max(0, len(footer.row_groups) - 1), start


def _row_of(tables: Iterator[pa.Table], row: int) -> pa.Table | None:
    for table in tables:
        if row < len(table):
            return without_views(table.slice(row, 1))
        row -= len(table)
    return None


def _of_labels(output: ReviewedOutput, marker: ShardMarker, row: int) -> pa.Table | None:
    """The same of the columns that the label file carries; None where it carries not all."""
    return label_row(output, marker.shard, row, template_columns(output.content))


def label_row(output: ReviewedOutput, shard: str, row: int, columns: list[str]) -> pa.Table | None:
    """Columns of the label row of an input row; None where there is no such row or column."""
    path = output.layout.label(shard)
    with pq.ParquetFile(RemoteFile(output.layout.fs, path)) as file:
        if not set(columns) <= set(file.schema_arrow.names):
            return None
        for group in _groups_with(file, row):
            table = file.read_row_group(group, columns=[ROW.name, *columns])
            found = table.filter(pc.equal(table.column(ROW.name), row))
            if len(found):
                return without_views(found.slice(0, 1))
    return None


def _groups_with(file: Any, row: int) -> Iterator[int]:
    """Row groups of a label file that may hold a row: they are in its order."""
    for group in range(file.num_row_groups):
        meta = file.metadata.row_group(group)
        for index in range(meta.num_columns):
            column = meta.column(index)
            if column.path_in_schema == ROW.name:
                known = column.statistics
                if known is None or not known.has_min_max or known.min <= row <= known.max:
                    yield group
                break
