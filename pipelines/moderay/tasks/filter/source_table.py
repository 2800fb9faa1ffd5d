"""The Delta table that labels are of: which of its files count, and how they are to be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moderay.core.errors import UserError
from moderay.core.storage import assert_writable, listed_file, shown
from moderay.core.wording import are, counted
from moderay.corpus.tables.delta import LOG
from moderay.corpus.tables.location import parse
from moderay.labels.layout import Layout
from moderay.labels.records import ShardMarker
from moderay.tasks.filter.kept_table import KeptTable, folder_of
from moderay.tasks.filter.request import FilterRequest, Labels
from moderay.tasks.tables.delta_commit import (
    TableFile,
    assert_changeable,
    assert_removable,
    open_table,
    table_files,
)

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class SourceTable:
    """A Delta table as it was when the filter began.

    Attributes:
        layout: Of its folder.
        table: As deltalake has it.
        files: Of its version, by path below the folder.
    """

    layout: Layout
    table: DeltaTable
    files: Mapping[str, TableFile]


def source_table(
    labels: Labels, storage: Mapping[str, Any], in_place: bool = False
) -> SourceTable | None:
    """The Delta table that labels are of; None where they are of anything else.

    Args:
        labels: Of a finished run.
        storage: The job's `storage:`.
        in_place: Whether it is to be changed: then as it is now, else as it was labelled.

    Raises:
        UserError, TryAgainError: It cannot be opened.
    """
    if labels.table is None:
        return None
    table = open_table(labels.table, storage, None if in_place else labels.table_version)
    return SourceTable(Layout(labels.table, storage), table, table_files(table))


def of_snapshot(labels: Labels, source: SourceTable) -> Labels:
    """Labels without those of files that the table no longer has.

    Such a file is still there for readers of earlier versions, and its rows are in others now.
    """
    return replace(
        labels,
        markers={
            name: marker
            for name, marker in labels.markers.items()
            if path_in(source.layout, marker, labels.layout.options) in source.files
        },
    )


def path_in(layout: Layout, marker: ShardMarker, storage: Mapping[str, Any]) -> str | None:
    """Path of a labelled file below a table's folder; None where it lies elsewhere."""
    fs, path = listed_file(marker.source, storage)
    root = f"{layout.root}/"
    return path.removeprefix(root) if is_same(fs, layout.fs) and path.startswith(root) else None


def is_same(one: Any, other: Any) -> bool:
    """Whether two file systems are of one kind."""
    return type(one) is type(other)


def kept_table(
    request: FilterRequest, source: SourceTable | None, storage: Mapping[str, Any]
) -> KeptTable | None:
    """The table that kept rows go into; None for a folder."""
    beside = folder_of(request.out)
    if request.in_place:
        assert source is not None, "asserted by `assert_in_place`"
        return KeptTable(source.layout, beside, True)
    if (table := parse(request.out)) is not None:
        return KeptTable(Layout(table.url, storage), beside, False)
    return None


def assert_in_place(request: FilterRequest, labels: Labels, source: SourceTable | None) -> None:
    """Assert that a table's rows may be removed where they are.

    Args:
        request: That asks for it.
        labels: Of the table's files and no others.
        source: The table.

    Raises:
        UserError: They may not, rows of it are not judged, or the table cannot be written.
    """
    if source is None:
        raise UserError(
            "--in-place is for a job whose input.path is one Delta table, delta://...: filter "
            "anything else into a folder, with --out alone"
        )
    if parse(request.out) is not None:
        raise UserError("--in-place writes the input: --out is a folder for what is removed")
    if request.verdicts:
        raise UserError("--in-place leaves the table's columns as they are: leave --verdicts out")
    url = source.layout.url
    assert_changeable(source.table, url)
    assert_removable(source.table, url)
    if labels.is_pinned:
        raise UserError(
            f"{shown(url)}: --in-place changes the table as it is now, and input.version names "
            f"version {labels.table_version}: leave it out"
        )
    storage = labels.layout.options
    judged = {path_in(source.layout, marker, storage) for marker in labels.markers.values()}
    if left := sorted(source.files.keys() - judged):
        raise UserError(
            f"{shown(url)}: {counted(len(left), 'file')} of the table {are(len(left))} not "
            f"labelled, such as {left[0]}: run the job to its end first"
        )
    assert_writable(url, source.layout.options, LOG)
