"""A unit under every policy: prepared rows in, verdict columns out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.verdicts import (
    CONTENT_HASH,
    ROW,
    VERDICT,
    Origin,
    Status,
    Verdict,
    scattered,
    unit_schema,
    valid,
    verdict_array,
)
from moderay.engines.host import EngineHost
from moderay.judges.cascade import Cascade
from moderay.judges.settle import settle_on_engine
from moderay.pipeline.stages import prepare

# Is called with a number of questions that were answered.
Answered = Callable[[int], None]


def questions(cascades: Sequence[Cascade], table: pa.Table) -> int:
    """What is asked of a unit at most: a content under a policy is a question."""
    return prepare.open_rows(table) * len(cascades)


async def judge_unit(
    host: EngineHost,
    cascades: Sequence[Cascade],
    table: pa.Table,
    run: int,
    answered: Answered = lambda count: None,
) -> pa.Table:
    """Judge a unit: for every policy each content that is not known is asked once, all at a time.

    Args:
        host: The engine.
        cascades: The judges of each policy.
        table: Rows of `units.prepared_schema`.
        run: The number of this run.
        answered: Is called with how many of `questions` were answered since the last time.

    Returns:
        Rows of `verdicts.unit_schema`, in the same order.
    """
    columns = await asyncio.gather(
        *[_column(host, cascade, table, run, answered) for cascade in cascades]
    )
    return _unit(table, cascades, columns)


def settled_unit(cascades: Sequence[Cascade], table: pa.Table, run: int) -> pa.Table:
    """As `judge_unit`, for rows of which no engine needs to be asked."""
    columns = [_settled_column(table, cascade, run) for cascade in cascades]
    return _unit(table, cascades, columns)


def _unit(
    table: pa.Table, cascades: Sequence[Cascade], columns: Sequence[pa.StructArray]
) -> pa.Table:
    arrays = [table.column(ROW.name), table.column(CONTENT_HASH.name), *columns]
    return pa.Table.from_arrays(
        arrays, schema=unit_schema([cascade.policy.id for cascade in cascades])
    )


async def _column(
    host: EngineHost, cascade: Cascade, table: pa.Table, run: int, answered: Answered
) -> pa.StructArray:
    known = prepare.known(table, cascade.policy.id)
    audited = prepare.audited(table, cascade.policy.id)
    is_open = np.flatnonzero(~valid(known) | audited)
    rows = _OpenRows(table.take(pa.array(is_open)), known.take(pa.array(is_open)))
    answered(prepare.open_rows(table) - len(rows.first))
    verdicts = await _verdicts(host, cascade, rows, answered)
    return scattered(_numbered(known, run), verdict_array(verdicts, run), is_open)


def _settled_column(table: pa.Table, cascade: Cascade, run: int) -> pa.StructArray:
    known = prepare.known(table, cascade.policy.id)
    rest = np.flatnonzero(~valid(known))
    if not len(rest):
        return _numbered(known, run)
    rows = _OpenRows(table.take(pa.array(rest)), known.take(pa.array(rest)))
    verdicts = [verdict for index in range(len(rows)) if (verdict := rows.unasked(index))]
    return scattered(_numbered(known, run), verdict_array(verdicts, run), rest)


class _OpenRows:
    """Rows to be asked: lists, since each is a request of its own.

    Attributes:
        ids: Token ids of each.
        statuses: Why there is nothing to judge, or None.
        details: Beside a status.
        hashes: Of each content.
        earlier: The earlier judge's verdict on an audited row, or None.
        first: By question, the row that asks it.
    """

    def __init__(self, table: pa.Table, known: pa.StructArray) -> None:
        self.ids = table.column("ids").to_pylist()
        self.statuses = table.column("status").to_pylist()
        self.details = table.column("detail").to_pylist()
        self.hashes = table.column(CONTENT_HASH.name).to_pylist()
        self.earlier = [None if row is None else Verdict(**row) for row in known.to_pylist()]
        self.first: dict[tuple[str, bool], int] = {}
        for index in range(len(self)):
            if self.statuses[index] is None:
                self.first.setdefault(self.question(index), index)

    def __len__(self) -> int:
        return len(self.ids)

    def unasked(self, index: int) -> Verdict | None:
        """The verdict on a row that no engine can be asked about."""
        status = self.statuses[index]
        if status is None:
            return None
        return self.earlier[index] or Verdict(Status(status), detail=self.details[index])

    def question(self, index: int) -> tuple[str, bool]:
        """Rows of the same are asked once."""
        return self.hashes[index], self.earlier[index] is None


async def _verdicts(
    host: EngineHost, cascade: Cascade, rows: _OpenRows, answered: Answered
) -> list[Verdict]:
    async def verdict_on(index: int) -> Verdict:
        try:
            return await settle_on_engine(
                cascade, host, rows.ids[index], rows.hashes[index], rows.earlier[index]
            )
        finally:
            answered(1)

    replies = await asyncio.gather(*[verdict_on(index) for index in rows.first.values()])
    verdicts = dict(zip(rows.first, replies, strict=True))

    def verdict(index: int) -> Verdict:
        question = rows.question(index)
        is_first = rows.first[question] == index
        return verdicts[question] if is_first else _duplicate(verdicts[question])

    return [rows.unasked(index) or verdict(index) for index in range(len(rows))]


def _duplicate(verdict: Verdict) -> Verdict:
    """The same verdict for another row, which cost nothing."""
    if verdict.status is not Status.OK:
        return verdict
    return verdict._replace(origin=Origin.DUPLICATE, prompt_tokens=0, output_tokens=0)


def _numbered(known: pa.StructArray, run: int) -> pa.StructArray:
    """Known verdicts with this run's number where they have none.

    Those were made here, or in another output.
    """
    columns = [known.field(name) for name in VERDICT.names]
    index = VERDICT.get_field_index("run")
    columns[index] = pc.fill_null(columns[index], pa.scalar(run, pa.int16()))
    return pa.StructArray.from_arrays(columns, fields=list(VERDICT), mask=known.is_null())
