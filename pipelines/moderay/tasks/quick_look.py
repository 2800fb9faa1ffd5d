"""A few rows judged in this process, without an output and without Ray: for a quick look."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from moderay.config.job import Job, UnitSize
from moderay.corpus.shard import shard_errors
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import Vocabulary, vocabulary
from moderay.engines.host import EngineHost
from moderay.judges.build import fitted
from moderay.judges.cascade import Cascade
from moderay.pipeline.check import Checked
from moderay.pipeline.stages.judge_unit import judge_unit
from moderay.pipeline.stages.spans import read_span, spans
from moderay.tasks.embedded_job import add_verdicts


def judge_first_rows(checked: Checked, count: int, excerpt: int) -> list[dict[str, Any]]:
    """The first selected rows of a job's input, judged.

    Args:
        checked: the job.
        count: rows, at most.
        excerpt: tokens of each row's content to show.

    Returns:
        For each row: `file`, its shard, and `row`, its position there; `text`, how its content
        begins, and `is_cut`, whether it goes on; `flagged`; and by policy id its decision.
    """
    vocab = vocabulary(engine_spec(checked.job, gpus=0).vocabulary_source)
    files, units = _first_rows(checked, count, vocab)
    if not files:
        return []
    judged = judge_here(checked.job, checked.cascades, pa.concat_tables(units)).to_pylist()
    return [
        {
            **row,
            "file": file,
            "text": vocab.decode((row["ids"] or [])[:excerpt]),
            "is_cut": len(row["ids"] or []) > excerpt,
        }
        for file, row in zip(files, judged, strict=True)
    ]


def _first_rows(
    checked: Checked, count: int, vocab: Vocabulary
) -> tuple[list[str], list[pa.Table]]:
    """The file of each of the first selected rows, and the rows as `prepare.prepared` has them."""
    job = checked.job
    units: list[pa.Table] = []
    files: list[str] = []
    for shard in checked.scan.shards:
        for span in spans(shard, [(0, shard.rows)], UnitSize(rows=count)):
            with shard_errors(shard):
                for _, unit in read_span(span, job, checked.cascades, vocab):
                    units.append(unit.slice(0, count - len(files)))
                    files += [shard.file] * len(units[-1])
                    if len(files) == count:
                        return files, units
    return files, units


def judge_here(job: Job, cascades: Sequence[Cascade], rows: pa.Table) -> pa.Table:
    """Judge a few rows (`prepare.prepared`) in this process.

    Returns:
        Their `row` and `ids`, with `content_hash`, `flagged` and a decision per policy.
    """
    return judge_each(job, [(cascades, rows)])[0]


def judge_each(job: Job, parts: Sequence[tuple[Sequence[Cascade], pa.Table]]) -> list[pa.Table]:
    """The same for several tables, each by its own judges, on one engine."""
    spec = fitted(engine_spec(job, gpus=0), [each for cascades, _ in parts for each in cascades])

    async def judged() -> list[pa.Table]:
        host = EngineHost(spec)
        try:
            return [await judge_unit(host, cascades, rows, 0) for cascades, rows in parts]
        finally:
            host.close()

    return [
        add_verdicts(rows.select(["row", "ids"]), unit, cascades)
        for (cascades, rows), unit in zip(parts, asyncio.run(judged()), strict=True)
    ]
