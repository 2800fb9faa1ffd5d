"""The command line. Exit status: 0 done, 1 finished with rows or shards missed, 2 change something,
3 try again.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.table import Table

from moderay.cli import cluster
from moderay.cli.console import SHOWN, JobFile, Sets, _warn, app, err, out, printable
from moderay.cli.tables import _agreement, _briefly, _filtered, _told, _trend, _verdict
from moderay.core.errors import ModerayError, Problems, UserError
from moderay.engines import checkpoint


def main() -> None:
    """Entry point: errors that a person can mend end in one sentence."""
    # A thread of Ray Data that outlives a stopped run must not start another cluster as this
    # process ends.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        app(standalone_mode=True)
    except Problems as error:
        for problem in error.problems:
            _warn(str(problem))
        print(
            (
                f"{len(error.problems)} problem{'s' if len(error.problems) > 1 else ''}; nothing "
                "was "
                "written"
            ),
            file=sys.stderr,
        )
        sys.exit(error.exit_status)
    except ModerayError as error:
        _warn(f"moderay: {error}")
        # Threads of Ray Data that end with this process would tell of it at length.
        logging.disable()
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("moderay: stopped; nothing had been judged yet", file=sys.stderr)
        sys.exit(3)


@app.command()
def check(job: JobFile, sets: Sets = None) -> None:
    """Report everything wrong with a job, its policies and its input; judge nothing."""
    from moderay.pipeline.check import check as check_file

    checked = check_file(job, sets or ())
    _notice(checked.job.model)
    for name, reason in checked.scan.unreadable:
        _warn(f"warning: {name} cannot be read and will be left out: {reason}")
    shards = checked.scan.shards
    out.print(
        f"{job}: ok: {len(shards)} shards, {checked.scan.rows:,} rows, {len(checked.policies)} "
        "policies"
    )


@app.command()
def plan(
    job: JobFile,
    sets: Sets = None,
    replace: bool = False,
    rows: Annotated[
        int,
        typer.Option(
            "--rows", min=1, help="Rows to read for it at most; the rest is taken to be like them."
        ),
    ] = 20_000,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            help="Tokens a second of one GPU, as run shows them. Default: an earlier run's.",
        ),
    ] = None,
) -> None:
    """What a run would do and cost: rows, what is known already, what each judge settles, requests,
    tokens, GPU hours.
    """
    from moderay.pipeline.check import check as check_file
    from moderay.pipeline.estimate import forecast
    from moderay.pipeline.plan import make_plan

    checked = check_file(job, sets or ())
    found = make_plan(checked, replace)
    cost = forecast(checked, found, rows, rate)
    hours = (
        "not known: give --rate, tokens a second of one GPU"
        if cost.gpu_hours is None
        else f"{cost.gpu_hours:,.1f} at {cost.tokens_per_s:,.0f} tokens/s"
    )
    table = Table(show_header=False, box=None)
    for name, value in (
        (
            "shards",
            (
                f"{len(checked.scan.shards):,}, of them published {len(found.done):,}, to decide "
                f"again {sum(work.redecide for work in found.todo):,}"
            ),
        ),
        (
            "rows",
            f"{checked.scan.rows:,}, of them left {cost.rows:,}, selected about {cost.selected:,}",
        ),
        ("distinct contents", f"{cost.distinct:,}"),
        *[
            (f"{policy}:", ", ".join(f"{name} {count:,}" for name, count in said.items() if count))
            for policy, said in cost.verdicts.items()
        ],
        ("requests", f"{cost.requests:,}"),
        (
            "prompt tokens",
            f"{cost.prompt_tokens:,}, of them {cost.cached_tokens:,} in the prefix cache",
        ),
        ("output tokens", f"{cost.output_tokens:,}"),
        ("GPU hours", hours),
    ):
        table.add_row(name, value)
    out.print(table)
    if cost.rows > cost.read:
        out.print(f"from {cost.read:,} rows; --rows reads more")
    for guess in cost.guesses:
        _warn(f"note: {guess}")


@app.command()
def run(
    job: JobFile,
    sets: Sets = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Judge again what the output holds under another cascade."),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Judge rows again that timed out, did not parse or met an engine error.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove the labels of shards that are gone from the input."),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Judge only the first N rows, show them, and write nothing."
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the verdicts (with --limit).")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit status 1 with an alarm: of the audit, or of the trend."
        ),
    ] = False,
    briefly: Annotated[
        bool,
        typer.Option(
            "--brief",
            help="End with a few lines for a pager: what is new, flagged and failed, and alarms.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
    progress_file: Annotated[
        Path | None, typer.Option("--progress", help="Append progress as JSON lines to this file.")
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            "--agreement",
            hidden=True,
            metavar="PREFIX",
            help="Compare with truth columns PREFIX<policy>.",
        ),
    ] = "",
) -> None:
    """Label what is selected and not published yet."""
    from moderay.pipeline.check import check as check_file

    checked = check_file(job, sets or ())
    _notice(checked.job.model)
    for name, reason in checked.scan.unreadable:
        _warn(f"warning: {name} cannot be read and is left out: {reason}")
    if limit is not None:
        return _look(checked, limit, show)
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.flow import run as run_checked

    outcome = run_checked(
        checked,
        replace=replace,
        retry_failed=retry_failed,
        prune=prune,
        progress=Progress(err, log=progress_file),
    )
    if briefly or as_json:
        _briefly(checked.job, outcome, as_json)
    else:
        _told(checked, outcome)
    if reference:
        out.print(f"agreement {_agreement(checked, reference):.2f}")
    raise typer.Exit(max(outcome.exit_status, int(strict and bool(outcome.manifest.alarms))))


@app.command("filter")
def filter_(
    job: Annotated[
        Path | None,
        typer.Argument(
            help="Job file (YAML): what of it is not labelled yet is labelled first.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", metavar="RULE", help="Rows to keep: Polars SQL over the verdict columns."
        ),
    ] = None,
    place: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Where kept/, removed/ and held/ go.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="DIR", help="Finished labels, instead of a job."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="POLICY=NUMBER", help="Decide a policy under another threshold."
        ),
    ] = None,
    unselected: Annotated[
        str | None,
        typer.Option("--unselected", help="Rows that were not to be judged: keep, remove or hold."),
    ] = None,
    verdicts: Annotated[
        bool, typer.Option("--verdicts", help="Kept rows have the verdict columns too.")
    ] = False,
    sets: Sets = None,
) -> None:
    """Keep the rows of a data set that a rule over their labels allows; the others are removed or
    held, with the reasons.
    """
    from moderay.pipeline.check import check as check_file
    from moderay.tasks.filter.filter import filter_labels
    from moderay.tasks.filter.request import check_job, filter_request, read_labels

    if (job is None) == (labels is None):
        raise UserError("filter takes either a job file or --labels DIR")
    checked = check_file(job, sets or ()) if job is not None else None
    request = filter_request(
        checked.job if checked else None, keep, place, threshold or (), unselected, verdicts
    )
    storage = checked.job.storage if checked else {}
    labelled = 0
    if checked is not None:
        check_job(request, checked)
        labelled = _labelled(checked)
    found = read_labels(checked.job.output.path if checked else str(labels), storage)
    with err.status("filtering") as status:
        done = filter_labels(
            found,
            request,
            storage,
            lambda shards, all_: status.update(f"filtering: {shards:,} of {all_:,} shards"),
        )
    _filtered(done, request.out)
    raise typer.Exit(max(done.exit_status, labelled))


@app.command("trend")
def trend_(
    outputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Outputs, folders of outputs, or globs. Default: the job's output.",
            show_default=False,
        ),
    ] = None,
    job: Annotated[
        Path | None, typer.Option("--job", help="Job file: its alarms, and its storage.")
    ] = None,
    last: Annotated[
        int, typer.Option("--nights", min=1, help="Nights to look at, the last ones.")
    ] = 30,
    price: Annotated[
        float | None, typer.Option("--gpu-hour", help="What an hour of a GPU costs.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="Draw it: .png, .svg or .pdf.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 with an alarm.")] = False,
    sets: Sets = None,
) -> None:
    """Nights side by side: flagged shares, what has changed since when, failures, tokens and cost;
    and alarms.
    """

    from moderay.config.job import Alarms
    from moderay.config.job_file import load_job
    from moderay.labels.analysis import chart as charts
    from moderay.labels.analysis.trend import read_nights, trend, trend_json

    given = load_job(job, sets or ())[0] if job is not None else None
    paths = outputs or ([given.output.path] if given else [])
    if not paths:
        raise UserError("trend takes outputs, a folder of them, or --job JOB")
    found = trend(
        read_nights(paths, given.storage if given else {})[-last:],
        given.alarms if given else Alarms(),
    )
    if chart is not None:
        charts.picture(found, chart)
    if as_json:
        print(trend_json(found))
    else:
        _trend(found, price)
    raise typer.Exit(int(strict and bool(found.alarms)))


@app.command()
def calibrate(
    job: JobFile,
    policy: Annotated[str, typer.Option("--policy", help="Id of the policy.")],
    place: Annotated[
        Path, typer.Option("--out", help="Folder to write, which the job's cascade then names.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="OUTPUT",
            help="An output of the same input, judged by the job's last judge.",
        ),
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(
            "--gold",
            metavar="COLUMN",
            help="An input column in which people said; null is unknown.",
        ),
    ] = None,
    judge: Annotated[str, typer.Option("--judge", help="screen or glance.")] = "screen",
    max_miss: Annotated[
        float, typer.Option("--max-miss", help="Share of violations that may be missed.")
    ] = 0.05,
    confidence: Annotated[float, typer.Option("--confidence", help="How sure that is.")] = 0.95,
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Contents to calibrate on at most, chosen by hash.")
    ] = 200_000,
    sets: Sets = None,
) -> None:
    """Make a screen, or a band for glance, that misses at most a stated share of violations."""
    from moderay.pipeline.check import check as check_file
    from moderay.tasks.calibrate.calibrate import calibrate_judge

    card = calibrate_judge(
        check_file(job, sets or ()), policy, judge, labels, gold, max_miss, confidence, rows, place
    )
    table = Table(show_header=False, box=None)
    for name, value in card.items():
        table.add_row(name, value)
    out.print(table)
    out.print(f"written: {place}; in the job: - {judge}: {place}", soft_wrap=True)


@app.command()
def label(
    policy: Annotated[Path, typer.Argument(help="Policy folder.")],
    content: Annotated[str, typer.Option("--content", help="The text to judge.")],
    model: Annotated[str, typer.Option("--model", help="Hub id, folder, or tiny.")] = "tiny",
    effort: Annotated[str, typer.Option("--effort", help="low, medium or high.")] = "low",
) -> None:
    """Judge one text and print the verdict as JSON."""
    from moderay.config.job import Job
    from moderay.config.policy import load_policy
    from moderay.corpus.content import texts
    from moderay.pipeline.stages.prepare import POSITION, prepared
    from moderay.tasks.embed import job_cascades, judge_here

    job = Job.model_validate(
        {
            "input": {"path": "", "content": "content"},
            "output": {"path": ""},
            "policies": [str(policy)],
            "model": {"source": model, "effort": _effort(effort)},
        }
    )
    _notice(job.model)
    spec = load_policy(policy)
    cascades = job_cascades(job, [spec])
    rows = prepared(
        pa.table({POSITION: [0]}),
        texts(pa.chunked_array([[content]])),
        job,
        cascades,
        cascades[0].last.safeguard.vocab,
    )
    found = judge_here(job, cascades, rows).column(spec.id)[0].as_py()
    print(json.dumps(found, indent=1, ensure_ascii=False))


@app.command()
def render(
    policy: Annotated[Path, typer.Argument(help="Policy folder.")],
    content: Annotated[str, typer.Option("--content", help="The text to judge.")],
    effort: Annotated[str, typer.Option("--effort", help="low, medium or high.")] = "low",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="tiny, or a checkpoint's folder; by default harmony's own vocabulary."
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="One JSON list of token ids.")] = False,
) -> None:
    """Show exactly what the model is given."""
    from moderay.config.policy import load_policy
    from moderay.engines.harmony.prompt import prompt

    vocab = _vocabulary(model)
    rendered = prompt(load_policy(policy), _effort(effort), vocab).render(vocab.encode(content))
    print(json.dumps(rendered) if ids else vocab.decode(rendered))


def _effort(text: str) -> Any:
    if text not in ("low", "medium", "high"):
        raise UserError(f"--effort {text!r}: valid are low, medium, high")
    return text


def _vocabulary(source: str | None) -> Any:
    from moderay.engines.harmony.vocabulary import vocabulary

    return vocabulary(source)


def _notice(model: Any) -> None:
    """What a person should know of a model before it judges."""
    from moderay.engines.remote.access import KEY, is_private

    if model.endpoint is None and model.source == "tiny":
        print(f"note: {checkpoint.TINY_NOTICE}", file=sys.stderr)
    if model.endpoint is not None and not is_private(model.endpoint):
        _warn(
            f"warning: contents go unencrypted to {model.endpoint}, and {KEY} is not sent there: "
            "https would carry both safely"
        )


def _look(checked: Any, limit: int, show: bool) -> None:
    """Judge the first rows here and now, without the output."""
    from moderay.tasks.embed import first_rows, judge_here

    judged = judge_here(checked.job, checked.cascades, first_rows(checked, limit)).to_pylist()
    if show:
        vocab = checked.cascades[0].last.safeguard.vocab
        table = Table("row", "content", *[policy.id for policy in checked.policies])
        for row in judged:
            text = printable(" ".join(vocab.decode((row["ids"] or [])[:SHOWN]).split())[:SHOWN])
            table.add_row(
                str(row["row"]), text, *[_verdict(row[policy.id]) for policy in checked.policies]
            )
        out.print(table)
    out.print(f"{len(judged)} rows judged, nothing written")


def _labelled(checked: Any) -> int:
    """Label what is not labelled yet; the run's exit status."""
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.flow import run as run_checked

    _notice(checked.job.model)
    outcome = run_checked(checked, progress=Progress(err))
    _told(checked, outcome)
    return int(outcome.exit_status)


for command in (cluster.submit, cluster.status, cluster.logs, cluster.stop):
    app.command()(command)
