"""A unit under every policy: prepared rows in, verdict columns out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pyarrow as pa

from moderay.engines.host import EngineHost
from moderay.judges.reason import Reason
from moderay.records import CONTENT_HASH, ROW, Status, Verdict, unit_schema, verdict_array


async def judge_unit(host: EngineHost, judges: Sequence[Reason], table: pa.Table, run: int) -> pa.Table:
    """`units.PREPARED` rows -> `records.unit_schema` rows, in the same order; every row and policy is asked at once."""
    columns = await asyncio.gather(*[_column(host, judge, table) for judge in judges])
    arrays = [table.column(ROW.name), table.column(CONTENT_HASH.name), *[verdict_array(column, run) for column in columns]]
    return pa.Table.from_arrays(arrays, schema=unit_schema([judge.policy.id for judge in judges]))


async def _column(host: EngineHost, judge: Reason, table: pa.Table) -> list[Verdict]:
    ids, statuses, details, hashes = (table.column(name).to_pylist() for name in ("ids", "status", "detail", CONTENT_HASH.name))

    async def row(index: int) -> Verdict:
        if statuses[index] is not None:
            return Verdict(Status(statuses[index]), detail=details[index])
        return await judge.judge(host, ids[index], hashes[index])

    return list(await asyncio.gather(*[row(index) for index in range(table.num_rows)]))
