"""A sample of a job's content, to be judged in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import UserError
from moderay.core.storage import plain_errors
from moderay.core.verdicts import CONTENT_HASH
from moderay.corpus.shard import Shard, shard_errors
from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.earlier_outputs import LabelFile, usable_verdicts
from moderay.labels.layout import Layout, published_markers
from moderay.labels.reuse import ReadAlong
from moderay.pipeline.check import Checked
from moderay.pipeline.stages.prepare import with_known
from moderay.pipeline.stages.spans import read_span, spans


@dataclass(frozen=True)
class SampledRows:
    """Rows of a job's input, ready to be judged.

    Attributes:
        parts: By shard, in order, rows as `prepare.prepared` has them.
    """

    parts: tuple[tuple[Shard, pa.Table], ...]

    @property
    def rows(self) -> pa.Table:
        """All of them."""
        return pa.concat_tables([table for _, table in self.parts])

    @property
    def files(self) -> list[str]:
        """The input file of each row."""
        return [shard.file for shard, table in self.parts for _ in range(len(table))]

    def by_shard(self, tables: Sequence[pa.Table]) -> Iterator[tuple[Shard, list[pa.Table]]]:
        """Tables that are parallel to all rows, cut by shard."""
        start = 0
        for shard, part in self.parts:
            yield shard, [table.slice(start, len(part)).combine_chunks() for table in tables]
            start += len(part)


def sampled_job(checked: Checked, sample: int) -> Job:
    """The job with about so many rows: of its own sample, where it has one, a part."""
    job = checked.job
    share = min(job.input.sample or 1.0, sample / max(checked.scan.rows, 1))
    return job.model_copy(update={"input": job.input.model_copy(update={"sample": share})})


def sampled_rows(
    checked: Checked, job: Job, cascades: Sequence[Cascade], vocab: Vocabulary
) -> SampledRows:
    """The rows of the sample, with what the cascades' rules and screens say of them.

    Raises:
        UserError: There is none.
    """
    parts = []
    for shard in checked.scan.shards:
        with shard_errors(shard):
            units = [
                unit
                for span in spans(shard, [(0, shard.rows)], job.unit)
                for _, unit in read_span(span, job, cascades, vocab)
                if len(unit)
            ]
        if units:
            parts.append((shard, pa.concat_tables(units)))
    if not parts:
        raise UserError("no row of the input is in the sample: a larger --sample")
    return SampledRows(tuple(parts))


def with_kept(checked: Checked, sample: SampledRows) -> SampledRows:
    """The rows with the verdicts that a run would not pay for again.

    They lie in the job's output, or in those that it reuses.
    """
    layout = Layout(checked.job.output.path, checked.job.storage)
    outputs = (layout, *[output.layout for output in checked.reused])
    policies = [cascade.policy.id for cascade in checked.cascades]
    with plain_errors(layout.url):
        markers = published_markers(layout)
    parts = []
    for shard, table in sample.parts:
        marker = markers.get(shard.name)
        own = {} if marker is None else usable_verdicts(checked.cascades, marker.judges)
        usable = [own, *[output.shards.get(shard.name) for output in checked.reused]]
        files = [LabelFile(at, shard.name, taken) for at, taken in enumerate(usable) if taken]
        found = ReadAlong(outputs, files, policies).find(
            table.column(CONTENT_HASH.name).to_pylist()
        )
        parts.append((shard, with_known(table, found)))
    return SampledRows(tuple(parts))
