"""tune: the cheapest cascade that reaches a goal, and its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moderay.cli.console import (
    JobFile,
    Quiet,
    Sets,
    libraries_in_file,
    out,
    printable,
    warn,
    warn_of_model,
)

if TYPE_CHECKING:
    from moderay.tasks.tune.tune import Tuned


def tune(  # options
    job: JobFile,
    recall: Annotated[
        float, typer.Option("--recall", help="Share of violations that must be flagged.")
    ] = 0.95,
    precision: Annotated[
        float, typer.Option("--precision", help="Share of the flagged that must violate.")
    ] = 0.8,
    confidence: Annotated[
        float, typer.Option("--confidence", help="How sure both must be.")
    ] = 0.95,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="ID", help="Of a job with gold of several policies."),
    ] = None,
    effort: Annotated[
        list[str] | None,
        typer.Option(
            "--effort",
            help="An effort to try beside the job's own: low, medium or high. Default: all.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="OUTPUT",
            help="Labels whose last judge counts as right, instead of the job's gold.",
        ),
    ] = None,
    no_rationale: Annotated[
        bool,
        typer.Option(
            "--no-rationale",
            help="Try cascades too in which glance flags contents, without a rationale.",
        ),
    ] = False,
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Contents to judge, about; chosen by hash.")
    ] = 10_000,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Keep what was judged for the next search, and write tune.json and pictures.",
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            "--verify",
            metavar="FILE",
            help="Judge nothing: say whether the certificate in this tune.json holds for the job.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print tune.json instead.")] = False,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Search for the cheapest cascade that reaches a recall and a precision, and certify it.

    Example: moderay tune job.yaml --recall 0.95 --precision 0.8 --out tuned
    """
    from moderay import api

    if verify is not None:
        _verify(job, sets, verify)
        return
    checked = api.check(job, sets or ())
    warn_of_model(checked.job.model)
    with libraries_in_file():
        found = api.tune(
            checked,
            recall=recall,
            precision=precision,
            confidence=confidence,
            policy=policy,
            efforts=effort or None,
            labels=labels,
            explains=not no_rationale,
            rows=rows,
            folder=folder,
        )
    if as_json:
        print(found.record.to_json().decode())
    elif not quiet:
        _show(found, folder)
    raise typer.Exit(int(found.record.chosen is None))


def _show(found: Tuned, folder: Path | None) -> None:
    from moderay.cli.tune_table import show_tuned

    show_tuned(found)
    if folder is not None:
        out.print(f"written: {printable(str(folder))}/", soft_wrap=True)


def _verify(job: Path, sets: list[str] | None, file: Path) -> None:
    """Say what of a certificate does not hold."""
    from moderay import api

    differences = api.voided(file, job, sets or ())
    for difference in differences:
        warn(difference)
    if differences:
        warn(f"{file}: the certificate does not hold for {job}: tune again")
        raise typer.Exit(1)
    out.print(f"{printable(str(file))}: the certificate holds", soft_wrap=True)
