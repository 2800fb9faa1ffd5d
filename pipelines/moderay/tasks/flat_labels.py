"""`moderay labels OUTPUT`: a row for each label row and policy, with what people look for in it.

Shard after shard and batch after batch: memory does not grow with the output.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import UserError, first_line, nearest
from moderay.core.sql.refusal import EACH_ROW
from moderay.core.sql.row_expression import POLARS_ERRORS, RowExpression, row_expression
from moderay.core.storage import RemoteFile, plain_errors
from moderay.core.verdicts import FLAGGED, LABEL, PROBABILITY, ROW, VERDICT, VIOLATES
from moderay.labels.layout import Layout
from moderay.labels.manifest_store import read_manifest
from moderay.labels.reader import published_shards
from moderay.tasks.parquet_file import whole_parquet

# Label rows of a batch: few, since a carried text may be long.
BATCH_ROWS = 4096

FILE = pa.field("file", pa.string(), nullable=False)
POLICY = pa.field("policy", pa.string(), nullable=False)
TITLE = pa.field("title", pa.string())
# The fields of a policy's column, with the label's title behind the label.
_READ = [VERDICT.field("status"), VIOLATES, LABEL, PROBABILITY, VERDICT.field("rationale")]
VERDICT_FIELDS = (POLICY, *_READ[:3], TITLE, *_READ[3:])


@dataclass(frozen=True)
class FlatLabels:
    """The labels of an output, a row for each row and policy.

    Attributes:
        layout: Of the output.
        shards: Published ones, in order.
        schema: Of the rows.
        titles: By policy and label.
        columns: Of the input, which the label files carry.
        flagged: Whether only what violates a policy is taken.
        where: A condition on a row; None takes all.
    """

    layout: Layout
    shards: Sequence[str]
    schema: pa.Schema
    titles: Mapping[str, Mapping[str, str]]
    columns: tuple[str, ...]
    flagged: bool
    where: RowExpression | None

    def batches(self) -> Iterator[pa.Table]:
        """The rows: of each label row its policies, one after the other."""
        with plain_errors(self.layout.url):
            for shard in self.shards:
                for table in self._flattened(shard):
                    if len(chosen := self._chosen(table)):
                        yield chosen

    def _flattened(self, shard: str) -> Iterator[pa.Table]:
        path = self.layout.label(shard)
        with pq.ParquetFile(RemoteFile(self.layout.fs, path), pre_buffer=True) as file:
            policies = policies_of(file.schema_arrow)
            inner = [f"{policy}.{field.name}" for policy in policies for field in _READ]
            wanted = [ROW.name, *self.columns, *inner]
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                yield self._flat(shard, pa.Table.from_batches([batch]), policies)

    def _flat(self, shard: str, rows: pa.Table, policies: Sequence[str]) -> pa.Table:
        """Columns of all policies, in the order of rows and then of policies."""
        parts = [self._of_policy(shard, rows, policy) for policy in policies]
        places = np.arange(len(rows) * len(policies)).reshape(len(policies), len(rows))
        return pa.concat_tables(parts).take(pa.array(places.T.ravel()))

    def _of_policy(self, shard: str, rows: pa.Table, policy: str) -> pa.Table:
        verdicts = rows.column(policy).combine_chunks()
        titles = self.titles.get(policy, {})
        label = verdicts.field("label")
        known = pa.array(list(titles), pa.string())
        named = pa.array([title or None for title in titles.values()], pa.string())
        values = {
            FILE.name: pa.repeat(shard, len(rows)),
            POLICY.name: pa.repeat(policy, len(rows)),
            TITLE.name: named.take(pc.index_in(label, known)),
            **{field.name: verdicts.field(field.name) for field in _READ},
            **{name: rows.column(name) for name in (ROW.name, *self.columns)},
        }
        return pa.table([values[name] for name in self.schema.names], schema=self.schema)

    def _chosen(self, table: pa.Table) -> pa.Table:
        if self.flagged:
            table = table.filter(table.column("violates"))
        if self.where is not None and len(table):
            table = table.filter(self.where.values(table).to_arrow())
        return table


def policies_of(schema: pa.Schema) -> list[str]:
    """The policies of a label file."""
    return list(schema.names[schema.get_field_index(FLAGGED.name) + 1 :])


def flat_labels(
    url: str,
    storage: Mapping[str, Any],
    columns: Sequence[str] = (),
    flagged: bool = False,
    where: str | None = None,
) -> FlatLabels:
    """The labels of an output, to be read batch by batch.

    Args:
        url: Of the output.
        storage: Options of its storage.
        columns: Of the input, which the label files carry.
        flagged: Take only what violates a policy.
        where: A condition on a row of the result, in the SQL that `input.where` takes.

    Raises:
        UserError: There are no labels, no such columns, or it is no such condition.
    """
    layout = Layout(url, storage)
    shards = published_shards(layout)
    with plain_errors(url):
        manifest = read_manifest(layout)
        path = layout.label(shards[0])
        with pq.ParquetFile(RemoteFile(layout.fs, path)) as file:
            carried = _carried(file.schema_arrow, columns)
    schema = pa.schema([FILE, ROW, *carried, *VERDICT_FIELDS])
    titles = (
        {name: policy.label_titles for name, policy in manifest.policies.items()}
        if manifest is not None
        else {}
    )
    condition = None if where is None else _condition(where, schema)
    return FlatLabels(layout, shards, schema, titles, tuple(columns), flagged, condition)


def _carried(schema: pa.Schema, columns: Sequence[str]) -> list[pa.Field]:
    own = {FILE.name, *(field.name for field in VERDICT_FIELDS)}
    there = schema.names[: schema.get_field_index(ROW.name)]
    for name in columns:
        if name not in there:
            raise UserError(
                f"--column {name}: the labels carry no such column: {_hint(name, there)}"
            )
        if name in own:
            raise UserError(f"--column {name}: the result has a column of this name of its own")
    return [schema.field(name) for name in columns]


def _hint(name: str, there: Sequence[str]) -> str:
    return nearest(name, there) if there else "there is none (output.columns in the job)"


def _condition(where: str, schema: pa.Schema) -> RowExpression:
    """The condition, if it is one on rows of this schema."""
    expression = row_expression(where)
    for name in expression.columns:
        if name not in schema.names:
            raise UserError(f"--where: no column {name!r}: {nearest(name, schema.names)}")
    try:
        kind = expression.kind(schema)
    except POLARS_ERRORS as error:
        raise UserError(f"--where: {first_line(error)}") from None
    if kind != pl.Boolean:
        raise UserError(f"--where gives {kind.base_type()}: {EACH_ROW}")
    return expression


def write_flat_parquet(labels: FlatLabels, file: Path) -> int:
    """Write the rows into one file, which appears when it is whole.

    Returns:
        The rows.

    Raises:
        UserError: The file would lie among the labels.
    """
    rows = 0
    with whole_parquet(file, labels.schema, [labels.layout]) as writer:
        for table in labels.batches():
            writer.write_table(table)
            rows += len(table)
    return rows


def csv_lines(labels: FlatLabels) -> Iterator[str]:
    """The rows as CSV with a header, some thousand at a time; null is an empty field.

    Raises:
        UserError: CSV cannot hold a column.
    """
    for field in labels.schema:
        kind = field.type
        if pa.types.is_nested(kind) or pa.types.is_duration(kind) or _holds_bytes(kind):
            raise UserError(f"--column {field.name} is {kind}, which CSV cannot hold: --parquet")
    yield _frame(labels.schema.empty_table()).write_csv()
    for table in labels.batches():
        lines = io.BytesIO()
        _frame(table).write_csv(lines, include_header=False)
        yield _text(lines)


def json_lines(labels: FlatLabels) -> Iterator[str]:
    """The rows as JSON lines, some thousand at a time.

    Raises:
        UserError: A column holds bytes.
    """
    for field in labels.schema:
        if _holds_bytes(field.type):
            raise UserError(f"--column {field.name} is {field.type}: bytes go --parquet alone")
    for table in labels.batches():
        lines = io.BytesIO()
        _frame(table).write_ndjson(lines)
        yield _text(lines)


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether it is bytes, or something in it is."""
    return "binary" in str(kind)


def _text(lines: io.BytesIO) -> str:
    """What is no UTF-8 in a carried column is shown as such."""
    return lines.getvalue().decode("utf-8", "replace")


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
