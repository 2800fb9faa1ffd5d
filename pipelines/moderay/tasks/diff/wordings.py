"""Two versions of a policy over a sample of a job's content, judged here on one engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from moderay.config.policy import load_policy
from moderay.core.errors import UserError, nearest
from moderay.core.verdicts import structs
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.analysis.diff import DiffTally, tally
from moderay.labels.cascade_differences import policy_differences
from moderay.pipeline.check import Checked
from moderay.pipeline.manifest import policy_record
from moderay.tasks.diff.contradictions import CONTENT, RepeatedVerdicts
from moderay.tasks.diff.figures import policy_figures
from moderay.tasks.diff.flips import LargestChanges, flips, flips_schema
from moderay.tasks.diff.pairs import Pairs
from moderay.tasks.diff.records import DiffRecord, LeftOut, Seeds
from moderay.tasks.diff.repeats import floor, seeds, text_of
from moderay.tasks.diff.result import Comparison
from moderay.tasks.diff.sample import SampledRows, sampled_job, sampled_rows
from moderay.tasks.embedded_job import job_cascades
from moderay.tasks.quick_look import judge_each

_SCHEMA = flips_schema([CONTENT])


def compare_wordings(
    checked: Checked, folder: str, sample: int, show: int, repeats: int = 1
) -> Comparison:
    """Judge a sample under the job's policy and under another version of it.

    Verdicts that the job's output holds are not taken: both versions are judged alike.

    Args:
        checked: The job.
        folder: Of the policy's other version, which has the same id.
        sample: Rows to judge, about as many; chosen by hash, the same ones each time.
        show: Flips that are kept to be looked at.
        repeats: Times each version judges each row; with 2 or more it is known what either
            contradicts itself.

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
    versions = _judged(
        checked, (before[policy.id], job_cascades(checked.job, [policy])[0]), sample, repeats
    )
    counts, largest = DiffTally.empty(), LargestChanges(show, _SCHEMA)
    for pairs in versions.pairs():
        decisions = [structs(table.column(policy.id)) for table in (pairs.a, pairs.b)]
        counts += tally(decisions[0], decisions[1])
        largest.add(flips(pairs, policy.id, _SCHEMA))
    figures, contradictions = policy_figures(counts), {}
    if repeats > 1:
        a, b = versions.repeated()
        figures = figures.model_copy(update={"floor": floor(a, b, versions.seeds)})
        contradictions = {
            side: each.shown(versions.rows, versions.text, show)
            for side, each in (("a", a), ("b", b))
        }
    there, here = map(policy_record, versions.cascades)
    record = DiffRecord(
        a=f"{policy.id} of {checked.job.name}",
        b=f"{policy.id} of {os.fspath(folder)}",
        judges_known=True,
        differences=policy_differences(policy.id, there, here),
        only_thresholds=there.cascade == here.cascade and there.threshold != here.threshold,
        rows=int(counts.rows.sum()),
        policies={policy.id: figures},
        left_out=LeftOut(),
    )
    return Comparison(record, {policy.id: largest.rows}, contradictions)


@dataclass(frozen=True)
class _Versions:
    """A sample, judged under both versions.

    Attributes:
        cascades: Of the job's version, and of the other one.
        rows: The sample.
        text: The content of a row of it.
        judged: Of either version, a table for each repeat.
        seeds: What makes repeats differ.
    """

    cascades: tuple[Cascade, Cascade]
    rows: SampledRows
    text: Callable[[int], str]
    judged: tuple[Sequence[pa.Table], Sequence[pa.Table]]
    seeds: Seeds

    def pairs(self) -> Iterator[Pairs]:
        """What both say the first time, shard by shard."""
        a, b = (tables[0] for tables in self.judged)
        texts = pa.array([self.text(row) for row in range(len(a))], CONTENT.type)
        for shard, (before, now) in self.rows.by_shard([a.append_column(CONTENT, texts), b]):
            yield Pairs(shard.file, before, now, 0, 0, np.empty(0, np.int64))

    def repeated(self) -> tuple[RepeatedVerdicts, RepeatedVerdicts]:
        """What either says all times."""
        of_a, of_b = self.cascades
        return (
            RepeatedVerdicts.of(of_a.policy.rule, self.judged[0]),
            RepeatedVerdicts.of(of_b.policy.rule, self.judged[1]),
        )


def _judged(
    checked: Checked, cascades: tuple[Cascade, Cascade], sample: int, repeats: int
) -> _Versions:
    job = sampled_job(checked, sample)
    vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
    # Each has its own rules and screen, so each prepares the rows for itself.
    samples = [sampled_rows(checked, job, [cascade], vocab) for cascade in cascades]
    tables = [rows.rows for rows in samples]
    judged = judge_each(
        job,
        [
            ([cascade.repeated(at)], table)
            for cascade, table in zip(cascades, tables, strict=True)
            for at in range(repeats)
        ],
    )
    return _Versions(
        cascades,
        samples[0],
        text_of(vocab, *tables),
        (judged[:repeats], judged[repeats:]),
        seeds(job, cascades),
    )
