"""diff: two outputs of the same input beside each other, or judges beside themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from moderay.cli.console import Quiet, Sets, libraries_in_file, storage_of, warn, warn_of_model
from moderay.core.errors import UserError
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.tasks.diff.result import Repeated


def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A | JOB",
            help="Folder of labels; or a job, with --policy or --repeat.",
            show_default=False,
        ),
    ],
    b: Annotated[
        str | None,
        typer.Argument(metavar="B", help="Other labels of the same input.", show_default=False),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            metavar="DIR",
            help="Another version of a policy of the job: judge a sample under both.",
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            "--repeat",
            min=2,
            max=20,
            metavar="N",
            help="Judge a sample of the job N times: how often the judges contradict themselves.",
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option("--sample", min=1, help="Rows to judge with these, about as many."),
    ] = 2000,
    common: Annotated[
        bool,
        typer.Option("--common", help="Compare the rows alone that both hold, unchanged."),
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="NAME", help="Show this column of the input too, such as text."
        ),
    ] = None,
    show: Annotated[
        int, typer.Option("--show", min=0, help="Flips of each policy that are printed.")
    ] = 6,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write all flips there.")
    ] = None,
    gold: Annotated[
        list[str] | None,
        typer.Option(
            "--gold",
            metavar="[POLICY=]COLUMN",
            help="Column, carried by the first, of what people said: which of the two is better.",
        ),
    ] = None,
    max_flips: Annotated[
        str,
        typer.Option(
            "--max-flips",
            metavar="N|SHARE",
            help="Flips that one policy may have with --strict: rows, or a share such as 0.01.",
        ),
    ] = "0",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where a policy has more flips.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page to look at.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    job: Annotated[Path | None, typer.Option("--job", help="Job file: its storage.")] = None,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Show what changed from one output to another: which verdicts flipped, and why.

    Example: moderay diff labels labels-2 --column text --strict --max-flips 0.01
    """
    from moderay import api
    from moderay.cli.diff_table import show_comparison

    most = _most(max_flips)
    shown = list(columns or ())
    if policy is not None or repeat is not None:
        of_outputs = {"B": b, "--job": job, "--column": columns, "--gold": gold}
        _refuse_for_job({**of_outputs, "--common": common, "--parquet": parquet})
        shown = ["content"]
        warn_of_model(api.load_job(a, sets or ()).model)
    if policy is not None:
        with libraries_in_file():
            found = api.diff_policy(
                a, policy, sets or (), sample=sample, show=show, repeats=repeat or 1
            )
    elif repeat is not None:
        with libraries_in_file():
            repeated = api.diff_repeats(a, sets or (), repeats=repeat, sample=sample, show=show)
        _end_of_repeats(repeated, as_json, quiet, most if strict else None)
    elif b is None:
        raise UserError("diff takes two folders of labels, or a job and --policy DIR or --repeat N")
    else:
        found = api.diff(
            a,
            b,
            storage_of(job, sets),
            common=common,
            columns=shown,
            show=show,
            parquet=parquet,
            gold=gold or (),
        )
    if page is not None:
        from moderay.tasks.diff.page import comparison_page

        page.write_text(comparison_page(found, shown), "utf-8")
    if as_json:
        print(found.record.to_json().decode())
    elif not quiet:
        show_comparison(found, shown)
    flips = {
        name: (each.to_violating + each.to_safe, each.judged)
        for name, each in found.record.policies.items()
    }
    _end(flips, "flip", most if strict else None)


def _end_of_repeats(repeated: Repeated, as_json: bool, quiet: bool, most: float | None) -> NoReturn:
    from moderay.cli.repeat_table import show_repeats

    if as_json:
        print(repeated.record.to_json().decode())
    elif not quiet:
        show_repeats(repeated)
    rows = {
        name: (each.violates.rows, each.judged) for name, each in repeated.record.policies.items()
    }
    _end(rows, "contradicted row", most)


def _refuse_for_job(options: Mapping[str, object]) -> None:
    """Raises `UserError` for what is of two outputs."""
    if given := [name for name, value in options.items() if value]:
        raise UserError(
            f"{given[0]} is of two outputs; --policy and --repeat judge a job's content"
        )


def _most(max_flips: str) -> float:
    """What is allowed: a number of rows (int), or a share (float).

    Raises:
        UserError: It is neither.
    """
    if max_flips.isdecimal():
        return int(max_flips)
    try:
        share = float(max_flips)
    except ValueError:
        share = -1.0
    if 0 <= share <= 1:
        return share
    raise UserError(f"--max-flips {max_flips}: a number of rows such as 100, or a share up to 1.0")


def _end(found: Mapping[str, tuple[int, int]], noun: str, most: float | None) -> NoReturn:
    """The end of the command: 1 where a policy has more flips than it may.

    Args:
        found: By policy, rows that count, and rows that were judged.
        noun: What these rows are.
        most: As of `_most`; None where any number is allowed.
    """
    exceeded = False
    if most is None:
        raise typer.Exit(0)
    for name, (rows, judged) in found.items():
        if rows > (most if isinstance(most, int) else most * judged):
            exceeded = True
            warn(f"{name}: {counted(rows, noun)}, more than --max-flips {most:,}")
    raise typer.Exit(1 if exceeded else 0)
