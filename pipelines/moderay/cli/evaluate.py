"""eval: labels beside what people said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from moderay.cli.console import (
    Quiet,
    Sets,
    err,
    libraries_in_file,
    out,
    printable,
    tell,
    warn_of_model,
)
from moderay.cli.policy import Effort, ModelName, chosen_model
from moderay.cli.tables import gate_shown, show_outcome
from moderay.core.errors import UserError

if TYPE_CHECKING:
    from moderay.pipeline.check import Checked
    from moderay.tasks.evaluate.result import Evaluated


def eval_(
    what: Annotated[
        list[Path],
        typer.Argument(
            metavar="JOB | POLICY...",
            help="A job file with gold: its labels, what is missing of them first; several with "
            "--summary. Or policy folders: their golden sets.",
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
    summary: Annotated[
        bool,
        typer.Option(
            "--summary", help="One table of several jobs, beside the figures in their benchmark:."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print eval.json instead.")] = False,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Compare labels with what people said: how good they are, and how sure that is.

    Example: moderay eval policies/spam --model tiny
    """
    from moderay import api

    if summary:
        _refuse_for_summary(what, model, by, at)
        _summarise(what, sets, folder, as_json, quiet)
    if what[0].is_dir():
        _refuse_for_policies(by, sets)
        spec = chosen_model(model, effort)
        warn_of_model(spec)
        with libraries_in_file():
            found = api.evaluate_policies(what, spec, at=at)
    else:
        found = _of_job(what, model, by or (), at, sets, quiet or as_json)
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


def _refuse_for_summary(
    what: Sequence[Path], model: str | None, by: list[str] | None, at: str | None
) -> None:
    if folders := [each for each in what if each.is_dir()]:
        raise UserError(f"{folders[0]}: --summary is of jobs; policies are shown without it")
    if model is not None:
        raise UserError("--model is for policies; jobs' is set with --set model.source=...")
    if by:
        raise UserError("--by is of one job; a summary is by what each job names: benchmark.by")
    if at is not None:
        raise UserError("--at is of one job: a summary is of the thresholds that policies have")


def _summarise(
    what: list[Path], sets: list[str] | None, folder: Path | None, as_json: bool, quiet: bool
) -> NoReturn:
    """Evaluate jobs, and end."""
    from moderay import api
    from moderay.cli.benchmark_table import show_summary
    from moderay.pipeline.control.progress import Progress
    from moderay.tasks.evaluate.files import write_summary

    def begun(checked: Checked) -> Progress:
        if not quiet:
            tell(f"{checked.job.name}:")
        return Progress(None if quiet else err)

    with gate_shown(quiet):
        found = api.evaluate_benchmarks(what, sets or (), begun=begun)
    if folder is not None:
        each = {name: (one.evaluation, one.record) for name, one in found.evaluated.items()}
        write_summary(each, found.record, folder)
    if as_json:
        print(found.record.to_json().decode())
    elif not quiet:
        show_summary(found.record)
        _tell_folder(folder)
    raise typer.Exit(found.exit_status)


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
        raise UserError(
            f"{what[1]}: one job at a time, or policy folders alone; --summary takes several jobs"
        )
    if model is not None:
        raise UserError("--model is for policies; a job's is set with --set model.source=...")
    checked = api.check(what[0], sets or ())
    warn_of_model(checked.job.model)
    with gate_shown(quiet):
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
    from moderay.cli.benchmark_table import show_beside_published
    from moderay.cli.eval_table import show_evaluation

    show_evaluation(found.evaluation, found.record, show)
    if found.benchmark is not None:
        show_beside_published(found.benchmark)
    _tell_folder(folder)


def _tell_folder(folder: Path | None) -> None:
    if folder is not None:
        out.print(f"written: {printable(str(folder))}/", soft_wrap=True)
