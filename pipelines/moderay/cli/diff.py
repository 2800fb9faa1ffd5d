"""diff: two outputs of the same input beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moderay.cli.console import Quiet, Sets, libraries_in_file, storage_of, warn, warn_of_model
from moderay.core.errors import UserError
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.tasks.diff.records import DiffRecord


def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A | JOB", help="Folder of labels; or a job, with --policy.", show_default=False
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
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Rows that --policy judges, about as many.")
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

    share = _share(max_flips)
    shown = list(columns or ())
    if policy is not None:
        of_outputs = {"B": b, "--job": job, "--column": columns, "--gold": gold}
        _refuse_for_policy({**of_outputs, "--common": common, "--parquet": parquet})
        shown = ["content"]
        warn_of_model(api.load_job(a, sets or ()).model)
        with libraries_in_file():
            found = api.diff_policy(a, policy, sets or (), sample=sample, show=show)
    elif b is None:
        raise UserError("diff takes two folders of labels, or a job and --policy DIR")
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
    if as_json:
        print(found.record.to_json().decode())
    elif not quiet:
        show_comparison(found, shown)
    exceeded = _exceeded(found.record, int(max_flips) if share is None else share)
    for line in exceeded if strict else ():
        warn(line)
    raise typer.Exit(1 if strict and exceeded else 0)


def _refuse_for_policy(options: Mapping[str, object]) -> None:
    """Raises `UserError` for what is of two outputs."""
    if given := [name for name, value in options.items() if value]:
        raise UserError(f"{given[0]} is of two outputs; --policy judges a job's content")


def _share(max_flips: str) -> float | None:
    """The share that is meant; None for a number of rows.

    Raises:
        UserError: It is neither.
    """
    if max_flips.isdecimal():
        return None
    try:
        share = float(max_flips)
    except ValueError:
        share = -1.0
    if 0 <= share <= 1:
        return share
    raise UserError(f"--max-flips {max_flips}: a number of rows such as 100, or a share up to 1.0")


def _exceeded(record: DiffRecord, most: float) -> list[str]:
    """What is to be said of each policy with more flips; `most`: rows (int), or a share (float)."""
    lines = []
    for name, policy in record.policies.items():
        flips = policy.to_violating + policy.to_safe
        allowed = most if isinstance(most, int) else most * policy.judged
        if flips > allowed:
            lines.append(f"{name}: {counted(flips, 'flip')}, more than --max-flips {most:,}")
    return lines
