"""The rows in which two outputs differ, with what both say of them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.verdicts import CONTENT_HASH, ROW, structs, trace
from moderay.labels.analysis.diff import changed, largest_change
from moderay.tasks.diff.pairs import Pairs

# What is told of either output; by these names with `_a` or `_b` behind them.
SAID = (
    pa.field("violates", pa.bool_()),
    pa.field("label", pa.string()),
    pa.field("probability", pa.float32()),
    pa.field("rationale", pa.string()),
    pa.field("decided_by", pa.string()),
)


def flips_schema(carried: Sequence[pa.Field]) -> pa.Schema:
    """Of flips: where they are, the carried columns of output a, and what both say."""
    return pa.schema(
        [
            pa.field("policy", pa.string(), nullable=False),
            pa.field("file", pa.string(), nullable=False),
            ROW,
            CONTENT_HASH,
            *carried,
            *[field.with_name(f"{field.name}_{side}") for field in SAID for side in "ab"],
        ]
    )


def flips(pairs: Pairs, policy: str, schema: pa.Schema) -> pa.Table:
    """The rows that both judged, and not alike: another label, or another decision.

    Args:
        pairs: Rows of both outputs.
        policy: Under which they are compared.
        schema: Of `flips_schema`.
    """
    differ = pa.array(changed(*[structs(table.column(policy)) for table in (pairs.a, pairs.b)]))
    a, b = pairs.a.filter(differ), pairs.b.filter(differ)
    values = {name: a.column(name) for name in a.schema.names if name != policy}
    values |= {"policy": pa.repeat(policy, len(a)), "file": pa.repeat(pairs.shard, len(a))}
    for side, table in zip("ab", (a, b), strict=True):
        decisions = structs(table.column(policy))
        judged_by = trace(decisions, "decided_by")
        for field in SAID:
            said = judged_by if field.name == "decided_by" else decisions.field(field.name)
            values[f"{field.name}_{side}"] = said
    return pa.table([values[name] for name in schema.names], schema=schema)


class LargestChanges:
    """The flips of one policy that a person should see first."""

    def __init__(self, most: int, schema: pa.Schema) -> None:
        """None were seen; `most` are kept."""
        self._most = most
        self.rows = schema.empty_table()

    def add(self, flipped: pa.Table) -> None:
        """See more of them."""
        together = pa.concat_tables([self.rows, flipped])
        order = largest_change(_side(together, "a"), _side(together, "b"))[: self._most]
        self.rows = together.take(pa.array(order))


def _side(flipped: pa.Table, side: str) -> pa.StructArray:
    """What one output says, as a decision has it."""
    names = ("violates", "label", "probability")
    columns = [flipped.column(f"{name}_{side}").combine_chunks() for name in names]
    return pc.make_struct(*columns, field_names=names)
