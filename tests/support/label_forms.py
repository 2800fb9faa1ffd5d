"""Label files as earlier versions wrote them."""

from __future__ import annotations

import pyarrow as pa

from moderay.core.verdicts import is_decision


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
