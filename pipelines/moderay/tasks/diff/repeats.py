"""The same judges on a sample of a job's content, several times, on one engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from moderay.config.job import Job
from moderay.core.verdicts import structs
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import Vocabulary, vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.analysis.diff import NOT_JUDGED
from moderay.labels.analysis.metrics.estimate import Estimate
from moderay.labels.analysis.metrics.repeats import Repeats, beyond_contradiction
from moderay.pipeline.check import Checked
from moderay.tasks.diff.contradictions import RepeatedVerdicts
from moderay.tasks.diff.records import (
    ContradictionRecord,
    FloorRecord,
    PolicyRepeatRecord,
    RepeatRecord,
    Seeds,
)
from moderay.tasks.diff.result import Repeated
from moderay.tasks.diff.sample import sampled_job, sampled_rows, with_kept
from moderay.tasks.evaluate.records import EstimateRecord
from moderay.tasks.quick_look import judge_each

# More would make the interval wider, not narrower, and cost as much as a larger sample.
MOST_REPEATS = 20


def repeat_judges(checked: Checked, repeats: int, sample: int, show: int) -> Repeated:
    """Judge a sample several times, each time with other seeds.

    The first time has the seeds of a run, so verdicts that a run would not pay for again count.

    Args:
        checked: The job.
        repeats: Times each row is judged, 2 to `MOST_REPEATS`.
        sample: Rows to judge, about as many; chosen by hash, the same ones each time.
        show: Rows of each policy that are kept to be looked at.

    Raises:
        UserError: The job's input has no row for the sample.
    """
    job, cascades = sampled_job(checked, sample), checked.cascades
    vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
    rows = sampled_rows(checked, job, cascades, vocab)
    asked = [with_kept(checked, rows).rows, *[rows.rows] * (repeats - 1)]
    judged = judge_each(
        job,
        [([each.repeated(at) for each in cascades], part) for at, part in enumerate(asked)],
    )
    verdicts = {
        cascade.policy.id: RepeatedVerdicts.of(cascade.policy.rule, judged) for cascade in cascades
    }
    text = text_of(vocab, rows.rows)
    return Repeated(
        RepeatRecord(
            name=job.name,
            repeats=repeats,
            seeds=seeds(job, cascades),
            rows=len(rows.rows),
            policies={name: repeat_figures(each) for name, each in verdicts.items()},
        ),
        {name: each.shown(rows, text, show) for name, each in verdicts.items()},
    )


def text_of(vocab: Vocabulary, *tables: pa.Table) -> Callable[[int], str]:
    """The content of the row at a position.

    Args:
        vocab: Of its token ids.
        tables: Prepared rows, parallel to each other; the first that has the ids counts.
    """
    ids = [structs(table.column("ids")) for table in tables]

    def text(row: int) -> str:
        return vocab.decode(next((found for each in ids if (found := each[row].as_py())), []))

    return text


def seeds(job: Job, cascades: Sequence[Cascade]) -> Seeds:
    """What makes repeats of a job's judges differ."""
    draws = any(cascade.repeated(1).on_engine != cascade.on_engine for cascade in cascades)
    if job.model.sampling.temperature == 0 or not draws:
        return "no_effect"
    return "sent" if job.model.endpoint is None else "not_sent"


def repeat_figures(verdicts: RepeatedVerdicts) -> PolicyRepeatRecord:
    """The figures of one policy."""
    rows, once = np.flatnonzero(verdicts.judged), verdicts.once
    return PolicyRepeatRecord(
        judged=len(rows),
        not_judged=len(verdicts.judged) - len(rows),
        never_judged=int((verdicts.sides == NOT_JUDGED).all(axis=1).sum()),
        kept=verdicts.kept,
        contents=len(once),
        violates=_contradiction(verdicts.of_sides(rows), verdicts.of_sides(once)),
        label=_contradiction(verdicts.of_labels(rows), verdicts.of_labels(once)),
    )


def _contradiction(rows: Repeats, contents: Repeats) -> ContradictionRecord:
    return ContradictionRecord(
        rows=int((rows.pairs > 0).sum()),
        contents=_of_a_million(contents.contradicted()),
        pairs=_of_a_million(contents.contradiction()),
    )


def _of_a_million(share: Estimate | None) -> EstimateRecord | None:
    if share is None:
        return None
    ends = (1e6 * share.value, 1e6 * share.low, 1e6 * share.high)
    return EstimateRecord(value=ends[0], low=ends[1], high=ends[2], method=share.method)


def floor(a: RepeatedVerdicts, b: RepeatedVerdicts, seeds: Seeds) -> FloorRecord:
    """What two versions of a policy contradict themselves on the same rows, beside one another."""
    both = a.once[b.judged[a.once]]
    return FloorRecord(
        repeats=len(a.decisions),
        seeds=seeds,
        a=repeat_figures(a),
        b=repeat_figures(b),
        contents=len(both),
        p_value=beyond_contradiction(a.sides[both], b.sides[both]),
    )
