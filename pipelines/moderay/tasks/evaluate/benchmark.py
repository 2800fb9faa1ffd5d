"""A job's figures beside those that others published of its set, and what is wrong with these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from moderay.config.job import Benchmark, Job, Published
from moderay.config.policy import Policy
from moderay.core.errors import Problem, nearest
from moderay.corpus.scan import Scan
from moderay.judges.cascade import Cascade
from moderay.labels.analysis.metrics.estimate import share
from moderay.tasks.evaluate.benchmark_records import (
    BenchmarkRecord,
    CellRecord,
    PublishedRecord,
)
from moderay.tasks.evaluate.records import EstimateRecord, EvalRecord, FiguresRecord

# Of one policy, and of several together; all others are of a binary table.
_OF_SCORES = ("average_precision", "roc_auc")
LABELS_RIGHT, POLICIES_RIGHT = "labels_right", "policies_right"

# Policy, label at or above which it counts, figure.
Target = tuple[str | None, str | None, str]


def benchmark_problems(
    job: Job, policies: Sequence[Policy], _: Sequence[Cascade], input_: Scan
) -> Iterator[Problem]:
    """What is wrong with a job's `benchmark:`: what names no policy, label, figure or column."""
    assert job.benchmark is not None
    by_id = {policy.id: policy for policy in policies}
    for number, published in enumerate(job.benchmark.published):
        key = f"benchmark.published.{number}"
        for part, message, hint in _wrong(published, by_id, job):
            name = f"{key}.{part}"
            yield job.problem(name, f"{name}: {message}", hint)
    for name in job.benchmark.by:
        for shard, schema in input_.files:
            columns = [*schema.names, *[part for part, _ in shard.partitions]]
            if name not in columns:
                message = f"benchmark.by: {shard.file} has no column {name!r}"
                yield job.problem("benchmark.by", message, nearest(name, columns))
                break


def _wrong(
    published: Published, policies: Mapping[str, Policy], job: Job
) -> Iterator[tuple[str, str, str]]:
    """Key, what is wrong with it, and a hint."""
    named, figure, label = published.policy, published.figure, published.at_or_above
    if named is not None and named not in policies:
        yield "policy", f"the job has no policy {named!r}", nearest(named, policies)
        return
    if named is not None and named not in job.gold:
        yield "policy", f"gold says nothing of {named!r}", nearest(named, job.gold)
        return
    if figure == POLICIES_RIGHT and (named or label):
        yield (
            "figure",
            f"{figure} is of all policies together",
            "leave policy: and at_or_above: out",
        )
        return
    policy = policies.get(named or _only(job.gold) or "")
    if policy is None and (label or figure in (*_OF_SCORES, LABELS_RIGHT)):
        what = "at_or_above" if label else figure
        yield "policy", f"{what} is of one policy", f"policy: one of {', '.join(job.gold)}"
    if label and figure in (*_OF_SCORES, LABELS_RIGHT):
        yield "figure", f"{figure} has no cut at a label", "leave at_or_above: out"
    cuts = policy.label_names[1:] if policy and len(policy.labels) > 2 else ()
    if label and policy and label not in cuts:
        hint = f"valid: {', '.join(cuts)}" if cuts else f"{policy.id} has two labels: leave it out"
        yield "at_or_above", f"{policy.id} has no such cut, {label!r}", hint


def _only(gold: Mapping[str, object]) -> str | None:
    """The one policy with gold; None where there are more."""
    return next(iter(gold)) if len(gold) == 1 else None


def benchmark_record(job: Job, record: EvalRecord) -> BenchmarkRecord:
    """What an evaluation found, beside the published figures of its job's `benchmark:`."""
    benchmark = job.benchmark
    return BenchmarkRecord(
        name=job.name,
        model=record.model,
        source="" if benchmark is None else benchmark.source,
        missing=None,
        cells=cells(record, () if benchmark is None else benchmark.published),
        evaluation=record,
    )


def missing_benchmark(name: str, problems: Sequence[Problem]) -> BenchmarkRecord:
    """A benchmark whose set is not there."""
    why = "; ".join(problem.message for problem in problems)
    return BenchmarkRecord(name=name, model="", source="", missing=why, cells=[], evaluation=None)


def cells(record: EvalRecord, published: Sequence[Published]) -> list[CellRecord]:
    """F1 under each policy and under any of them, and every figure that others published.

    Args:
        record: What an evaluation found.
        published: Figures that `benchmark_problems` has nothing to say of.
    """
    only = _only(record.policies)
    targets: dict[Target, list[PublishedRecord]] = {
        (name, None, "f1"): [] for name in record.policies
    }
    if only is None:
        targets[None, None, "f1"] = []
    for each in published:
        named = None if each.figure == POLICIES_RIGHT else each.policy or only
        target = named, each.at_or_above, str(each.figure)
        targets.setdefault(target, []).append(_published(each))
    return [_cell(record, target, beside) for target, beside in targets.items()]


def _published(each: Published) -> PublishedRecord:
    return PublishedRecord(
        value=each.value,
        model=each.model,
        source=each.source,
        comparable=each.comparable,
        note=each.note,
    )


def _cell(record: EvalRecord, target: Target, published: list[PublishedRecord]) -> CellRecord:
    policy, label, figure = target
    rows, ours = _ours(record, target)
    return CellRecord(
        figure=figure, policy=policy, at_or_above=label, rows=rows, ours=ours, published=published
    )


def _ours(record: EvalRecord, target: Target) -> tuple[int, EstimateRecord | None]:
    """Rows, and the figure of them that have a verdict."""
    policy, label, figure = target
    if figure == POLICIES_RIGHT:
        return record.exact_rows, _share(record.exact_right, record.exact_rows)
    if policy is None:
        return _figure(record.flagged, figure)
    found = record.policies[policy]
    if figure == LABELS_RIGHT:
        judged = sum(sum(row[:-1]) for row in found.confusion)
        right = sum(row[place] for place, row in enumerate(found.confusion))
        return sum(map(sum, found.confusion)), _share(right, judged)
    if label is None:
        return _figure(found.whole, figure)
    at = found.at_or_above.get(label)
    return (0, None) if at is None else _figure(at, figure)


def _figure(figures: FiguresRecord, name: str) -> tuple[int, EstimateRecord | None]:
    return figures.rows, figures.figures.get(name)


def _share(right: int, rows: int) -> EstimateRecord | None:
    found = share(right, rows)
    if found is None:
        return None
    return EstimateRecord(value=found.value, low=found.low, high=found.high, method=found.method)


def columns_of(benchmark: Benchmark | None, by: Sequence[str]) -> list[str]:
    """Columns that figures are sliced by: those of `--by`, and those of the job."""
    return list(dict.fromkeys([*by, *(benchmark.by if benchmark else ())]))
