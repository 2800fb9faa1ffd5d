"""The table of an output's labels: made and kept up with what is published.

Label files are what is true; the table is made of them, and made again where it says something
else. `_moderay/table.json` says which table that is, so that whatever rewrites labels finds it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Literal, Protocol

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import ModerayError, Problem, UserError, first_line
from moderay.core.events import event
from moderay.core.hashing import digest
from moderay.core.records import Record
from moderay.core.storage import plain_errors, read, shown
from moderay.corpus.scan import Scan
from moderay.corpus.tables.location import parse
from moderay.labels.layout import Layout
from moderay.pipeline.check import Checked
from moderay.pipeline.outcome import Outcome
from moderay.tasks.tables.delta_labels import DeltaLabels
from moderay.tasks.tables.iceberg_labels import IcebergLabels
from moderay.tasks.tables.label_files import LabelFiles, label_files, published_names

NAME = "table.json"


class LabelTableRecord(Record):
    """`_moderay/table.json`: the table in which the labels are."""

    remedy = "delete it: the next run writes it again"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    table: str
    """`delta`: one in the output's folder. Else `iceberg://CATALOG/NAMESPACE/TABLE`."""
    listing: str = ""
    """Hash of the label files when the table was last brought up to them; empty where never."""
    table_version: int | None = None
    """The table's version, or snapshot, then."""


def table_problems(job: Job, input_: Scan) -> Iterator[Problem]:
    """What is wrong with a job's `output.table`, before anything is labelled."""
    assert job.output.table is not None, "called where it is said"
    layout = Layout(job.output.path, job.storage)
    try:
        _labels(job.output.table, layout).check(pa.schema(list(input_.columns)))
    except UserError as error:
        yield job.problem("output.table", str(error))


def with_table(checked: Checked, outcome: Outcome) -> Outcome:
    """A run's outcome with the version of its table.

    The labels are published by then: what goes wrong here is told, and ends nothing.
    """
    job = checked.job
    try:
        layout = Layout(job.output.path, job.storage)
        table = update_table(layout, job.output.table, outcome.manifest.gone)
    except ModerayError as error:
        event("table failed", logging.WARNING, error=str(error))
        return replace(outcome, table_failed=first_line(error), missed=True)
    return replace(outcome, table=table)


def update_table(
    layout: Layout, table: str | None = None, gone: Collection[str] | None = None
) -> str | None:
    """Bring the table of an output, if it has one, up to its labels.

    Args:
        layout: Of the output.
        table: The table that it is to have; by default the one that it has.
        gone: Shards that the input no longer has; by default those of the manifest, which a run
            with nothing to judge does not write again.

    Returns:
        The table, with its version; None where there is none.

    Raises:
        UserError, TryAgainError: The table cannot be read or written.
    """
    with plain_errors(layout.url):
        before = registered(layout)
        table = table or (None if before is None else before.table)
        if table is None:
            return None
        labels = _labels(table, layout)
        names = published_names(layout, gone)
        listing = digest({shard: list(name) for shard, name in names.items()})
        now = LabelTableRecord(table=table, listing=listing, table_version=labels.version())
        if now != before or now.table_version is None:
            version = labels.bring_up(label_files(layout, names, gone))
            layout.write(
                layout.private(NAME), now.model_copy(update={"table_version": version}).to_json()
            )
            now = now.model_copy(update={"table_version": version})
    return None if now.table_version is None else f"{labels.url} version {now.table_version}"


class LabelTable(Protocol):
    """A table of label files.

    Attributes:
        url: Of the table.
    """

    url: str

    def check(self, columns: pa.Schema) -> None:
        """Assert that it can be read and written, and hold these columns of the input.

        Raises:
            UserError: It cannot.
        """

    def version(self) -> int | None:
        """Its version, or snapshot, now; None where there is no table."""

    def bring_up(self, files: LabelFiles) -> int | None:
        """Have it hold these files and no others; the version then, None where there is nothing."""


def _labels(table: str, layout: Layout) -> LabelTable:
    location = parse(table)
    if location is None:
        return DeltaLabels(layout)
    return IcebergLabels(location, layout.options)


def registered(layout: Layout) -> LabelTableRecord | None:
    """Which table an output's labels are in; None where in none."""
    path = layout.private(NAME)
    data = read(layout.fs, path)
    return None if data is None else LabelTableRecord.from_json(data, shown(path))
