"""The one commit with which a Delta table has what a filter kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from moderay.core.errors import UserError
from moderay.core.storage import details, file_size, remove, shown
from moderay.corpus.formats import BoundedFile
from moderay.labels.layout import each_file
from moderay.labels.reader import hive_values
from moderay.tasks.filter.kept_table import KeptTable
from moderay.tasks.filter.records import TableChange
from moderay.tasks.filter.source_table import SourceTable
from moderay.tasks.tables.delta_commit import (
    Change,
    ConflictError,
    TableFile,
    assert_changeable,
    assert_removable,
    commit,
    create_table,
    delta_errors,
    is_table,
    open_table,
    table_files,
    widen,
)
from moderay.tasks.tables.delta_schema import delta_schema, united
from moderay.tasks.tables.delta_stats import file_stats

if TYPE_CHECKING:
    from deltalake import DeltaTable

# In the log, beside a commit of a filter; its value is the rule.
NOTE = "moderay.filter"
# Operations of others that leave the rows of a table as they are.
_HARMLESS = {"SET TBLPROPERTIES", "VACUUM START", "VACUUM END", "ADD CONSTRAINT", "DROP CONSTRAINT"}


@dataclass(frozen=True)
class KeptFile:
    """What a filter kept of one input file.

    Attributes:
        source: Path of the input file; of a Delta table, below its folder.
        name: Path of the file with the kept rows below the folder of the table that they go into.
        rows: How many are kept; where none are, or in place all, there is no such file.
        input_rows: How many there were.
    """

    source: str
    name: str
    rows: int
    input_rows: int


def commit_kept(
    table: KeptTable, source: SourceTable | None, files: Sequence[KeptFile], rule: str
) -> TableChange | None:
    """Have the table hold what was kept, in one commit.

    Args:
        table: Which.
        source: The table that was filtered, as it was when that began; None for files.
        files: What was kept of it.
        rule: For the table's log.

    Returns:
        What was done; None where a table was to be made of nothing.

    Raises:
        ConflictError: Another writer changed the table meanwhile; then nothing is changed, and
            what was written for it is removed.
        UserError, TryAgainError: The table cannot be read or written.
    """
    if table.in_place:
        assert source is not None, "what is changed in place is a table"
        return _replace(table, source, files, rule)
    return _fill(table, source, files, rule)


def _replace(
    table: KeptTable, source: SourceTable, files: Sequence[KeptFile], rule: str
) -> TableChange:
    """In place of each file that loses rows one without them, or none."""
    losing = [file for file in files if file.rows < file.input_rows]
    with_rows = [file for file in losing if file.rows]
    before = source.table.version()
    url = table.layout.url
    if not losing:
        return TableChange(table=shown(url), version=before, before=before, added=0, removed=0)
    add = [
        replace(written, partition=source.files[file.source].partition)
        for file, (written, _) in zip(with_rows, _written(table, with_rows), strict=True)
    ]
    removed = [source.files[file.source] for file in losing]
    schema = pa.schema(source.table.schema().to_arrow())
    try:
        version = commit(source.table, url, Change(add, removed, schema, {NOTE: rule}))
    except ConflictError:
        _clear(table, add)
        raise
    return TableChange(
        table=shown(url), version=version, before=before, added=len(add), removed=len(removed)
    )


def _clear(table: KeptTable, files: Sequence[TableFile]) -> None:
    """Remove files that came into no version of the table."""
    there = table_files(open_table(table.layout.url, table.layout.options))
    for file in files:
        if file.path not in there:
            remove(table.layout.fs, f"{table.layout.root}/{file.path}")


def _fill(
    table: KeptTable, source: SourceTable | None, files: Sequence[KeptFile], rule: str
) -> TableChange | None:
    """A table of the kept files and no others, partitioned as the input is."""
    url, storage = table.layout.url, table.layout.options
    kept = [file for file in files if file.rows]
    partitions = _partitions(source, kept)
    written = list(_written(table, kept))
    columns = united((schema for _, schema in written), url)
    keys = [key for key in _keys(source, partitions) if source or key not in columns.names]
    wanted = {
        file.path: replace(file, partition={key: values.get(key) for key in keys})
        for (file, _), values in zip(written, partitions, strict=True)
    }
    note = {NOTE: rule}
    if not is_table(url, storage):
        if source is None and not kept:
            return None
        schema = _with_keys(columns, keys) if source is None else _with(source, columns)
        version = create_table(url, storage, Change([*wanted.values()], (), schema, note), keys)
        return TableChange(
            table=shown(url), version=version, before=None, added=len(wanted), removed=0
        )
    now = open_table(url, storage)
    assert_changeable(now, url)
    _assert_own(now, url)
    there, before = table_files(now), now.version()
    add = [file for path, file in wanted.items() if path not in there]
    gone = [file for path, file in there.items() if path not in wanted]
    version = before
    if gone:
        assert_removable(now, url)
    if add or gone:
        change = Change(add, gone, widen(now, url, columns), note)
        version = commit(now, url, change)
    return TableChange(
        table=shown(url), version=version, before=before, added=len(add), removed=len(gone)
    )


def _assert_own(table: DeltaTable, url: str) -> None:
    """Assert that nobody but filters has put rows into a table, or taken them away.

    Raises:
        UserError: Somebody has.
    """
    with delta_errors(url):
        for entry in table.history():
            if NOTE not in entry and entry.get("operation") not in _HARMLESS:
                raise UserError(
                    f"{shown(url)}: version {entry.get('version')} of the table "
                    f"({entry.get('operation')}) was not made by a filter, whose next version "
                    "would undo it: filter into another table"
                )


def _written(table: KeptTable, files: Sequence[KeptFile]) -> Iterator[tuple[TableFile, pa.Schema]]:
    """The kept files as a table has them, with their schemas."""
    fs, root = table.layout.fs, table.layout.root
    now = int(time.time() * 1000)

    def look(path: str) -> tuple[int, dict[str, Any], pa.Schema]:
        with BoundedFile(fs, path) as file:
            stats = file_stats(file.metadata)
            return file_size(details(fs, path), path), stats, file.schema_arrow

    paths = [f"{root}/{file.name}" for file in files]
    for file, (path, (size, stats, schema)) in zip(files, each_file(paths, look), strict=True):
        added = TableFile(file.name, size, file.rows, now, stats=stats)
        yield added, delta_schema(schema, path)


def _partitions(
    source: SourceTable | None, files: Sequence[KeptFile]
) -> list[Mapping[str, str | None]]:
    """Values of the partition columns for each file."""
    if source is None:
        return [hive_values(file.source) for file in files]
    return [source.files[file.source].partition for file in files]


def _keys(
    source: SourceTable | None, partitions: Sequence[Mapping[str, str | None]]
) -> Sequence[str]:
    """The partition columns: the input's, or the hive folders in which all files lie."""
    if source is not None:
        return list(source.table.metadata().partition_columns)
    each = {tuple(values) for values in partitions}
    return each.pop() if len(each) == 1 else ()


def _with_keys(columns: pa.Schema, keys: Sequence[str]) -> pa.Schema:
    return pa.schema([*columns, *(pa.field(key, pa.string()) for key in keys)])


def _with(source: SourceTable, columns: pa.Schema) -> pa.Schema:
    """The source's schema, and behind it the columns that it has not."""
    own = pa.schema(source.table.schema().to_arrow())
    return pa.schema([*own, *(field for field in columns if field.name not in own.names)])
