"""A unit under every policy: prepared rows in, verdict columns out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

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
    unit_schema,
    verdict_array,
)
from moderay.engines.host import EngineHost
from moderay.judges.cascade import Cascade
from moderay.pipeline.stages import prepare
from moderay.pipeline.stages.prepare import scattered, valid

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
    """`prepare.prepared` rows -> `verdicts.unit_schema` rows, in the same order; for every policy
    each content that is not known is asked once, all at the same time. `run`: the number of this
    run; `answered` is told how many of `questions` were.
    """
    columns = await asyncio.gather(
        *[_column(host, cascade, table, run, answered) for cascade in cascades]
    )
    return _unit(table, cascades, columns)


def settled_unit(cascades: Sequence[Cascade], table: pa.Table, run: int) -> pa.Table:
    """As `judge_unit`, for rows of which no engine needs to be asked."""
    return _unit(table, cascades, [_told(table, cascade, run) for cascade in cascades])


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
    asked = np.flatnonzero(~valid(known) | audited)
    rows = _Rows(table.take(pa.array(asked)), known.take(pa.array(asked)))
    answered(prepare.open_rows(table) - len(rows.first))
    judged = await _judged(host, cascade, rows, answered)
    return scattered(_numbered(known, run), verdict_array(judged, run), asked)


def _told(table: pa.Table, cascade: Cascade, run: int) -> pa.StructArray:
    known = prepare.known(table, cascade.policy.id)
    rest = np.flatnonzero(~valid(known))
    rows = _Rows(table.take(pa.array(rest)), known.take(pa.array(rest)))
    told = [verdict for index in range(len(rows)) if (verdict := rows.not_asked(index))]
    return scattered(_numbered(known, run), verdict_array(told, run), rest)


class _Rows:
    """Rows to be asked: lists, since each is a request of its own. `said`: what an earlier judge
    said of an audited row; `first`: by question, the row that asks it.
    """

    def __init__(self, table: pa.Table, known: pa.StructArray) -> None:
        self.ids, self.statuses, self.details, self.hashes = (
            table.column(name).to_pylist()
            for name in ("ids", "status", "detail", CONTENT_HASH.name)
        )
        self.said = [None if said is None else Verdict(**said) for said in known.to_pylist()]
        self.first: dict[tuple[str, bool], int] = {}
        for index in range(len(self)):
            if self.statuses[index] is None:
                self.first.setdefault(self.question(index), index)

    def __len__(self) -> int:
        return len(self.ids)

    def not_asked(self, index: int) -> Verdict | None:
        """The verdict on a row that no engine can be asked about."""
        status = self.statuses[index]
        return (
            None
            if status is None
            else self.said[index] or Verdict(Status(status), detail=self.details[index])
        )

    def question(self, index: int) -> tuple[str, bool]:
        """Rows of the same are asked once."""
        return self.hashes[index], self.said[index] is None


async def _judged(
    host: EngineHost, cascade: Cascade, rows: _Rows, answered: Answered
) -> list[Verdict]:
    async def verdict_on(index: int) -> Verdict:
        try:
            return await _asked(
                host, cascade, rows.ids[index], rows.hashes[index], rows.said[index]
            )
        finally:
            answered(1)

    found = await asyncio.gather(*[verdict_on(index) for index in rows.first.values()])
    verdicts = dict(zip(rows.first, found, strict=True))

    def verdict(index: int) -> Verdict:
        found = verdicts[rows.question(index)]
        return found if rows.first[rows.question(index)] == index else _duplicate(found)

    return [rows.not_asked(index) or verdict(index) for index in range(len(rows))]


def _duplicate(verdict: Verdict) -> Verdict:
    """The same verdict for another row, which cost nothing."""
    return (
        verdict._replace(origin=Origin.DUPLICATE, prompt_tokens=0, output_tokens=0)
        if verdict.status is Status.OK
        else verdict
    )


async def _asked(
    host: EngineHost, cascade: Cascade, ids: Sequence[int], content_hash: str, said: Verdict | None
) -> Verdict:
    """Down the cascade to the judge that settles it. An audited content goes on to the last one,
    whose verdict stands, with what was said before beside it; where that one fails, what was said
    before stands.
    """
    spent: list[Verdict] = []
    for judge in cascade.on_engine[:-1] if said is None else ():
        spent.append(await judge.judge(host, ids, content_hash))
        if judge.settles(spent[-1]):
            said = spent[-1]
            break
    if said is None or cascade.audited(content_hash):
        spent.append(await cascade.last.judge(host, ids, content_hash))
    verdict = spent[-1] if spent and (said is None or spent[-1].status is Status.OK) else said
    assert verdict is not None
    if said is not None and verdict is not said:
        verdict = verdict._replace(audit=_audit(cascade, said))
    return verdict._replace(
        prompt_tokens=_sum(v.prompt_tokens for v in spent),
        output_tokens=_sum(v.output_tokens for v in spent),
    )


def _sum(tokens: Iterable[int | None]) -> int | None:
    """None where no engine answered."""
    known = [count for count in tokens if count is not None]
    return sum(known) if known else None


def _audit(cascade: Cascade, settled: Verdict) -> dict[str, object]:
    probability = (
        None if settled.scores is None else cascade.last.safeguard.probability(settled.scores)
    )
    return {"judge": settled.decided_by, "probability": probability}


def _numbered(known: pa.StructArray, run: int) -> pa.StructArray:
    """Known verdicts with this run's number where they have none: they were made here, or in
    another output.
    """
    columns = [known.field(name) for name in VERDICT.names]
    at = VERDICT.get_field_index("run")
    columns[at] = pc.fill_null(columns[at], pa.scalar(run, pa.int16()))
    return pa.StructArray.from_arrays(columns, fields=list(VERDICT), mask=known.is_null())
