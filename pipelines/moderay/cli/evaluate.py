"""eval: labels beside what people said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moderay.cli.console import (
    Quiet,
    Sets,
    err,
    libraries_in_file,
    out,
    printable,
    warn_of_model,
)
from moderay.cli.policy import Effort, ModelName, chosen_model
from moderay.cli.tables import show_outcome
from moderay.core.errors import UserError

if TYPE_CHECKING:
    from moderay.tasks.evaluate.result import Evaluated


def eval_(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="JOB | POLICY...",
            help="A job file with gold: its labels, what is missing of them first. Or policy "
            "folders: their golden sets.",
            show_default=False,
        ),
    ],
    model: ModelName = None,
    effort: Effort = "low",
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="COLUMN", help="Figures for each value of a column of the job's input."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="FIGURE=SHARE",
            help="Look for the best threshold with such a recall or precision.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write eval.json, disagreements.parquet and pictures."
        ),
    ] = None,
    show: Annotated[
        int, typer.Option("--show", min=0, help="Disagreements of each policy that are printed.")
    ] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print eval.json instead.")] = False,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Compare labels with what people said: how good they are, and how sure that is.

    Example: moderay eval policies/spam --model tiny
    """
    from moderay import api

    if what[0].is_dir():
        _refuse_for_policies(by, sets)
        spec = chosen_model(model, effort)
        warn_of_model(spec)
        with libraries_in_file():
            found = api.evaluate_policies(what, spec, at=at)
    else:
        found = _of_job(what, model, by or (), at, sets, quiet)
    _write(found, folder)
    if as_json:
        print(found.record.to_json().decode())
    elif not quiet:
        _show(found, show, folder)
    raise typer.Exit(0 if found.outcome is None else found.outcome.exit_status)


def _refuse_for_policies(by: list[str] | None, sets: list[str] | None) -> None:
    if by:
        raise UserError("--by is of a job's input; golden sets are shown by all that cases say")
    if sets:
        raise UserError("--set is of a job; golden sets have none")


def _of_job(
    what: list[Path],
    model: str | None,
    by: Sequence[str],
    at: str | None,
    sets: list[str] | None,
    quiet: bool,
) -> Evaluated:
    from moderay import api
    from moderay.pipeline.control.progress import Progress

    if len(what) > 1:
        raise UserError(f"{what[1]}: one job at a time, or policy folders alone")
    if model is not None:
        raise UserError("--model is for policies; a job's is set with --set model.source=...")
    checked = api.check(what[0], sets or ())
    warn_of_model(checked.job.model)
    found = api.evaluate(checked, by=by, at=at, progress=Progress(None if quiet else err))
    assert found.outcome is not None
    if found.outcome.worked and not quiet:
        show_outcome(checked, found.outcome, quiet)
    return found


def _write(found: Evaluated, folder: Path | None) -> None:
    if folder is not None:
        from moderay.tasks.evaluate.files import write_evaluation

        write_evaluation(found.evaluation, found.record, folder)


def _show(found: Evaluated, show: int, folder: Path | None) -> None:
    from moderay.cli.eval_table import show_evaluation

    show_evaluation(found.evaluation, found.record, show)
    if folder is not None:
        out.print(f"written: {printable(str(folder))}/", soft_wrap=True)
