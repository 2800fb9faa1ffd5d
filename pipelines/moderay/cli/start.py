"""init: what one begins with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from moderay.cli.console import out, printable, warn
from moderay.core.redaction import shown
from moderay.core.wording import counted


def init(
    folder: Annotated[
        Path, typer.Argument(help="Where; made where it is not there.", show_default=False)
    ] = Path(),
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="What is judged: a file, a folder or a glob. Default: the only such file in the "
            "folder, or an example.",
        ),
    ] = None,
    content: Annotated[
        str | None,
        typer.Option(
            "--content",
            metavar="COLUMN",
            help="The column that is judged. Default: the only one of text.",
        ),
    ] = None,
) -> None:
    """Make a job over your own file, and a policy to begin with.

    Example: moderay init first --data tweets.parquet --content text
    """
    from moderay.tasks.init.project import init_project

    made = init_project(folder, data, content)
    for file in made.files:
        out.print(f"written: {printable(str(file))}", soft_wrap=True)
    look = made.look
    out.print(
        f"it judges {printable(look.content)} of {printable(shown(look.path))}: "
        f"{counted(look.rows, 'row')}",
        soft_wrap=True,
    )
    if data is None and look.path.endswith("example.jsonl"):
        warn("note: the rows are made up: --data FILE takes your own")
    if look.left:
        warn(
            f"note: not carried over to the labels: {', '.join(look.left)} (the name of one of "
            "their columns, or no column that Parquet can hold)"
        )
    job, policy_folder = shlex.quote(str(made.job)), shlex.quote(str(made.policy))
    rows = f"--data {shlex.quote(made.data)} --content-column {shlex.quote(look.content)}"
    out.print("next:")
    for options in (
        f"try {policy_folder} {rows} --model tiny",
        f"run {job} --limit 5 --show",
        f"run {job}",
    ):
        out.print(f"  moderay {printable(options)}", soft_wrap=True, highlight=False)
