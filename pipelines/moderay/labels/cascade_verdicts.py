"""What the cascade itself said of rows, where a person has overruled it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.verdicts import HUMAN, judged_field

OVERRULED = "overruled"
# Of a decision, and of what was overruled; beside `decided_by`.
_FIELDS = ("status", "violates", "label", "probability", "rationale")


def columns_of_cascade(file: pq.ParquetFile, policy: str, fields: Sequence[str]) -> list[str]:
    """What to read of a policy's column for `of_cascade`.

    Args:
        file: A label file; one that was written before anybody could overrule will do.
        policy: Id.
        fields: Some of status, violates, label, probability, rationale.
    """
    kind = file.schema_arrow.field(policy).type
    inner = [*fields, "trace.decided_by"]
    if kind.field("trace").type.get_field_index(OVERRULED) >= 0:
        inner += [f"trace.{OVERRULED}.{name}" for name in (*fields, "decided_by")]
    return [f"{policy}.{name}" for name in inner]


def of_cascade(decisions: pa.StructArray) -> pa.StructArray:
    """Decisions as they were before people had a say: null throughout where nothing was said.

    Args:
        decisions: As a label file has them, with `trace.decided_by` and any of status, violates,
            label, probability, rationale.

    Returns:
        The same rows with these fields, and a trace of `decided_by` alone.
    """
    names = [field.name for field in decisions.type if field.name in _FIELDS]
    decided_by = judged_field(decisions, "decided_by")
    # Where a person alone was asked, the judged fields are the person's.
    judged = pc.fill_null(pc.not_equal(decided_by, HUMAN), True)
    columns = [pc.if_else(judged, judged_field(decisions, name), None) for name in names]
    decided_by = pc.if_else(judged, decided_by, None)
    nested = pa.StructArray.from_arrays([decided_by], names=["decided_by"])
    return pa.StructArray.from_arrays([*columns, nested], names=[*names, "trace"])


def decision_of_cascade(decision: Mapping[str, Any]) -> dict[str, Any]:
    """As `of_cascade`, of one row as Python has it, with all its other fields."""
    nested = decision["trace"]
    if nested["decided_by"] != HUMAN:
        return dict(decision)
    before = nested.get(OVERRULED) or dict.fromkeys((*_FIELDS, "decided_by"))
    said = {name: before[name] for name in _FIELDS}
    return {**decision, **said, "trace": {**nested, "decided_by": before["decided_by"]}}
