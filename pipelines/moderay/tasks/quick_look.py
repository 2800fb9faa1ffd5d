"""A few rows judged in this process, without an output and without Ray: for a quick look."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from moderay.config.job import Job, Model, UnitSize
from moderay.corpus.content import texts
from moderay.corpus.shard import shard_errors
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import Vocabulary, vocabulary
from moderay.engines.host import EngineHost
from moderay.judges.build import fitted
from moderay.judges.cascade import Cascade
from moderay.pipeline.check import Checked
from moderay.pipeline.stages.judge_unit import judge_unit
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.pipeline.stages.spans import read_span, spans
from moderay.tasks.embed import add_verdicts, embedded_job, job_cascades


def judge_text(content: str, policy: str | Path, model: Model) -> dict[str, Any]:
    """One text under one policy: its decision, as a label file has it (`verdicts.decision_type`).

    Args:
        content: the text.
        policy: the policy's folder.
        model: who judges.

    Raises:
        Problems: policy or model are wrong.
    """
    job, policies = embedded_job("content", [policy], model, {})
    cascades = job_cascades(job, policies)
    vocab = cascades[0].last.safeguard.vocab
    row = pa.table({POSITION: [0]})
    rows = prepared(row, texts(pa.chunked_array([[content]])), job, cascades, vocab)
    decision: dict[str, Any] = judge_here(job, cascades, rows).column(policies[0].id)[0].as_py()
    return decision


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
    spec = fitted(engine_spec(job, gpus=0), cascades)

    async def judged() -> pa.Table:
        host = EngineHost(spec)
        try:
            return await judge_unit(host, cascades, rows, 0)
        finally:
            host.close()

    return add_verdicts(rows.select(["row", "ids"]), asyncio.run(judged()), cascades)
