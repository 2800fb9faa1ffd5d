"""Read task -> engine actor -> driver: units, and how they ended.

A unit that ends before it reaches an engine carries its end with it, and the actor passes that on.
Units travel together (`stages.batches`), since each message costs the driver the same: a message is
a row with a list of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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


ENDED_TOGETHER = pa.schema([("units", pa.list_(pa.struct(list(ENDED))))])


def ended_table(units: Sequence[UnitDone]) -> pa.Table:
    """One row of `ENDED_TOGETHER`."""
    row = {"units": [_ended_row(unit) for unit in units]}
    return pa.Table.from_pylist([row], schema=ENDED_TOGETHER)


def units_done(table: pa.Table) -> list[UnitDone]:
    """What rows of `ENDED_TOGETHER` say."""
    rows = table.to_pylist(maps_as_pydicts="strict")
    return [_unit_done(unit) for row in rows for unit in row["units"]]


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


def first_asked(units: Sequence[UnitRead]) -> tuple[str, Range] | None:
    """What units that travel together go by: the first that an engine has to see; None without."""
    return next(((unit.source.shard, unit.rows) for unit in units if unit.table is not None), None)


def message_schema(policies: Sequence[str]) -> pa.Schema:
    """One row of it is a list of `UnitRead`; of each, either `table` or `done` is null."""
    unit = pa.struct(
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
    return pa.schema([("units", pa.large_list(unit))])


def unit_table(units: Sequence[UnitRead], policies: Sequence[str]) -> pa.Table:
    """One row of `message_schema`. The columns of a unit that travels alone are not copied."""
    schema = message_schema(policies)
    kind: pa.LargeListType = schema.field("units").type
    dones = [None if unit.done is None else _ended_row(unit.done) for unit in units]
    columns = [
        pa.array([unit.source.shard for unit in units], pa.string()),
        pa.array([unit.source.units for unit in units], pa.string()),
        pa.array([unit.source.run for unit in units], pa.int64()),
        pa.array([range_row(unit.rows) for unit in units], RANGE),
        _lists([unit.table for unit in units], kind.value_type.field("table").type),
        pa.array(dones, kind.value_type.field("done").type),
        pa.array([unit.gate for unit in units], pa.string()),
    ]
    structs = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    offsets = pa.array([0, len(units)], pa.int64())
    return pa.table([pa.LargeListArray.from_arrays(offsets, structs, type=kind)], schema=schema)


def units_read(block: pa.Table) -> list[UnitRead]:
    """What the one row of `message_schema` says."""
    units = block.column("units").combine_chunks().flatten()
    plain = ["shard", "key", "run", "rows", "gate"]
    rows = pa.table([units.field(name) for name in plain], plain).to_pylist()
    tables, dones = units.field("table"), units.field("done")
    return [
        UnitRead(
            Source(0, row["shard"], row["key"], row["run"]),
            range_of(row["rows"]),
            pa.Table.from_struct_array(table.values) if table.is_valid else None,
            _unit_done(done.as_py(maps_as_pydicts="strict")) if done.is_valid else None,
            row["gate"],
        )
        for row, table, done in zip(rows, tables, dones, strict=True)
    ]


def _lists(tables: Sequence[pa.Table | None], kind: pa.LargeListType) -> pa.Array:
    """A list of the rows of each; they are not copied where there is one table of one chunk."""
    given = [table for table in tables if table is not None]
    columns = (
        [column.combine_chunks() for column in pa.concat_tables(given).columns]
        if given
        else [pa.array([], field.type) for field in kind.value_type]
    )
    values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    ends = np.cumsum([0, *[0 if table is None else len(table) for table in tables]])
    mask = pa.array([table is None for table in tables])
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), values, type=kind, mask=mask)
