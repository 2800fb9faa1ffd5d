"""A label file decided again: what cannot change in it is copied as it lies there, undecoded.

Carried columns, hashes and reasoning are most of a label file, and no threshold and nobody's answer
changes them. Of each row group the columns that may change are read and counted, and written where
they have changed; all others are copied chunk by chunk.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.decision_rule import DecisionRule
from moderay.core.parquet_chunks import Chunks, Splice
from moderay.core.storage import is_local, patiently
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, ROW, TRACE, decision_type, structs, trace
from moderay.labels.decisions import flagged, struct_of
from moderay.labels.shard_tally import ShardTally

# Of a decision, what stays as it is whoever decides, and under whichever threshold. The reasoning
# is not even read; the others are counted.
_UNREAD = ("reasoning",)
_SAME_TRACE = ("origin", "forced", "run", "windows", "prompt_tokens", "output_tokens", "detail")

# Gives decisions as they are now: those that it is given, where nothing has changed.
Redecide = Callable[[DecisionRule, pa.StructArray, pa.StringArray], pa.StructArray]


class LabelSplice:
    """One label file on its way to another one."""

    def __init__(self, source: Path, schema: pa.Schema, rules: Sequence[DecisionRule]) -> None:
        """Look at a label file.

        Args:
            source: The file.
            schema: Of the new one, with its metadata; the same columns.
            rules: Of its policies.

        Raises:
            NotSplicedError: Its chunks cannot be copied: it must be written anew.
        """
        self._source, self._rules = source, tuple(rules)
        self._like = Chunks.of(_written(schema.empty_table()))
        with source.open("rb") as file:
            Chunks.of(file).assert_fits(self._like)

    def write(self, out: Path, redecide: Redecide, tally: ShardTally) -> None:
        """Write the new file.

        Args:
            out: The file.
            redecide: How a batch of decisions of one policy becomes what it is now.
            tally: Counts all rows.

        Raises:
            pa.ArrowException: The source is broken.
            OSError: It cannot be read, or the new file not be written.
        """
        with (
            self._source.open("rb") as file,
            out.open("wb") as target,
            pq.ParquetFile(self._source, pre_buffer=False) as labels,
        ):
            chunks, splice = Chunks.of(file), Splice(target, self._like)
            for group in range(labels.num_row_groups):
                table = labels.read_row_group(group, columns=self._columns, use_threads=False)
                patch = self._patch(table, redecide, tally)
                splice.add(chunks, group, None if patch is None else Chunks.of(_written(patch)))
            splice.close()

    @property
    def _columns(self) -> list[str]:
        """What is read of a label file."""
        fields = [field.name for field in decision_type(()) if field.name not in _UNREAD]
        return [
            *(ROW.name, CONTENT_HASH.name, FLAGGED.name),
            *[f"{rule.policy}.{name}" for rule in self._rules for name in fields],
        ]

    def _patch(self, table: pa.Table, redecide: Redecide, tally: ShardTally) -> pa.Table | None:
        """The columns of a row group that have changed; None where none has."""
        hashes = structs(table.column(CONTENT_HASH.name))
        before = {
            rule.policy: _whole(structs(table.column(rule.policy)), rule) for rule in self._rules
        }
        after = {rule.policy: redecide(rule, before[rule.policy], hashes) for rule in self._rules}
        changed = [name for name, column in after.items() if column is not before[name]]
        flags = flagged(list(after.values())) if changed else table.column(FLAGGED.name)
        kept = {name: table.column(name) for name in (ROW.name, CONTENT_HASH.name)}
        tally.add(pa.table({**kept, FLAGGED.name: flags, **after}))
        if not changed:
            return None
        columns = [flags, *[_changing(after[name]) for name in changed]]
        fields = [
            FLAGGED,
            *[
                pa.field(name, column.type, nullable=False)
                for name, column in zip(changed, columns[1:], strict=True)
            ],
        ]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _whole(decisions: pa.StructArray, rule: DecisionRule) -> pa.StructArray:
    """Decisions with nulls for what was not read."""
    kind = decision_type(rule.labels)
    return struct_of(
        kind,
        {
            field.name: pa.nulls(len(decisions), field.type)
            if field.name in _UNREAD
            else decisions.field(field.name)
            for field in kind
        },
    )


def _changing(decisions: pa.StructArray) -> pa.StructArray:
    """Decisions without what stays as it is."""
    traced = pa.struct([field for field in TRACE if field.name not in _SAME_TRACE])
    columns: dict[str, pa.Array] = {
        field.name: decisions.field(field.name)
        for field in decisions.type
        if field.name not in _UNREAD
    }
    columns["trace"] = struct_of(
        traced, {field.name: trace(decisions, field.name) for field in traced}
    )
    kept = [
        pa.field("trace", traced, nullable=False) if field.name == "trace" else field
        for field in decisions.type
        if field.name in columns
    ]
    return struct_of(pa.struct(kept), columns)


def _written(table: pa.Table) -> io.BytesIO:
    """Rows as a Parquet file of one row group; of none, without one."""
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema, compression="zstd") as writer:
        if len(table):
            writer.write_table(table, row_group_size=len(table))
    return out


def local_copy(fs: Any, path: str, folder: Path) -> Path:
    """A file on this machine: itself, or a copy in this folder."""
    if is_local(fs):
        return Path(path)
    copy = folder / "before.parquet"
    patiently(fs, lambda: fs.get_file(path, str(copy)))
    return copy
