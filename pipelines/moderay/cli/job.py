"""check, plan, run: what is done with a job file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moderay.cli.console import (
    JobFile,
    Quiet,
    Sets,
    err,
    out,
    printable,
    told_if_slow,
    warn,
    warn_of_model,
)
from moderay.cli.first_rows import judge_and_show
from moderay.cli.plan_table import show_plan
from moderay.cli.tables import gate_shown, show_brief, show_outcome
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.pipeline.check import Checked


def check(job: JobFile, sets: Sets = None, quiet: Quiet = False) -> None:
    """Report everything wrong with a job, its policies and its input; judge nothing.

    Example: moderay check job.yaml --set input.path=data/today.parquet
    """
    from moderay import api

    checked = api.check(job, sets or ())
    _warn_of(checked, "will be left out", quiet)
    if not quiet:
        _warn_of_machine(checked)
        out.print(
            f"{printable(str(job))}: ok: {counted(len(checked.scan.shards), 'shard')}, "
            f"{_rows(checked)}, {counted(len(checked.policies), 'policy', 'policies')}",
            soft_wrap=True,
        )


def _rows(checked: Checked) -> str:
    """The rows of the input, and what selects among them."""
    selection = checked.job.input
    by = [name for name in ("where", "sample") if getattr(selection, name)]
    chosen = f" to select from by {' and '.join(f'input.{name}' for name in by)}" if by else ""
    return counted(checked.scan.rows, "row") + chosen


def _warn_of(checked: Checked, unreadable: str, quiet: bool) -> None:
    """What a person should know of a job that is not wrong."""
    warn_of_model(checked.job.model)
    for name, reason in checked.scan.unreadable:
        warn(f"warning: {name} {unreadable}: {reason}")
    for note in () if quiet else (*checked.scan.notes, *checked.notes):
        warn(f"note: {note}")


def _warn_of_machine(checked: Checked) -> None:
    """Why the job cannot run on this machine; it may be checked on one and run on another."""
    address = os.environ.get("RAY_ADDRESS") or "local"
    then = (
        "`run` is refused on this machine"
        if address == "local"
        else f"`run` looks at the Ray at {address} when it joins it"
    )
    for problem in checked.elsewhere:
        hint = f"\n    hint: {problem.hint}" if problem.hint else ""
        warn(f"note: {problem.message}; {then}{hint}")


def plan(
    job: JobFile,
    sets: Sets = None,
    replace: Annotated[bool, typer.Option("--replace", help="As for run.")] = False,
    rows: Annotated[
        int,
        typer.Option(
            "--rows", min=1, help="Rows to read at most; the rest is taken to be like them."
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
    """Show what a run would do and cost: rows, requests, tokens and GPU time.

    Example: moderay plan job.yaml --rate 20000
    """
    from moderay import api

    show_plan(api.plan(job, sets or (), replace=replace, rows=rows, rate=rate))


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
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="I/N",
            help="Of N drivers at once on one output this is number I: label its share first, "
            "then what no other driver holds.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Judge only the first N rows, and write nothing."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print these rows and why they were judged so.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit status 1 with an alarm: of the audit, or of the trend."
        ),
    ] = False,
    brief: Annotated[
        bool,
        typer.Option(
            "--brief",
            help="End with a few lines for a pager: what is new, flagged and failed, and alarms.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="As --brief in one JSON object; with --limit, the rows as JSON lines."
        ),
    ] = False,
    progress_file: Annotated[
        Path | None, typer.Option("--progress", help="Append progress as JSON lines to this file.")
    ] = None,
    quiet: Quiet = False,
    truth: Annotated[
        str,
        typer.Option(
            "--agreement",
            hidden=True,
            metavar="PREFIX",
            help="Compare with truth columns PREFIX<policy>.",
        ),
    ] = "",
) -> None:
    """Label what is selected and not published yet.

    Example: moderay run job.yaml --limit 50 --show
    """
    with told_if_slow(f"checking {job}", quiet):
        from moderay import api

        checked = api.check(job, sets or ())
    _warn_of(checked, "is left out", quiet)
    if limit is not None:
        checked.assert_hosted_here()
        judge_and_show(checked, limit, show, as_json, quiet)
        return
    from moderay.pipeline.control.progress import Progress

    with gate_shown(quiet or brief or as_json):
        outcome = api.run(
            checked,
            replace=replace,
            retry_failed=retry_failed,
            prune=prune,
            part=part,
            progress=Progress(None if quiet else err, log=progress_file),
        )
    if brief or as_json:
        show_brief(checked.job, outcome, as_json)
    else:
        show_outcome(checked, outcome, quiet)
    if truth:
        from moderay.tasks.agreement import agreement

        out.print(f"agreement {agreement(checked, truth):.2f}")
    raise typer.Exit(max(outcome.exit_status, int(strict and bool(outcome.manifest.alarms))))
