"""Delta tables, opened to be changed, and one commit."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from moderay.core.errors import TryAgainError, UserError, first_line
from moderay.core.storage import plain_errors, shown
from moderay.corpus.tables.delta import delta_errors as plain_delta_errors
from moderay.corpus.tables.delta_store import library, storage_options
from moderay.tasks.tables.delta_schema import delta_schema, united

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

# Characters of a path that readers of the log do not find a file by.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# What a table may ask of its writers: nothing of it concerns whoever adds and removes whole files,
# or only where a property of the table switches it on.
_KNOWN_FEATURES = {
    *("appendOnly", "invariants", "timestampNtz", "checkConstraints", "generatedColumns"),
    *("changeDataFeed", "deletionVectors", "columnMapping", "identityColumns"),
    *("vacuumProtocolCheck", "v2Checkpoint", "variantType", "variantType-preview"),
}
# By property: what it makes of a commit that moderay does not do.
_PROPERTIES = {
    "delta.enableChangeDataFeed": "keeps a change data feed, which it would be missing from",
    "delta.enableRowTracking": "tracks rows, whose ids it would change",
}


class ConflictError(TryAgainError):
    """Somebody else has changed the table meanwhile."""


@dataclass(frozen=True)
class TableFile:
    """A data file of a table.

    Attributes:
        path: Below the table's folder, as the file system has it.
        size: In bytes.
        rows: How many it has; None where nothing says so.
        modified: When it was written, in milliseconds since 1970.
        partition: Values of the partition columns, as Delta writes them.
        stats: Of its columns, as `file_stats` gives them.
    """

    path: str
    size: int
    rows: int | None
    modified: int
    partition: Mapping[str, str | None] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def delta_errors(url: str) -> Iterator[None]:
    """What deltalake says of a table that cannot be read or written, as one sentence.

    Raises:
        UserError: There is no table, it is damaged, or of a version that is not known.
        ConflictError: Somebody else was faster.
        TryAgainError: The store does not answer.
    """
    library()
    from deltalake.exceptions import CommitFailedError  # noqa: PLC0415  an extra

    with plain_errors(url), plain_delta_errors(shown(url)):
        try:
            yield
        except CommitFailedError as error:
            raise ConflictError(
                f"{shown(url)}: another writer changed the table meanwhile ({first_line(error)}); "
                "nothing was changed: run the same command again"
            ) from None


def open_table(url: str, storage: Mapping[str, Any], version: int | None = None) -> DeltaTable:
    """A Delta table.

    Args:
        url: Of its folder.
        storage: The job's `storage:`.
        version: Which one; by default the last.

    Raises:
        UserError, TryAgainError: As `delta_errors` has it.
    """
    with delta_errors(url):
        uri, options = storage_options(url, storage)
        return library()(uri, version, storage_options=options)


def is_table(url: str, storage: Mapping[str, Any]) -> bool:
    """Whether there is a Delta table in a folder."""
    with delta_errors(url):
        uri, options = storage_options(url, storage)
        return library().is_deltatable(uri, storage_options=options)


def assert_changeable(table: DeltaTable, url: str) -> None:
    """Assert that whole files may be added and removed, with nothing else to be done.

    Raises:
        UserError: The table asks for something that moderay does not do.
    """
    asked = set(table.protocol().writer_features or ()) | set(
        table.protocol().reader_features or ()
    )
    if unknown := sorted(asked - _KNOWN_FEATURES):
        raise UserError(
            f"{shown(url)}: the table asks its writers for {', '.join(unknown)}, which moderay "
            "does not know: filter into another table, with --out delta://..."
        )
    properties = table.metadata().configuration
    reasons = [why for name, why in _PROPERTIES.items() if properties.get(name) == "true"]
    if properties.get("delta.columnMapping.mode", "none") != "none":
        reasons.append("maps its columns to other names")
    if any("delta.identity.start" in (each.metadata or {}) for each in table.schema().fields):
        reasons.append("has identity columns")
    if reasons:
        raise UserError(
            f"{shown(url)}: the table {' and '.join(reasons)}: filter into another table, with "
            "--out delta://..."
        )


def assert_removable(table: DeltaTable, url: str) -> None:
    """Assert that rows may be removed from a table.

    Raises:
        UserError: It only takes new ones.
    """
    if table.metadata().configuration.get("delta.appendOnly") == "true":
        raise UserError(
            f"{shown(url)}: the table only takes new rows (delta.appendOnly): filter into another "
            "table, with --out delta://..."
        )


def table_files(table: DeltaTable) -> dict[str, TableFile]:
    """The files of a table's version, by their paths."""
    actions = pa.table(table.get_add_actions(flatten=False))
    partitions: list[Mapping[str, Any]] = [{}] * len(actions)
    if "partition" in actions.column_names:
        partitions = actions.column("partition").to_pylist()
    files = (
        TableFile(unquote(path), size, rows, modified, _written(partition))
        for path, size, rows, modified, partition in zip(
            actions.column("path").to_pylist(),
            actions.column("size_bytes").to_pylist(),
            actions.column("num_records").to_pylist(),
            actions.column("modification_time").to_pylist(),
            partitions,
            strict=True,
        )
    )
    return {file.path: file for file in files}


def _written(partition: Mapping[str, Any]) -> dict[str, str | None]:
    """Partition values as a table's log has them."""
    from deltalake._util import encode_partition_value  # noqa: PLC0415  no other does it

    return {
        name: None if value is None else encode_partition_value(value)
        for name, value in partition.items()
    }


@dataclass(frozen=True)
class Change:
    """What one commit does.

    Attributes:
        add: Files that are there; one of a path that the table has takes the place of that.
        remove: Files that the table has.
        schema: Of the files that are added.
        note: What the log says of it, beside what deltalake writes.
    """

    add: Sequence[TableFile]
    remove: Sequence[TableFile]
    schema: pa.Schema
    note: Mapping[str, Any]


def widen(table: DeltaTable, url: str, schema: pa.Schema) -> pa.Schema:
    """Have a table columns of every name of a schema, those within structs included.

    Args:
        table: Which.
        url: Of its folder.
        schema: As `delta_schema` gives it.

    Returns:
        The table's schema then.

    Raises:
        UserError: It has a column of one of these names and of another type.
        ConflictError: Another writer changed it meanwhile.
    """
    before = pa.schema(table.schema().to_arrow())
    keys = set(table.metadata().partition_columns)
    own = delta_schema(pa.schema([field for field in before if field.name not in keys]), url)
    after = united([own, pa.schema([field for field in schema if field.name not in keys])], url)
    wider = [
        field
        for field in after
        if field.name not in own.names or not field.equals(own.field(field.name))
    ]
    if wider:
        with delta_errors(url):
            from deltalake import Schema  # noqa: PLC0415  an extra

            table.alter.add_columns(Schema.from_arrow(pa.schema(wider)).fields)
            table.update_incremental()
    return pa.schema([*after, *(before.field(key) for key in before.names if key in keys)])


def commit(table: DeltaTable, url: str, change: Change, checkpoint: bool = True) -> int:
    """Change a table, in one commit that is there as a whole or not at all.

    Args:
        table: As it was when it was decided what changes.
        url: Of its folder.
        change: What to do.
        checkpoint: Whether a checkpoint is made where one is due.

    Returns:
        The version that it made.

    Raises:
        ConflictError: Another writer removed one of these files, or changed the schema, since.
        UserError, TryAgainError: As `delta_errors` has it.
    """
    with delta_errors(url):
        from deltalake.transaction import (  # noqa: PLC0415
            CommitProperties,
            PostCommitHookProperties,
            RemoveAction,
        )

        now = int(time.time() * 1000)
        removals = [
            RemoveAction(file.path, True, now, file.size, dict(file.partition))
            for file in change.remove
        ]
        table.create_write_transaction(
            [*_additions(change.add, url), *removals],
            "append",
            change.schema,
            table.metadata().partition_columns,
            commit_properties=CommitProperties(custom_metadata=dict(change.note)),
            post_commithook_properties=PostCommitHookProperties(checkpoint),
        )
        table.update_incremental()
        return table.version()


def create_table(
    url: str,
    storage: Mapping[str, Any],
    change: Change,
    partition_by: Sequence[str],
    configuration: Mapping[str, str] | None = None,
) -> int:
    """Make a table of files that are there; its first version.

    Args:
        url: Of its folder.
        storage: The job's `storage:`.
        change: Whose files are added.
        partition_by: Columns that are no columns of the files.
        configuration: The table's properties.

    Raises:
        ConflictError: There is a table.
        UserError, TryAgainError: As `delta_errors` has it.
    """
    with delta_errors(url):
        from deltalake import Schema  # noqa: PLC0415  an extra
        from deltalake.transaction import (  # noqa: PLC0415
            CommitProperties,
            create_table_with_add_actions,
        )

        uri, options = storage_options(url, storage)
        create_table_with_add_actions(
            uri,
            Schema.from_arrow(change.schema),
            _additions(change.add, url),
            "error",
            list(partition_by),
            configuration=configuration,
            storage_options=options,
            commit_properties=CommitProperties(custom_metadata=dict(change.note)),
        )
        return 0


def _additions(files: Sequence[TableFile], url: str) -> list[AddAction]:
    from deltalake.transaction import AddAction  # noqa: PLC0415  an extra

    if odd := [file.path for file in files if _UNFIT.search(file.path)]:
        raise UserError(
            f"{shown(url)}: a table cannot hold {odd[0]!r}, whose name has control characters or "
            "is no text: rename the input file"
        )
    return [
        AddAction(
            file.path,
            file.size,
            dict(file.partition),
            file.modified,
            True,
            json.dumps({} if file.rows is None else {"numRecords": file.rows, **file.stats}),
        )
        for file in files
    ]
