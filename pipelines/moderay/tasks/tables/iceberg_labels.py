"""An output's label files in an Iceberg table, which a catalog keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from moderay.core.errors import TryAgainError
from moderay.core.storage import is_local, plain_errors
from moderay.corpus.tables.iceberg import iceberg_errors, open_catalog
from moderay.corpus.tables.location import ICEBERG, TableUrl
from moderay.tasks.tables.delta_commit import TableFile
from moderay.tasks.tables.delta_schema import delta_schema
from moderay.tasks.tables.label_files import LabelFiles

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table, Transaction

# Times that other drivers may be faster.
ATTEMPTS = 20


class _ChangedMeanwhileError(TryAgainError):
    """Another writer has committed to the table since it was read."""


@contextmanager
def _errors(url: str, table: TableUrl) -> Iterator[None]:
    """As `iceberg_errors`; a commit that another writer was faster with is `_ChangedMeanwhile`."""
    with plain_errors(url), iceberg_errors(url, table):
        try:
            yield
        except Exception as error:
            if type(error).__name__ != "CommitFailedException":  # pyiceberg need not be there
                raise
            raise _ChangedMeanwhileError(f"{url}: another writer changed it meanwhile") from error


class IcebergLabels:
    """The label files of an output, in an Iceberg table."""

    def __init__(self, location: TableUrl, storage: Mapping[str, Any]) -> None:
        """In this table; `storage` is the job's."""
        self._location = location
        self._storage = storage
        self._identifier = (*location.namespace, location.table)
        self.url = ICEBERG + "/".join((location.catalog, *self._identifier))

    def check(self, columns: pa.Schema) -> None:
        """Assert that it can be read and written, and hold these columns of the input.

        Raises:
            UserError: It cannot.
        """
        delta_schema(columns, self.url)
        self.version()

    def version(self) -> int | None:
        """The snapshot that counts now; None where there is none."""
        with _errors(self.url, self._location):
            catalog = self._catalog()
            if not catalog.table_exists(self._identifier):
                return None
            return _snapshot(catalog.load_table(self._identifier))

    def bring_up(self, files: LabelFiles) -> int | None:
        """Have it hold these files and no others.

        Args:
            files: What there is.

        Returns:
            The snapshot then; None where there is neither a label file nor a table.

        Raises:
            UserError: The table cannot hold them, or not be written.
            TryAgainError: Others were faster each time, or the store does not answer.
        """
        for _ in range(ATTEMPTS):
            try:
                with _errors(self.url, self._location):
                    table = self._table(files)
                    if table is None or not _changed(table, files):
                        return None if table is None else _snapshot(table)
            except _ChangedMeanwhileError:
                pass
            files = files.again()
        raise TryAgainError(
            f"{self.url}: other writers changed it {ATTEMPTS} times meanwhile: run the same "
            "command again"
        )

    def _catalog(self) -> Catalog:
        return open_catalog(self._location.catalog, self._storage)

    def _table(self, files: LabelFiles) -> Table | None:
        """The table, made where there is none and something to be in it."""
        catalog = self._catalog()
        if catalog.table_exists(self._identifier):
            return catalog.load_table(self._identifier)
        if not files.files:
            return None
        catalog.create_namespace_if_not_exists(self._identifier[:-1])
        schema = files.schema(list(files.files))
        return catalog.create_table_if_not_exists(self._identifier, schema)


def _snapshot(table: Table) -> int | None:
    now = table.current_snapshot()
    return None if now is None else now.snapshot_id


def _changed(table: Table, files: LabelFiles) -> bool:
    """Change what of a table is not so, in one commit; whether there was anything."""
    there = {task.file.file_path: task.file for task in table.scan().plan_files()}
    wanted = {_location(files, path): file for path, file in files.files.items()}
    new = [path for path, file in wanted.items() if not _is_same(file, there.get(path))]
    old = [path for path in there if path not in wanted or path in set(new)]
    if not new and not old:
        return False
    with table.transaction() as transaction:
        if new:
            _widen(transaction, files.schema([wanted[path].path for path in new]))
        _swap(transaction, [there[path] for path in old], new)
    if set(old) & set(new):
        # Of files in whose place others are, earlier snapshots would read those.
        now = _snapshot(table)
        before = [each.snapshot_id for each in table.snapshots() if each.snapshot_id != now]
        table.maintenance.expire_snapshots().by_ids(before).commit()
    return True


def _location(files: LabelFiles, path: str) -> str:
    layout = files.layout
    place = layout.label(path)
    return place if is_local(layout.fs) else str(layout.fs.unstrip_protocol(place))


def _is_same(file: TableFile, there: DataFile | None) -> bool:
    return there is not None and (file.size, file.rows) == (
        there.file_size_in_bytes,
        there.record_count,
    )


def _widen(transaction: Transaction, schema: pa.Schema) -> None:
    """Have the table's schema every column of new files, and find columns by their names."""
    from pyiceberg.table import TableProperties  # noqa: PLC0415  an extra

    with transaction.update_schema() as update:
        update.union_by_name(schema)
    names = transaction.table_metadata.schema().name_mapping.model_dump_json()
    transaction.set_properties({TableProperties.DEFAULT_NAME_MAPPING: names})


def _swap(transaction: Transaction, old: Sequence[DataFile], new: Sequence[str]) -> None:
    from pyiceberg.table import _parquet_files_to_data_files  # noqa: PLC0415

    added = _parquet_files_to_data_files(
        transaction.table_metadata, list(new), transaction._table.io
    )
    snapshot = transaction.update_snapshot(snapshot_properties={"moderay": "label files"})
    producer = snapshot.overwrite() if old else snapshot.fast_append()
    with producer:
        for file in old:
            producer.delete_data_file(file)
        for file in added:
            producer.append_data_file(file)
