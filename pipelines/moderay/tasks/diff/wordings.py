"""Two versions of a policy over a sample of a job's content, judged here on one engine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.core.errors import UserError, nearest
from moderay.core.verdicts import structs
from moderay.corpus.shard import shard_errors
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import Vocabulary, vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.analysis.diff import DiffTally, tally
from moderay.labels.cascade_differences import policy_differences
from moderay.pipeline.check import Checked
from moderay.pipeline.manifest import policy_record
from moderay.pipeline.stages.spans import read_span, spans
from moderay.tasks.diff.compare import Comparison
from moderay.tasks.diff.figures import policy_figures
from moderay.tasks.diff.flips import LargestChanges, flips, flips_schema
from moderay.tasks.diff.pairs import Pairs
from moderay.tasks.diff.records import DiffRecord, LeftOut
from moderay.tasks.embed import job_cascades
from moderay.tasks.quick_look import judge_each

CONTENT = "content"


def compare_wordings(checked: Checked, folder: str, sample: int, show: int) -> Comparison:
    """Judge a sample under the job's policy and under another version of it.

    Verdicts that the job's output holds are not taken: both versions are judged alike.

    Args:
        checked: The job.
        folder: Of the policy's other version, which has the same id.
        sample: Rows to judge, about as many; chosen by hash, the same ones each time.
        show: Flips that are kept to be looked at.

    Raises:
        Problems: The policy is wrong.
        UserError: The job has no policy of this id, or its input has no row for the sample.
    """
    policy = load_policy(folder)
    before = {cascade.policy.id: cascade for cascade in checked.cascades}
    if policy.id not in before:
        raise UserError(
            f"--policy {folder}: the job has no policy {policy.id!r}: {nearest(policy.id, before)}"
        )
    job = _sampled(checked, sample)
    cascades = (before[policy.id], job_cascades(job, [policy])[0])
    counts, largest = DiffTally.empty(), LargestChanges(show, _SCHEMA)
    for pairs in _judged(checked, job, cascades):
        decisions = [structs(table.column(policy.id)) for table in (pairs.a, pairs.b)]
        counts += tally(decisions[0], decisions[1])
        largest.add(flips(pairs, policy.id, _SCHEMA))
    there, here = map(policy_record, cascades)
    record = DiffRecord(
        a=f"{policy.id} of {job.name}",
        b=f"{policy.id} of {os.fspath(folder)}",
        judges_known=True,
        differences=policy_differences(policy.id, there, here),
        only_thresholds=there.cascade == here.cascade and there.threshold != here.threshold,
        rows=int(counts.rows.sum()),
        policies={policy.id: policy_figures(counts)},
        left_out=LeftOut(),
    )
    return Comparison(record, {policy.id: largest.rows})


_SCHEMA = flips_schema([pa.field(CONTENT, pa.string())])


def _sampled(checked: Checked, sample: int) -> Job:
    """The job with about so many rows: of its own sample, where it has one, a part."""
    job = checked.job
    share = min(job.input.sample or 1.0, sample / max(checked.scan.rows, 1))
    return job.model_copy(update={"input": job.input.model_copy(update={"sample": share})})


def _judged(checked: Checked, job: Job, cascades: tuple[Cascade, Cascade]) -> Iterator[Pairs]:
    """The sample under both versions, shard by shard."""
    vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
    # Each has its own rules and screen, so each prepares the rows for itself.
    parts = [_rows(checked, job, cascade, vocab) for cascade in cascades]
    files, tables = parts[0][0], [pa.concat_tables(units) for _, units in parts if units]
    if not tables or not len(tables[0]):
        raise UserError("no row of the input is in the sample: a larger --sample")
    judged = judge_each(job, [([each], rows) for each, rows in zip(cascades, tables, strict=True)])
    shards = np.array(files)
    for shard in dict.fromkeys(files):
        here = pa.array(shards == shard)
        a, b = (table.filter(here).combine_chunks() for table in judged)
        texts = [vocab.decode(ids or []) for ids in a.column("ids").to_pylist()]
        a = a.append_column(CONTENT, pa.array(texts, pa.string()))
        yield Pairs(shard, a, b, 0, 0, np.empty(0, np.int64))


def _rows(
    checked: Checked, job: Job, cascade: Cascade, vocab: Vocabulary
) -> tuple[list[str], list[pa.Table]]:
    """The file of each row of the sample, and the rows as `prepare.prepared` has them."""
    files: list[str] = []
    units: list[pa.Table] = []
    for shard in checked.scan.shards:
        for span in spans(shard, [(0, shard.rows)], job.unit):
            with shard_errors(shard):
                for _, unit in read_span(span, job, [cascade], vocab):
                    units.append(unit)
                    files += [shard.file] * len(unit)
    return files, units
