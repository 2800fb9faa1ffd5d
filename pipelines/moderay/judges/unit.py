"""A unit under every policy: prepared rows in, verdict columns out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from moderay.engines.host import EngineHost
from moderay.judges.reason import Reason
from moderay.records import CONTENT_HASH, ROW, Status, Verdict, structs, unit_schema, verdict_array


def earlier_column(policy: str) -> str:
    """The column of a prepared unit that holds a policy's earlier verdicts; with a dot, which no policy id has."""
    return f"earlier.{policy}"


async def judge_unit(host: EngineHost, judges: Sequence[Reason], table: pa.Table, run: int) -> pa.Table:
    """`units.PREPARED` rows, with earlier verdicts or without -> `records.unit_schema` rows, in the same order; every row
    and policy that has no earlier verdict is asked at once."""
    columns = await asyncio.gather(*[_column(host, judge, table, run) for judge in judges])
    arrays = [table.column(ROW.name), table.column(CONTENT_HASH.name), *columns]
    return pa.Table.from_arrays(arrays, schema=unit_schema([judge.policy.id for judge in judges]))


async def _column(host: EngineHost, judge: Reason, table: pa.Table, run: int) -> pa.StructArray:
    name = earlier_column(judge.policy.id)
    earlier = structs(table.column(name)) if name in table.column_names else None
    new = np.arange(len(table)) if earlier is None else np.flatnonzero(earlier.is_null().to_numpy(zero_copy_only=False))
    judged = verdict_array(await _judged(host, judge, table.take(pa.array(new))), run)
    return judged if earlier is None else _merged(earlier, judged, new)


async def _judged(host: EngineHost, judge: Reason, table: pa.Table) -> list[Verdict]:
    ids, statuses, details, hashes = (table.column(name).to_pylist() for name in ("ids", "status", "detail", CONTENT_HASH.name))

    async def row(index: int) -> Verdict:
        if statuses[index] is not None:
            return Verdict(Status(statuses[index]), detail=details[index])
        return await judge.judge(host, ids[index], hashes[index])

    return list(await asyncio.gather(*[row(index) for index in range(table.num_rows)]))


def _merged(earlier: pa.StructArray, judged: pa.StructArray, new: np.ndarray) -> pa.StructArray:
    """Earlier verdicts with the rows `new` replaced."""
    at = np.arange(len(earlier))
    at[new] = len(earlier) + np.arange(len(new))
    return pa.concat_arrays([earlier, judged]).take(pa.array(at))
