"""Read task -> engine actor -> driver: a unit, and how it ended.

A unit that ends before it reaches an engine carries its end with it, and the actor passes that on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from moderay.core.errors import ErrorMessage, ModerayError
from moderay.core.verdicts import CONTENT_HASH, ROW, VERDICTS
from moderay.corpus.ranges import Range
from moderay.labels.partition import Source
from moderay.pipeline.messages.ranges import RANGE, range_of, range_row

COUNTS = pa.map_(pa.string(), pa.int64())
ERROR = pa.struct([("kind", pa.string()), ("text", pa.string()), ("exit_status", pa.int16())])


def prepared_schema(policies: Sequence[str]) -> pa.Schema:
    """A unit's rows on their way to an engine, of a job with these policies' ids.

    `ids`, the content's token ids, are null where `status` says why there is nothing to judge, and
    where nobody needs to be asked. `known.POLICY` is the verdict that is there already; where it
    is, and `audited.POLICY` is true, the last judge is asked all the same.
    """
    return pa.schema(
        [
            ROW,
            CONTENT_HASH,
            pa.field("ids", pa.large_list(pa.int32())),
            pa.field("status", pa.string()),
            pa.field("detail", pa.string()),
            *[pa.field(known_column(policy), VERDICTS) for policy in policies],
            *[pa.field(audited_column(policy), pa.bool_(), nullable=False) for policy in policies],
        ]
    )


def known_column(policy: str) -> str:
    """Its name; with a dot, which no policy's id has."""
    return f"known.{policy}"


def audited_column(policy: str) -> str:
    """Its name; with a dot, which no policy's id has."""
    return f"audited.{policy}"


def golden_name(policy: str) -> str:
    """What a golden set is called where a shard's name stands."""
    return f"golden set of {policy}"


@dataclass(frozen=True)
class UnitDone:
    """How a unit ended.

    Attributes:
        shard: The shard's name.
        rows: Its rows, before any selection.
        selected: Rows that were judged or known.
        counts: By policy, of what was judged now (`decisions.summary`).
        flagged: Rows that violate any policy.
        reused: Verdicts taken from before.
        restarts: Of its engine, since the unit before.
        usage: Of its engine (`engines.usage.Usage`), since the unit before.
        error: Why it could not be read or saved, which fails its shard.
        fatal: What ends the run.
        skipped: It was not begun, since the run is stopping.
        gate: The policy of whose golden set it is; None for rows of the corpus.
    """

    shard: str
    rows: Range
    selected: int = 0
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    flagged: int = 0
    reused: int = 0
    restarts: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    fatal: ErrorMessage | None = None
    skipped: bool = False
    gate: str | None = None

    def raise_fatal(self) -> None:
        """Raises the `ModerayError` that ends the run, where this unit met it."""
        if self.fatal is not None:
            raise ModerayError.restored(self.fatal)


ENDED = pa.schema(
    [
        ("shard", pa.string()),
        ("rows", RANGE),
        ("selected", pa.int64()),
        ("counts", pa.map_(pa.string(), COUNTS)),
        ("flagged", pa.int64()),
        ("reused", pa.int64()),
        ("restarts", pa.int64()),
        ("usage", COUNTS),
        ("error", pa.string()),
        ("fatal", ERROR),
        ("skipped", pa.bool_()),
        ("gate", pa.string()),
    ]
)


def ended_table(unit: UnitDone) -> pa.Table:
    """One row of `ENDED`."""
    return pa.Table.from_pylist([_ended_row(unit)], schema=ENDED)


def units_done(table: pa.Table) -> list[UnitDone]:
    """What rows of `ENDED` say."""
    return [_unit_done(row) for row in table.to_pylist(maps_as_pydicts="strict")]


def _ended_row(unit: UnitDone) -> dict[str, object]:
    fatal = None if unit.fatal is None else unit.fatal._asdict()
    values = {name: getattr(unit, name) for name in ENDED.names}
    return values | {"rows": range_row(unit.rows), "fatal": fatal}


def _unit_done(row: dict[str, Any]) -> UnitDone:
    fatal = None if row["fatal"] is None else ErrorMessage(**row["fatal"])
    return UnitDone(**row | {"rows": range_of(row["rows"]), "fatal": fatal})


@dataclass(frozen=True)
class UnitRead:
    """A unit on its way to an engine.

    Attributes:
        source: The labels that it becomes a part of.
        rows: Its rows, before any selection.
        table: Those that are selected (`prepared_schema`); None where it has ended.
        done: How it ended, where no engine needs to see it.
        gate: The policy of whose golden set it is; None for rows of the corpus.
    """

    source: Source
    rows: Range
    table: pa.Table | None
    done: UnitDone | None = None
    gate: str | None = None


def message_schema(policies: Sequence[str]) -> pa.Schema:
    """One row of it is a `UnitRead`: either `table` or `done` is null."""
    return pa.schema(
        [
            ("shard", pa.string()),
            ("key", pa.string()),
            ("run", pa.int64()),
            ("rows", RANGE),
            ("table", pa.large_list(pa.struct(list(prepared_schema(policies))))),
            ("done", pa.struct(list(ENDED))),
            ("gate", pa.string()),
        ]
    )


def unit_table(unit: UnitRead, policies: Sequence[str]) -> pa.Table:
    """One row of `message_schema`. The unit's columns are not copied."""
    schema = message_schema(policies)
    source = unit.source
    done = None if unit.done is None else _ended_row(unit.done)
    return pa.Table.from_arrays(
        [
            pa.array([source.shard], pa.string()),
            pa.array([source.units], pa.string()),
            pa.array([source.run], pa.int64()),
            pa.array([range_row(unit.rows)], RANGE),
            _one_list(unit.table, schema.field("table").type),
            pa.array([done], schema.field("done").type),
            pa.array([unit.gate], pa.string()),
        ],
        schema=schema,
    )


def unit_read(block: pa.Table) -> UnitRead:
    """What the one row of `message_schema` says."""
    row = block.select(["shard", "key", "run", "rows", "gate"]).to_pylist()[0]
    lists = block.column("table").combine_chunks()
    done = block.column("done")[0].as_py(maps_as_pydicts="strict")
    return UnitRead(
        Source(0, row["shard"], row["key"], row["run"]),
        range_of(row["rows"]),
        pa.Table.from_struct_array(lists.flatten()) if lists.is_valid()[0].as_py() else None,
        None if done is None else _unit_done(done),
        row["gate"],
    )


def _one_list(table: pa.Table | None, kind: pa.LargeListType) -> pa.Array:
    """A list of all its rows, which are not copied where the table has one chunk."""
    if table is None:
        return pa.nulls(1, kind)
    columns = [column.combine_chunks() for column in table.columns]
    values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    return pa.LargeListArray.from_arrays(pa.array([0, len(table)], pa.int64()), values, type=kind)
