"""Label files as earlier versions wrote them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.storage import size_and_version
from moderay.core.verdicts import is_decision
from moderay.labels.label_file import local_digest
from moderay.labels.layout import Layout, list_state, marker_name, read_markers
from moderay.labels.records import WrittenFile


def in_former_form(decisions: pa.StructArray) -> pa.StructArray:
    """Decisions without `trace.overruled`, which they had not before people's answers counted."""
    traced = decisions.field("trace")
    kept = [field for field in traced.type if field.name != "overruled"]
    trace = pa.StructArray.from_arrays([traced.field(f.name) for f in kept], fields=kept)
    fields = [
        pa.field("trace", trace.type, nullable=False) if field.name == "trace" else field
        for field in decisions.type
    ]
    columns = [trace if f.name == "trace" else decisions.field(f.name) for f in decisions.type]
    return pa.StructArray.from_arrays(columns, fields=fields)


def table_in_former_form(labels: pa.Table) -> pa.Table:
    """A label file's rows as they were written before."""
    for number, field in enumerate(labels.schema):
        if is_decision(field.type):
            column = in_former_form(labels.column(number).combine_chunks())
            kept = pa.field(field.name, column.type, nullable=field.nullable)
            labels = labels.set_column(number, kept, column)
    return labels


def as_before(layout: Layout, shard: str) -> None:
    """Have a published shard's label file and marker be as an earlier version left them."""
    path = Path(layout.label(shard))
    (name,) = list_state(layout).markers[shard]
    (marker,) = read_markers(layout, [layout.marker(shard, name)])
    metadata = pq.read_schema(path).metadata
    table = table_in_former_form(pq.read_table(path, partitioning=None))
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=16)
    stamp = size_and_version(layout.fs, str(path))
    assert stamp is not None
    file = WrittenFile(size=stamp[0], version=stamp[1], digest=local_digest(path))
    moved = marker.model_copy(update={"label_file": file})
    new = marker_name(moved, name.key, name.decision)
    layout.create(layout.marker(shard, new), moved.to_json())
    Path(layout.marker(shard, name)).unlink()
