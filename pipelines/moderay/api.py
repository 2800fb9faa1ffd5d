"""What `import moderay` offers, and what the command line is made of.

A job is given as the path of a job file, as a `Job`, or as what `check` returned, which is then not
checked again. What is wrong with arguments, policies or the input is raised as `Problems` or
another `UserError` before anything is judged or written.
"""

# Imports inside functions: what a function needs is loaded when it is called, since `check` would
# otherwise take the seconds that Ray takes. Many arguments: all options are keywords.
# ruff: noqa: PLC0415, PLR0913

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

if TYPE_CHECKING:
    import polars
    import pyarrow.dataset
    import ray.data

    from moderay.config.job import Job, Model, Unselected
    from moderay.config.policy import Policy
    from moderay.core.errors import Problem, Problems
    from moderay.labels.analysis.trend import Trend
    from moderay.labels.prevalence_records import PrevalenceEstimate, PrevalencePlan
    from moderay.pipeline.check import Checked
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.estimate import Forecast
    from moderay.pipeline.outcome import Outcome
    from moderay.pipeline.plan import Plan
    from moderay.tasks.decide.records import DecideRecord
    from moderay.tasks.diff.result import Comparison, Repeated
    from moderay.tasks.evaluate.result import Evaluated, Summarised
    from moderay.tasks.explain.records import Explanation
    from moderay.tasks.export.sft import Exported
    from moderay.tasks.filter.filter import Filtered
    from moderay.tasks.output_status import OutputStatus
    from moderay.tasks.report.report import Report
    from moderay.tasks.review.golden import GoldenAdded
    from moderay.tasks.review.label_studio.importing import Imported
    from moderay.tasks.tune.tune import Tuned
    from moderay.tasks.verify.verify import Verified

    JobSource: TypeAlias = str | os.PathLike[str] | Job | Checked


@dataclass(frozen=True)
class PlannedRun:
    """What a run would do and cost.

    Attributes:
        checked: the job.
        plan: which shards are published, and which are left.
        forecast: rows, requests, tokens and GPU time of what is left.
        refusal: why a run is refused without `replace`, which was then taken to be meant; empty
            where none is.
        golden: by policy with floors in `gate:`, the golden cases that are judged first, and how
            many it has; they are not in the forecast.
    """

    checked: Checked
    plan: Plan
    forecast: Forecast
    refusal: str = ""
    golden: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def load_job(file: str | os.PathLike[str], sets: Sequence[str] = ()) -> Job:
    """Read and check a job file and its policies, without looking at its input.

    Args:
        file: the job file (YAML). Relative paths in it are relative to it.
        sets: `key=value`, as of `--set` on the command line.

    Raises:
        Problems: with everything wrong, each with file, line and hint.

    Example:
        >>> job = moderay.load_job("job.yaml", sets=["unit.rows=100"])
        >>> job.input.content, job.unit.rows
        ('text', 100)
    """
    from moderay.config import job_file

    return job_file.load_job(_path_of(file), _listed(sets))[0]


def load_policy(folder: str | os.PathLike[str]) -> Policy:
    """Read a policy's folder.

    Raises:
        Problems: with everything wrong in its `policy.md`.

    Example:
        >>> policy = moderay.load_policy("policies/spam")
        >>> policy.id, policy.threshold, policy.label_names
        ('spam', 0.5, ('SP0', 'SP2', 'SP4'))
    """
    from moderay.config import policy

    return policy.load_policy(os.fspath(folder))


def check(job: JobSource, sets: Sequence[str] = ()) -> Checked:
    """Check a job, its policies and its input; judge nothing.

    Args:
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.

    Returns:
        The job with its policies and the files of its input; every function that takes a job takes
        this too.

    Raises:
        Problems: with everything wrong.
        UserError: the storage refuses.
        TryAgainError: the storage does not answer.

    Example:
        >>> checked = moderay.check("job.yaml")
        >>> checked.scan.rows, [policy.id for policy in checked.policies]
        (600, ['spam'])
        >>> moderay.check("job.yaml", sets=["input.content=txt"])
        Traceback (most recent call last):
        ...
        moderay.core.errors.Problems: ...no column 'txt'...
    """
    return _checked(job, sets)


def _checked(job: JobSource, sets: Sequence[str], *, writes: bool = True) -> Checked:
    """As `check`; `writes`: whether the output is to be written."""
    from moderay.config.job import Job
    from moderay.config.job_file import load_again
    from moderay.core.errors import UserError
    from moderay.pipeline import check as checks

    if isinstance(job, checks.Checked):
        if sets:
            raise UserError("sets: the job is checked already; give them to check")
        return job
    if isinstance(job, Job):
        return checks.check_job(*load_again(job, _listed(sets)), _further_problems, writes)
    return checks.check(_path_of(job), _listed(sets), _further_problems, writes)


def _further_problems(job: Job, *seen: Any) -> Iterable[Problem]:
    """What is wrong with `filter:`, `gold:` and `benchmark:`; what a job has not is not loaded."""
    if job.filter is not None:
        from moderay.tasks.filter.request import section_problems

        yield from section_problems(job, *seen)
    if job.gold:
        from moderay.tasks.gold import gold_problems

        yield from gold_problems(job, *seen)
    if job.benchmark is not None:
        from moderay.tasks.evaluate.benchmark import benchmark_problems

        yield from benchmark_problems(job, *seen)


def plan(
    job: JobSource,
    sets: Sequence[str] = (),
    *,
    replace: bool = False,
    rows: int = 20_000,
    rate: float | None = None,
) -> PlannedRun:
    """What `run` would do and cost; nothing is judged or written.

    Args:
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.
        replace: as for `run`.
        rows: rows to read for it at most; the rest is taken to be like them.
        rate: tokens a second of one GPU. Default: an earlier run's.

    Raises:
        Problems, UserError, TryAgainError: as for `check`.

    Example:
        >>> planned = moderay.plan("job.yaml", rate=10_000)
        >>> planned.forecast.rows, planned.forecast.requests
        (600, 1200)
    """
    from moderay.pipeline.estimate import forecast
    from moderay.pipeline.golden import cases_to_judge
    from moderay.pipeline.plan import AnotherCascadeError, make_plan

    _check_positive("rows", rows)
    _check_positive("rate", rate)
    checked = _checked(job, sets, writes=False)
    refusal = ""
    try:
        work = make_plan(checked, replace)
    except AnotherCascadeError as error:
        refusal = str(error)
        work = make_plan(checked, replace=True)
    golden = cases_to_judge(checked, work.layout) if work.todo else {}
    return PlannedRun(checked, work, forecast(checked, work, rows, rate), refusal, golden)


def run(
    job: JobSource,
    sets: Sequence[str] = (),
    *,
    replace: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
    part: str | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Label what is selected and not published yet, as `moderay run` does.

    It uses the Ray that this process is connected to, else the one that `RAY_ADDRESS` names, else
    one of its own. What is saved when a run ends early is not judged again: the same call goes on
    from there.

    Args:
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.
        replace: judge again what the output holds under another cascade.
        retry_failed: judge rows again that timed out, did not parse or met an engine error.
        prune: remove the labels of shards that are gone from the input.
        part: `i/n`: of n drivers at once on one output this is number i, counted from 0 or from 1;
            it labels its share of the shards, and then what is left that no other driver holds.
        progress: where progress is shown. Default: nowhere.

    Raises:
        Problems, UserError: something must be changed first.
        TryAgainError: the same call, later, goes on.
        StoppedError: a limit was reached.

    Example:
        >>> outcome = moderay.run("job.yaml")
        >>> outcome.exit_status, outcome.judged
        (0, 600)
    """
    from moderay.pipeline import outcome, run

    options = outcome.RunOptions(replace, retry_failed, prune, outcome.part(part))
    checked = check(job, sets)
    ended = run.run(checked, options, progress)
    if checked.job.report == "none" or not ended.worked:
        return ended
    from moderay.tasks.report.report import with_report

    return with_report(checked, ended)


@overload
def read_labels(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = ...,
    *,
    format: Literal["polars"] = ...,
) -> polars.LazyFrame: ...


@overload
def read_labels(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = ...,
    *,
    format: Literal["arrow"],
) -> pyarrow.dataset.Dataset: ...


def read_labels(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    format: Literal["polars", "arrow"] = "polars",
) -> polars.LazyFrame | pyarrow.dataset.Dataset:
    """The labels of an output: the published shards, and none of moderay's own files.

    The keys of hive folders, such as `date=2026-11-20/`, become text columns where all label files
    lie in folders of the same keys and have no columns of these names.

    Args:
        url: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file.
        format: `polars` for a LazyFrame, `arrow` for a dataset of pyarrow.

    Raises:
        UserError: there are no labels, or not yet.

    Example:
        >>> labels = moderay.read_labels("labels")
        >>> labels.filter("flagged").select("id", "flagged").head(1).collect().to_dicts()
        [{'id': 0, 'flagged': True}]
        >>> moderay.read_labels("labels", format="arrow").count_rows()
        600
    """
    from moderay.core.errors import UserError
    from moderay.labels.reader import open_labels, scan_labels

    if format not in ("polars", "arrow"):
        raise UserError(f"format {format!r}: valid are polars, arrow")
    return (scan_labels if format == "polars" else open_labels)(os.fspath(url), storage or {})


def filter(
    job: JobSource | None = None,
    sets: Sequence[str] = (),
    *,
    labels: str | os.PathLike[str] | None = None,
    keep: str | None = None,
    out: str | os.PathLike[str] | None = None,
    thresholds: Mapping[str, float] | Sequence[str] = (),
    unselected: Unselected | None = None,
    verdicts: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
    labelled: Callable[[Outcome], None] | None = None,
    filtered: Callable[[int, int], None] | None = None,
) -> Filtered:
    """Keep the rows of a data set that a rule over their labels allows.

    The others are removed or held, with the reasons. What of a job is not labelled yet is labelled
    first; of finished labels no job is needed.

    Args:
        job: a job file's path, or a `Job`; its `filter:` says what is not said here.
        sets: `key=value`, as of `--set` on the command line.
        labels: finished labels, instead of a job.
        keep: rows to keep: Polars SQL over the verdict columns, and those that are carried over.
        out: where `kept/`, `removed/` and `held/` go.
        thresholds: by policy id, where not those of the labels; or `policy=number`, as of
            `--threshold` on the command line.
        unselected: what becomes of rows that were not to be judged: `keep`, `remove` or `hold`.
        verdicts: whether kept rows have the verdict columns too.
        replace: whether it may be another rule than the one that `out` was filtered by.
        progress: where the labelling's progress is shown. Default: nowhere.
        labelled: called with how the labelling ended, before the filter begins.
        filtered: called with the number of filtered shards and of all, after each.

    Raises:
        Problems: with everything wrong, before anything is written.
        UserError: the labels are not finished, or there are none.
        StoppedError: stopped by Ctrl-C; the same call goes on from there.

    Example:
        >>> filtered = moderay.filter(labels="labels", keep="NOT spam.violates", out="clean")
        >>> filtered.card.rows.kept, filtered.card.rows.removed
        (300, 300)
    """
    from moderay.core.errors import UserError
    from moderay.tasks.filter.filter import filter_labels
    from moderay.tasks.filter.request import check_job, filter_request
    from moderay.tasks.filter.request import read_labels as finished_labels

    if (job is None) == (labels is None):
        raise UserError("filter takes either a job file or --labels DIR")
    checked = None if job is None else check(job, sets)
    request = filter_request(
        None if checked is None else checked.job,
        keep,
        _absolute(out),
        _assignments(thresholds),
        unselected,
        verdicts,
        replace,
    )
    url = _absolute(labels) or ""
    storage: Mapping[str, Any] = {}
    if checked is not None:
        check_job(request, checked)
        outcome = run(checked, progress=progress)
        if labelled is not None:
            labelled(outcome)
        url = checked.job.output.path
        storage = checked.job.storage
    finished = finished_labels(url, storage, None if checked is None else checked.scan)
    return filter_labels(finished, request, storage, filtered or (lambda shards, total: None))


def trend(
    job: JobSource | None = None,
    sets: Sequence[str] = (),
    *,
    outputs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    nights: int = 30,
) -> Trend:
    """Nights side by side: flagged shares, what has changed since when, failures and cost.

    Args:
        job: a job file's path, or a `Job`: its alarms, its storage, and by default its output.
        sets: `key=value`, as of `--set` on the command line.
        outputs: outputs, folders of outputs, or globs, instead of the job's output.
        nights: nights to look at, the last ones.

    Raises:
        Problems: the job is wrong.
        UserError: there is nothing to look at.

    Example:
        >>> nights = moderay.trend(outputs=["labels"])
        >>> [night.rows for night in nights.nights], nights.policies["spam"].flagged[0].value
        ([600], 0.5)
    """
    from moderay.config.job import Alarms
    from moderay.core.errors import UserError
    from moderay.labels.analysis.trend import read_nights, read_prevalence
    from moderay.labels.analysis.trend import trend as compare_nights

    _check_positive("nights", nights)
    loaded = None if job is None else _loaded(job, sets)
    if isinstance(outputs, str | os.PathLike):
        outputs = [outputs]
    urls = [os.fspath(url) for url in outputs] or ([loaded.output.path] if loaded else [])
    if not urls:
        raise UserError("trend takes outputs, a folder of them, or --job JOB")
    storage = loaded.storage if loaded else {}
    alarms = loaded.alarms if loaded else Alarms()
    by_date, titles = read_nights(urls, storage)
    compared = compare_nights(by_date[-nights:], alarms, titles)
    return replace(compared, prevalence=read_prevalence(urls, storage))


def plan_prevalence(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    policy: str | None = None,
    width: float | None = None,
    reviews: int | None = None,
    seed: int = 0,
) -> PrevalencePlan:
    """Draw rows of an output for people to review, so that `prevalence` can say how much violates.

    They are drawn by hash in strata of P, and kept in the output; the same call on the same labels
    gives the same plan.

    Args:
        url: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file.
        policy: id; needed where the labels are of several.
        width: of the 95% interval of the share in all rows, from end to end.
        reviews: how many, instead of a width.
        seed: another one draws other rows.

    Raises:
        UserError: there are no labels, or the width takes too many reviews.

    Example:
        >>> plan = moderay.plan_prevalence("labels", reviews=50)
        >>> len(plan.rows), [(stratum.rows, stratum.reviews) for stratum in plan.strata]
        (50, [(300, 25), (300, 25)])
    """
    from moderay.tasks.prevalence.plan import PlanRequest, plan_reviews

    request = PlanRequest(policy, width, reviews, seed)
    return plan_reviews(os.fspath(url), storage or {}, request)


def prevalence(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    plan: str | None = None,
    policy: str | None = None,
) -> list[PrevalenceEstimate]:
    """How much truly violates of all rows, of the kept and of the removed, with 95% intervals.

    Reviews of rows that a plan drew count, and no others.

    Args:
        url: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file.
        plan: id of a plan. Default: of each policy the newest one with an answer.
        policy: id, for that policy alone.

    Returns:
        One for each policy; its figures are None where too little is reviewed.

    Raises:
        UserError: there is no such plan.

    Example:
        >>> plan = moderay.plan_prevalence("labels", reviews=50)
        >>> found = moderay.prevalence("labels", plan=plan.id)[0]
        >>> found.unanswered, found.corpus
        (50, None)
    """
    from moderay.tasks.prevalence.estimate import estimate_prevalence

    return estimate_prevalence(os.fspath(url), storage or {}, plan, policy)


def evaluate(
    job: JobSource,
    sets: Sequence[str] = (),
    *,
    by: Sequence[str] = (),
    at: str | None = None,
    disagreements: int = 100,
    progress: Progress | None = None,
) -> Evaluated:
    """Label what is missing of a job, as `run` does, and compare with its `gold:`.

    Args:
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.
        by: columns of the input: figures for each of their values, beside those that the job's
            `benchmark:` names.
        at: a goal, such as recall=0.95, for which the best threshold is looked for.
        disagreements: rows of each policy that are kept, the worst.
        progress: where the run's progress is shown. Default: nowhere.

    Raises:
        Problems: the job is wrong, or names no gold.
        UserError: its gold cannot be read.
        TryAgainError: the same call, later, goes on.

    Example:
        >>> found = moderay.evaluate("job.yaml", ["gold.spam=id % 2 = 0"])
        >>> recall = found.record.policies["spam"].whole.figures["recall"]
        >>> recall.value, round(recall.low, 3), recall.method
        (1.0, 0.988, 'exact')
    """
    from moderay.tasks.evaluate.benchmark import benchmark_record, columns_of
    from moderay.tasks.evaluate.figures import eval_record
    from moderay.tasks.evaluate.goal import goal_of
    from moderay.tasks.evaluate.output import evaluate_output, gold_policies
    from moderay.tasks.evaluate.result import Evaluated

    goal = goal_of(at)
    checked = check(job, sets)
    gold_policies(checked)
    outcome = run(checked, progress=progress)
    named = checked.job
    evaluation = evaluate_output(checked, columns_of(named.benchmark, by), disagreements)
    record = eval_record(evaluation, named.name, named.model.source, goal)
    beside = None if named.benchmark is None else benchmark_record(named, record)
    return Evaluated(record, evaluation, outcome, beside)


def evaluate_benchmarks(
    jobs: Sequence[JobSource],
    sets: Sequence[str] = (),
    *,
    disagreements: int = 100,
    begun: Callable[[Checked], Progress | None] = lambda _: None,
) -> Summarised:
    """Evaluate several jobs, and set each beside what others published: its `benchmark:`.

    All jobs are checked before the first is run. One whose input or policies are not there is said
    to be missing, and the others go on.

    Args:
        jobs: as for `evaluate`.
        sets: `key=value`, as of `--set` on the command line, for every job.
        disagreements: rows of each policy that are kept, the worst.
        begun: called as each job begins; gives where its run's progress is shown.

    Raises:
        Problems: jobs are wrong in another way, or name no gold; all of them at once.
        UserError: gold cannot be read, or two jobs have one name.
        TryAgainError: the same call, later, goes on.

    Example:
        >>> found = moderay.evaluate_benchmarks(["job.yaml"], ["gold.spam=id % 2 = 0"])
        >>> [cell] = found.record.benchmarks[0].cells
        >>> cell.policy, cell.figure, cell.ours.value, cell.published
        ('spam', 'f1', 1.0, [])
    """
    from moderay.core.errors import Problems, UserError
    from moderay.tasks.evaluate.benchmark import benchmark_record, missing_benchmark
    from moderay.tasks.evaluate.benchmark_records import SummaryRecord
    from moderay.tasks.evaluate.result import Summarised

    seen = _checked_benchmarks(jobs, sets)
    names = [each.job.name for each in seen if not isinstance(each, Problems)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two jobs have the name {twice[0]!r}: give each its own")
    evaluated: dict[str, Evaluated] = {}
    benchmarks = []
    for source, each in zip(jobs, seen, strict=True):
        if isinstance(each, Problems):
            benchmarks.append(missing_benchmark(_title_of(source), each.problems))
            continue
        found = evaluate(each, disagreements=disagreements, progress=begun(each))
        evaluated[each.job.name] = found
        benchmarks.append(benchmark_record(each.job, found.record))
    return Summarised(SummaryRecord(benchmarks=benchmarks), evaluated)


def _checked_benchmarks(jobs: Sequence[JobSource], sets: Sequence[str]) -> list[Checked | Problems]:
    """Each job, or why there is nothing to run it on.

    Raises:
        Problems: what else is wrong, of all of them.
    """
    from moderay.core.errors import Problems
    from moderay.tasks.evaluate.output import gold_policies

    seen: list[Checked | Problems] = []
    wrong: list[Problem] = []
    for job in jobs:
        try:
            checked = check(job, sets)
            gold_policies(checked)
        except Problems as error:
            seen.append(error)
            if not all(problem.absent for problem in error.problems):
                wrong += error.problems
        else:
            seen.append(checked)
    if wrong:
        raise Problems(wrong)
    return seen


def _title_of(job: JobSource) -> str:
    """The name of a job, or of its file: where that names what is not there, no job is made."""
    from moderay.pipeline.check import Checked

    if isinstance(job, str | os.PathLike):
        return Path(job).stem
    return job.job.name if isinstance(job, Checked) else job.name


def evaluate_policies(
    policies: Sequence[str | os.PathLike[str]],
    model: Model | str,
    *,
    at: str | None = None,
    disagreements: int = 100,
) -> Evaluated:
    """Judge the golden sets of policies, by their rules and a model, and compare.

    Args:
        policies: folders.
        model: who judges.
        at: a goal, such as recall=0.95, for which the best threshold is looked for.
        disagreements: cases of each policy that are kept, the worst.

    Raises:
        Problems: a policy cannot be read, or has no golden set.
        ModerayError: the engine cannot be had.

    Example:
        >>> found = moderay.evaluate_policies(["policies/spam"], "scripted:script.yaml")
        >>> found.record.policies["spam"].whole.rows
        42
    """
    from moderay.config.job import Model
    from moderay.tasks.evaluate.figures import eval_record
    from moderay.tasks.evaluate.goal import goal_of
    from moderay.tasks.evaluate.golden import evaluate_golden, judge_golden
    from moderay.tasks.evaluate.result import Evaluated

    goal = goal_of(at)
    spec = model if isinstance(model, Model) else Model(source=model)
    sets = judge_golden([Path(folder) for folder in policies], spec)
    evaluation = evaluate_golden(sets, disagreements)
    return Evaluated(eval_record(evaluation, spec.source, spec.source, goal), evaluation)


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    common: bool = False,
    columns: Sequence[str] = (),
    show: int = 6,
    parquet: str | os.PathLike[str] | None = None,
    gold: Sequence[str] = (),
) -> Comparison:
    """Compare two outputs of the same input: which verdicts flipped, and how sure that is.

    Args:
        a: the output that is compared with; any fsspec URL.
        b: the other one.
        storage: fsspec options, as `storage:` of a job file.
        common: compare what both hold with the same content. Default: anything else is refused.
        columns: of the input, which output a carries, to be told with the flips.
        show: flips of each policy that are kept to be looked at, the largest change of P first.
        parquet: file for all flips.
        gold: columns that output a carries and in which people said what violates, each as
            `policy=column`; the column alone where one policy is compared.

    Raises:
        UserError: one is no output, or they are not of the same input and policies.

    Example:
        >>> compared = moderay.diff("labels", "labels")
        >>> compared.record.policies["spam"].judged, compared.record.policies["spam"].to_safe
        (600, 0)
    """
    from moderay.tasks.diff.compare import DiffRequest, compare_outputs

    return compare_outputs(
        DiffRequest(
            os.fspath(a),
            os.fspath(b),
            storage or {},
            common,
            show,
            tuple(_listed(columns)),
            None if parquet is None else Path(parquet),
            tuple(_listed(gold)),
        )
    )


def diff_policy(
    job: JobSource,
    policy: str | os.PathLike[str],
    sets: Sequence[str] = (),
    *,
    sample: int = 2000,
    show: int = 6,
    repeats: int = 1,
) -> Comparison:
    """Compare another version of a policy with the job's, over a sample of the job's content.

    Both are judged in this process, on one engine; nothing is written.

    Args:
        job: a job file's path, or a `Job`.
        policy: folder of the other version, which has the same id.
        sets: `key=value`, as of `--set` on the command line.
        sample: rows to judge, about as many; chosen by hash, the same ones each time.
        show: flips that are kept to be looked at, the largest change of P first.
        repeats: times each version judges each row, each with other seeds; from 2 on, how often
            either contradicts itself, and whether they differ by more than that.

    Raises:
        Problems: the job or the policy is wrong.
        UserError: the job has no policy of this id.

    Example:
        >>> compared = moderay.diff_policy("job.yaml", "policies/spam", sample=100)
        >>> compared.record.policies["spam"].to_violating
        0
    """
    from moderay.tasks.diff.wordings import compare_wordings

    _check_positive("sample", sample)
    _check_repeats(repeats, 1)
    checked = _checked(job, sets, writes=False)
    return compare_wordings(checked, os.fspath(policy), sample, show, repeats)


def diff_repeats(
    job: JobSource,
    sets: Sequence[str] = (),
    *,
    repeats: int = 5,
    sample: int = 2000,
    show: int = 6,
) -> Repeated:
    """How often a job's judges contradict themselves, over a sample of the job's content.

    It is judged several times in this process, on one engine, each time with other seeds; nothing
    is written. The first time is as in a run, so what the job's output holds already is taken.

    Args:
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.
        repeats: times each row is judged, 2 to 20.
        sample: rows to judge, about as many; chosen by hash, the same ones each time.
        show: rows of each policy that are kept to be looked at, the most divided first.

    Raises:
        Problems: the job is wrong.
        UserError: the input has no row for the sample.

    Example:
        >>> repeated = moderay.diff_repeats("job.yaml", repeats=3, sample=100)
        >>> repeated.record.seeds, repeated.record.policies["spam"].violates.rows
        ('sent', 0)
    """
    from moderay.tasks.diff.repeats import repeat_judges

    _check_positive("sample", sample)
    _check_repeats(repeats, 2)
    return repeat_judges(_checked(job, sets, writes=False), repeats, sample, show)


def tune(
    job: JobSource,
    sets: Sequence[str] = (),
    *,
    recall: float = 0.95,
    precision: float = 0.8,
    confidence: float = 0.95,
    policy: str | None = None,
    efforts: Sequence[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    explains: bool = True,
    rows: int = 10_000,
    folder: str | os.PathLike[str] | None = None,
) -> Tuned:
    """Search for the cheapest cascade of a policy that reaches a goal, and certify it.

    Each judge is asked once about each content of which it is known whether it violates. Cascades
    are chosen on one part of these, and certified on another.

    Args:
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.
        recall: share of violations that must be flagged.
        precision: share of the flagged that must violate.
        confidence: how sure both must be.
        policy: id; needed where the job has gold of several.
        efforts: low, medium, high: what is tried beside the job's own. Default: all.
        labels: an output whose last judge counts as right. Default: the job's `gold:`.
        explains: whether what is flagged on an engine must have a rationale. False: cascades in
            which glance flags contents are tried too.
        rows: contents to judge, about; chosen by hash.
        folder: what was judged is kept there for the next search, and `tune.json` and pictures are
            written. Default: nowhere.

    Raises:
        Problems: the job is wrong.
        UserError: there is no gold, or too little to certify with.
        ModerayError: the engine cannot be had.

    Example:
        >>> found = moderay.tune("job.yaml", ["gold.spam=id % 2 = 0"], efforts=["low"])
        >>> found.record.tested[0].certify.violations, found.record.misses_allowed
        (109, 1)
        >>> found.job.cascade[0].judge
        'glance'
    """
    from moderay.tasks.tune.certificate import Goal
    from moderay.tasks.tune.files import write_search
    from moderay.tasks.tune.tune import TuneRequest, efforts_of, tune_job

    request = TuneRequest(
        Goal(recall, precision, confidence),
        policy,
        efforts_of(efforts),
        _absolute(labels),
        explains,
        rows,
        None if folder is None else Path(folder),
    )
    found = tune_job(_checked(job, sets, writes=False), request)
    if request.folder is not None:
        write_search(found, request.folder)
    return found


def voided(
    certificate: str | os.PathLike[str], job: JobSource, sets: Sequence[str] = ()
) -> list[str]:
    """What of a job differs from what `tune` certified, a sentence each; none where it holds.

    Args:
        certificate: a `tune.json`.
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.

    Raises:
        Problems: the job is wrong.
        UserError: there is no such file, or the job has not its policy.

    Example:
        >>> gold = ["gold.spam=id % 2 = 0"]
        >>> found = moderay.tune("job.yaml", gold, efforts=["low"], folder="tuned")
        >>> moderay.voided("tuned/tune.json", "job.yaml", ["model.effort=high"])
        ['spam: judges were glance, reason, are reason']
    """
    from moderay.tasks.tune.tune import check_certificate

    return check_certificate(Path(certificate), _checked(job, sets, writes=False))


def output_status(
    url: str | os.PathLike[str], storage: Mapping[str, Any] | None = None
) -> OutputStatus:
    """How far an output is, and which drivers are writing it; also while they do.

    Args:
        url: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file.

    Raises:
        UserError: there is no output of moderay.

    Example:
        >>> status = moderay.output_status("labels")
        >>> status.shards, status.rows, status.writers
        (1, 600, ())
    """
    from moderay.tasks.output_status import output_status

    return output_status(os.fspath(url), storage or {})


def report(
    output: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    contents: bool = True,
) -> Report:
    """Show an output on one self-contained HTML page, from its markers and its manifest.

    Args:
        output: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file.
        out: the file to write. Default: `_moderay/report.html` in the output.
        contents: whether the contents of the few rows that it shows are in it, blurred.

    Raises:
        UserError: there are no labels, or a file cannot be read or written.
        TryAgainError: the storage does not answer.

    Example:
        >>> made = moderay.report("labels", out="report.html")
        >>> made.place, made.size < 200_000
        ('report.html', True)
    """
    from moderay.tasks.report.report import write_report

    file = None if out is None else Path(out)
    return write_report(os.fspath(output), storage or {}, file, contents)


def verify(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    repair: bool = False,
) -> Verified:
    """Read an output in full, and hold its files against each other.

    Args:
        url: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file.
        repair: remove what is broken, so that the next run of its job makes it again.

    Raises:
        UserError: there is no output of moderay.
        TryAgainError: for a repair, somebody is writing it.

    Example:
        >>> verified = moderay.verify("labels")
        >>> verified.shards, verified.rows, verified.findings
        (1, 600, ())
    """
    from moderay.tasks.verify.verify import verify

    return verify(os.fspath(url), storage or {}, repair)


def decide(
    url: str | os.PathLike[str],
    thresholds: Mapping[str, float] | Sequence[str] = (),
    storage: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DecideRecord:
    """Apply what people said, and other thresholds, to finished labels, without a model.

    Shards in which nothing changes are left as they are.

    Args:
        url: the output; any fsspec URL.
        thresholds: by policy id, where not those of the labels; or `policy=number`, as of
            `--threshold` on the command line.
        storage: fsspec options, as `storage:` of a job file.
        progress: is called with the number of shards done, and of all.

    Raises:
        Problems: a threshold cannot be set.
        UserError: there are no labels, or their run has not ended.
        TryAgainError: somebody is writing them.
        StoppedError: on Ctrl-C.

    Example:
        >>> decided = moderay.decide("labels", {"spam": 0.99})
        >>> spam = decided.policies["spam"]
        >>> spam.flagged_before, spam.flagged, spam.by_people
        (300, 0, 0)
        >>> decided = moderay.decide("labels", {"spam": 0.5})
    """
    from moderay.core.decision_rule import thresholds_of
    from moderay.tasks.decide.decide import decide

    chosen = thresholds_of(_assignments(thresholds))
    return decide(os.fspath(url), storage or {}, chosen, progress)


def explain(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    row: int | None = None,
    shard: str | None = None,
    content_hash: str | None = None,
    policy: str | None = None,
    job: JobSource | None = None,
    sets: Sequence[str] = (),
    page: str | os.PathLike[str] | None = None,
) -> Explanation:
    """Why a row has the verdicts that it has: a statement of reasons.

    Args:
        url: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file. Default: the job's, where there is
            one.
        row: position in the input file, from 0.
        shard: label file, where there are several.
        content_hash: instead of a row, the hash of a content; its first row is explained.
        policy: id of the only policy to tell of. Default: all.
        job: a job file's path, or a `Job`: the folders of its policies say what their golden sets
            hold of such cases.
        sets: `key=value`, as of `--set` on the command line.
        page: file for the same as a page to print, HTML.

    Raises:
        Problems: the job is wrong.
        UserError: there is no such output, row or policy.

    Example:
        >>> explanation = moderay.explain("labels", row=0, job="job.yaml")
        >>> verdict = explanation.verdicts["spam"]
        >>> verdict.decision.label, verdict.judge.judge, verdict.run.status
        ('SP4', 'reason', 'finished')
        >>> verdict.golden.nearest[0].violates
        True
    """
    from moderay.tasks.explain.explain import Explainer, ExplainRequest, explain_row
    from moderay.tasks.explain.golden_cases import policy_folders
    from moderay.tasks.explain.output import open_output

    loaded = None if job is None else _loaded(job, sets)
    known = storage if storage is not None else loaded.storage if loaded else {}
    folders = policy_folders(loaded.policies) if loaded else {}
    explainer = Explainer(open_output(os.fspath(url), known), folders)
    explanation = explain_row(explainer, ExplainRequest(row, shard, content_hash, policy))
    if page is not None:
        from moderay.tasks.explain.page import write_page

        write_page(explanation, Path(page))
    return explanation


def export_sft(
    url: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    policies: Sequence[str] = (),
    split: str = "0.9/0.05/0.05",
    balance: Literal["weights", "sample", "none"] = "weights",
    golden: Literal["test", "train", "none"] = "test",
    effort: Literal["low", "medium", "high"] | None = None,
    model: str | None = None,
    job: JobSource | None = None,
    sets: Sequence[str] = (),
) -> Exported:
    """Write what people decided as conversations to train a model on.

    They are made of standing reviews and of golden cases, in harmony, exactly as the model is
    prompted: token ids, text and messages, as Parquet with a card.

    Args:
        url: the output; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file. Default: the job's, where there is
            one.
        out: folder that is written.
        policies: ids. Default: all that a model was asked about.
        split: shares of train, validation and test. Which part a content is in depends on its text
            alone.
        balance: `weights` (a column), `sample` (the larger side loses cases) or `none`.
        golden: `test`: golden cases are in that part alone, and what is like them in none; `train`:
            they are split as the rest; `none`.
        effort: `low`, `medium` or `high`. Default: the labels'.
        model: whose token ids: `tiny` or a checkpoint's folder. Default: the labels'.
        job: a job file's path, or a `Job`: its policies' folders hold the golden sets.
        sets: `key=value`, as of `--set` on the command line.

    Raises:
        Problems: the job is wrong.
        UserError: nobody decided anything, an argument is wrong, or a policy's text is another one
            than the labels'.

    Example:
        >>> exported = moderay.export_sft("labels", out="sft", job="job.yaml", model="tiny")
        >>> exported.record.rows["train"], exported.record.policies["spam"].parts["test"].golden
        (0, 42)
    """
    from moderay.tasks.explain.golden_cases import policy_folders
    from moderay.tasks.explain.output import open_output
    from moderay.tasks.export.parts import shares_of
    from moderay.tasks.export.sft import SftRequest, export_sft

    request = SftRequest(
        folder=Path(out),
        policies=tuple(_listed(policies)),
        shares=shares_of(split),
        balance=balance,
        golden=golden,
        effort=effort,
        vocabulary=model,
    )
    loaded = None if job is None else _loaded(job, sets)
    known = storage if storage is not None else loaded.storage if loaded else {}
    folders = policy_folders(loaded.policies) if loaded else {}
    return export_sft(open_output(os.fspath(url), known), request, folders)


def calibrate(
    job: JobSource,
    sets: Sequence[str] = (),
    *,
    policy: str,
    out: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    gold: str | None = None,
    judge: Literal["screen", "glance", "reason"] = "screen",
    max_miss: float = 0.05,
    confidence: float = 0.95,
    rows: int = 200_000,
    train_part: bool = False,
    cross_fit: bool = False,
) -> Mapping[str, str]:
    """Make a screen, or a band for glance, that misses at most a stated share of violations.

    Or fit P of reason to what people said.

    What it says of a screen holds a line about 1,000 more labels: what they would let it settle
    beyond, extrapolated from a learning curve over the labels at hand, or why that is not known.

    Args:
        job: a job file's path, or a `Job`.
        sets: `key=value`, as of `--set` on the command line.
        policy: id of the policy.
        out: folder to write, which the job's cascade then names.
        labels: an output of the same input, judged by the job's last judge.
        gold: instead of labels, an input column in which people said, or a condition (Polars SQL)
            over input columns; null is unknown. Or `reviews`.
        judge: `screen`, `glance` or `reason`: of the last a map of its P to what people said, for
            which `labels` (default: the job's own) give P, and `gold` (default: the job's) what is
            right.
        max_miss: share of violations that may be missed, between 0 and 1.
        confidence: how sure that is, between 0 and 1.
        rows: contents to calibrate on at most, chosen by hash.
        train_part: whether what `tune` selects and certifies cascades on is left out, as a screen
            takes it that is to stand in a cascade to tune.
        cross_fit: of a screen, whether all contents train it and all violations set its cut-off.
            It settles more from the same labels, and its promise is an estimate.

    Returns:
        What a person wants to know of what was made, by title.

    Raises:
        Problems: the job is wrong.
        UserError: an argument is wrong, or too little is labelled; nothing is written then.

    Example:
        >>> made = moderay.calibrate("job.yaml", policy="spam", labels="labels", out="screens/spam")
        >>> made["promise"]
        'misses at most 0.05 of violations, with confidence 0.95'
    """
    from moderay.tasks.calibrate.calibrate import CalibrationRequest, calibrate_judge

    truth = None if labels is None else os.fspath(labels)
    request = CalibrationRequest(
        policy,
        judge,
        Path(out),
        truth,
        gold,
        max_miss,
        confidence,
        rows,
        train_part,
        cross_fit,
    )
    return calibrate_judge(_checked(job, sets, writes=False), request)


def label(
    ds: ray.data.Dataset,
    content: str,
    policies: Sequence[str | os.PathLike[str]],
    model: Model | Mapping[str, Any] | str | None = None,
    **settings: Any,
) -> ray.data.Dataset:
    r"""Add verdict columns to a Ray Dataset in somebody's own pipeline.

    The columns: `content_hash`, `flagged`, and a struct per policy, named by its id, as in a label
    file. Lazy: nothing is judged before the result is consumed.

    Args:
        ds: the Dataset.
        content: column of text, bytes or conversations, or a template such as
            `"{title}\n\n{body}"`.
        policies: policy folders.
        model: `model:` of a job file, as keys and values or as a `Model`; or its source alone.
            Default: `tiny`, which is for trying only.
        **settings: sections of a job file: `cascade`, `windows`, `unit`, `limits`, `audit`.

    Raises:
        Problems: with everything wrong in the arguments. A column that Ray does not know before
            the Dataset runs is looked for when it does.

    Example:
        >>> ds = ray.data.from_items([{"text": "claim your prize"}, {"text": "hello there"}])
        >>> labelled = moderay.label(ds, "text", ["policies/spam"], model="scripted:script.yaml")
        >>> sorted(labelled.take_all(), key=lambda row: row["text"])[0]["spam"]["label"]
        'SP4'
        >>> moderay.label(ds, "txt", ["policies/spam"], model="scripted:script.yaml")
        Traceback (most recent call last):
        ...
        moderay.core.errors.Problems: label: content: no column 'txt'...
    """
    from moderay.tasks.embed import label_dataset
    from moderay.tasks.embedded_job import embedded_job

    return label_dataset(ds, *embedded_job(content, policies, model, settings))


def export_reviews(
    output: str | os.PathLike[str],
    file: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    policy: str,
    queues: Sequence[str] = (),
    count: int = 20,
) -> tuple[Path, Path]:
    """Write contents to review as tasks for Label Studio, with its labeling configuration.

    Args:
        output: its folder; any fsspec URL.
        file: for the tasks, ending in .json; the configuration lies beside it, ending in .xml.
        storage: fsspec options, as `storage:` of a job file.
        policy: id of the policy under which they are asked about.
        queues: borderline, flagged, safe, disagreement, audit; all of them by default.
        count: contents of each queue.

    Returns:
        The two files.

    Raises:
        UserError: there are no labels, or nothing is in these queues.

    Example:
        >>> tasks, config = moderay.export_reviews(
        ...     "labels", "tasks.json", policy="spam", queues=["flagged"], count=3
        ... )
        >>> tasks.name, config.name
        ('tasks.json', 'tasks.xml')
    """
    from moderay.tasks.review.label_studio.exporting import export_tasks
    from moderay.tasks.review.opening import review_request, wanted_rows

    wanted = wanted_rows(queues, count)
    request = review_request(os.fspath(output), storage or {}, ["export"], [policy], wanted)
    return export_tasks(request.output, request.items, Path(file))


def import_reviews(
    output: str | os.PathLike[str],
    file: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    reviewer: str | None = None,
) -> Imported:
    """Keep what people answered in Label Studio as reviews; what was taken before is not again.

    Args:
        output: its folder; any fsspec URL.
        file: an export of Label Studio in the format JSON.
        storage: fsspec options, as `storage:` of a job file.
        reviewer: who gave the answers whose people the file does not name by an address.

    Raises:
        Problems: something in the file cannot be taken; then nothing is.
        UserError: it cannot be read, or there are no labels.

    Example:
        >>> import json, pathlib
        >>> tasks, _ = moderay.export_reviews("labels", "tasks.json", policy="spam", count=1)
        >>> answered = json.loads(tasks.read_text())
        >>> answered[0]["annotations"] = [{
        ...     "completed_by": {"email": "anna@example.org"},
        ...     "created_at": "2026-11-20T08:00:00Z",
        ...     "result": [{"from_name": "label", "value": {"choices": ["SP0"]}}],
        ... }]
        >>> _ = pathlib.Path("answers.json").write_text(json.dumps(answered))
        >>> moderay.import_reviews("labels", "answers.json").added
        1
        >>> moderay.import_reviews("labels", "answers.json").known
        1
    """
    from moderay.tasks.review.label_studio.importing import import_answers
    from moderay.tasks.review.output import open_output

    return import_answers(open_output(os.fspath(output), storage or {}), Path(file), reviewer)


def add_golden(
    output: str | os.PathLike[str],
    storage: Mapping[str, Any] | None = None,
    *,
    policies: Sequence[str] = (),
    folder: str | os.PathLike[str] = "policies",
) -> list[GoldenAdded]:
    """Make golden cases of what people answered in reviews of an output.

    Args:
        output: its folder; any fsspec URL.
        storage: fsspec options, as `storage:` of a job file.
        policies: ids; all of the output by default.
        folder: in which the policies' folders are, by id.

    Returns:
        For each policy, what was added and what was not.

    Raises:
        Problems: a policy or its golden set does not load.
        UserError: there are no labels.

    Example:
        >>> [spam] = moderay.add_golden("labels", policies=["spam"])
        >>> spam.file.name, spam.void
        ('golden.jsonl', 0)
    """
    from moderay.tasks.review.golden import add_golden_cases
    from moderay.tasks.review.output import open_output

    opened = open_output(os.fspath(output), storage or {})
    return add_golden_cases(opened, opened.chosen(policies), Path(folder))


def _listed(texts: Sequence[str]) -> Sequence[str]:
    """One text, where several may be given, as the list that it is meant to be."""
    return [texts] if isinstance(texts, str) else texts


def _assignments(thresholds: Mapping[str, float] | Sequence[str]) -> Sequence[str]:
    """Thresholds as the command line has them."""
    if isinstance(thresholds, Mapping):
        return [f"{policy}={threshold!r}" for policy, threshold in thresholds.items()]
    return _listed(thresholds)


def _absolute(url: str | os.PathLike[str] | None) -> str | None:
    """A path as Ray's workers find it too, whose working directory may be another; URLs stay."""
    from moderay.config.paths import absolute_path

    return absolute_path(os.fspath(url), Path.cwd()) if url else None


def _check_positive(name: str, number: float | None) -> None:
    """Raises `Problems` for an argument that is zero or less."""
    from moderay.core.errors import Problem, Problems

    if number is not None and number <= 0:
        raise Problems([Problem(name, None, f"a number above 0 is wanted, not {number}")])


def _check_repeats(repeats: int, fewest: int) -> None:
    """Raises `Problems` for another number of repeats."""
    from moderay.core.errors import Problem, Problems
    from moderay.tasks.diff.repeats import MOST_REPEATS

    if not fewest <= repeats <= MOST_REPEATS:
        wanted = f"a number from {fewest} to {MOST_REPEATS} is wanted, not {repeats}"
        raise Problems([Problem("repeats", None, wanted)])


def _loaded(job: JobSource, sets: Sequence[str]) -> Job:
    """A job whose input and output need not be looked at."""
    from moderay.config.job import Job
    from moderay.config.job_file import load_again, load_job
    from moderay.pipeline.check import Checked

    if isinstance(job, Checked):
        job = job.job
    if isinstance(job, Job):
        return load_again(job, _listed(sets))[0]
    return load_job(_path_of(job), _listed(sets))[0]


def _path_of(job: str | os.PathLike[str]) -> str:
    """A job file's path. Raises `Problems` for what is no path either."""
    from moderay.core.errors import Problem, Problems

    if isinstance(job, str | os.PathLike):
        return os.fspath(job)
    message = f"the path of a job file or a Job is wanted, not {type(job).__name__}"
    hint = "Job.from_dict makes a Job of keys and values"
    raise Problems([Problem("job", None, message, hint)])
