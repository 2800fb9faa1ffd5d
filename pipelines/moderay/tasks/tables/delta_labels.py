"""An output's label files as a Delta table in the output's own folder.

A label file that is written again keeps its path, and earlier versions of the table name a file
that is not there any more: their readers stop at its size. The log has no checkpoints, which are
Parquet files, and would be taken for labels by whoever reads the folder.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from moderay.core.errors import TryAgainError, UserError
from moderay.core.storage import is_local, shown
from moderay.corpus.tables.location import DELTA
from moderay.labels.layout import Layout
from moderay.tasks.tables.delta_commit import (
    Change,
    ConflictError,
    TableFile,
    assert_changeable,
    commit,
    create_table,
    is_table,
    open_table,
    table_files,
    widen,
)
from moderay.tasks.tables.delta_schema import delta_schema
from moderay.tasks.tables.label_files import LabelFiles

if TYPE_CHECKING:
    pass

# Times that other drivers may be faster.
ATTEMPTS = 20
# What the table's log says beside what deltalake writes.
NOTE = {"moderay": "label files"}
# For other writers.
_PROPERTIES = {"delta.checkpointInterval": str(10**6)}


class DeltaLabels:
    """The label files of an output, as a Delta table in its folder."""

    def __init__(self, layout: Layout) -> None:
        """Of this output."""
        self._layout = layout
        self.url = f"{DELTA}{layout.url.rstrip('/')}"

    def check(self, columns: pa.Schema) -> None:
        """Assert that it can be read and written, and hold these columns of the input.

        Raises:
            UserError: It cannot.
        """
        url, storage = self._layout.url, self._layout.options
        delta_schema(columns, url)
        if is_table(url, storage):
            assert_changeable(open_table(url, storage), url)

    def version(self) -> int | None:
        """The table's version now; None where there is none."""
        url, storage = self._layout.url, self._layout.options
        return open_table(url, storage).version() if is_table(url, storage) else None

    def bring_up(self, files: LabelFiles) -> int | None:
        """Have it hold these files and no others.

        It is held against the listing before and after every commit: of two drivers the one that
        commits last sees what the other one wrote.

        Args:
            files: What there is.

        Returns:
            The table's version; None where there is neither a label file nor a table.

        Raises:
            UserError: The table cannot hold them, or not be written.
            TryAgainError: Others were faster each time, or the store does not answer.
        """
        layout = self._layout
        for _ in range(ATTEMPTS):
            with suppress(ConflictError):
                version = self.version()
                if version is None and not files.files:
                    return None
                if version is None:
                    _create(files)
                elif (done := _brought_up(files)) is not None:
                    return done
            files = files.again()
        raise TryAgainError(
            f"{shown(layout.url)}: other writers changed its table {ATTEMPTS} times meanwhile: run "
            "the same command again"
        )


def _create(files: LabelFiles) -> None:
    url, storage = files.layout.url, files.layout.options
    schema = files.schema(list(files.files))
    keys = [key for key in files.keys if key not in schema.names]
    add = [_partitioned(file, keys) for file in files.files.values()]
    columns = pa.schema([*schema, *(pa.field(key, pa.string()) for key in keys)])
    try:
        create_table(url, storage, Change(add, (), columns, NOTE), keys, _PROPERTIES)
    except UserError:
        if not is_table(url, storage):
            raise  # else another driver was faster


def _brought_up(files: LabelFiles) -> int | None:
    """Change what of the table is not so; its version where that is nothing."""
    url = files.layout.url
    table = open_table(url, files.layout.options)
    assert_changeable(table, url)
    keys = table.metadata().partition_columns
    there = table_files(table)
    wanted = {path: _partitioned(file, keys) for path, file in files.files.items()}
    by_time = is_local(files.layout.fs)
    add = [
        file
        for path, file in wanted.items()
        if path not in there or not _is_same(file, there[path], by_time)
    ]
    remove = [file for path, file in there.items() if path not in wanted]
    if not add and not remove:
        return table.version()
    schema = widen(table, url, files.schema([file.path for file in add]))
    commit(table, url, Change(add, remove, schema, NOTE), checkpoint=False)
    return None


def _partitioned(file: TableFile, keys: list[str]) -> TableFile:
    """A file with a value of each partition column, which is none where its path says none."""
    partition = {key: file.partition.get(key) for key in keys}
    return TableFile(file.path, file.size, file.rows, file.modified, partition)


def _is_same(file: TableFile, there: TableFile, by_time: bool) -> bool:
    return (file.size, file.rows, dict(file.partition)) == (
        there.size,
        there.rows,
        dict(there.partition),
    ) and (not by_time or file.modified == there.modified)
