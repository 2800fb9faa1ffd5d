"""What every command shares: the two consoles, the common arguments, printing safely."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from moderay.core.errors import inert

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Label a corpus by policy.",
)
out, err = Console(), Console(stderr=True)
JobFile = Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of the job, such as output.path=labels."
    ),
]
# Characters of a content that `run --show` prints.
SHOWN = 60


def printable(text: str) -> str:
    """Text without what a terminal would obey, and without Rich's markup."""
    from rich.markup import escape

    return escape(inert(text))


def _warn(text: str) -> None:
    """A message on stderr. Names in it may come from other people's storage."""
    print("\n".join(map(inert, text.split("\n"))), file=sys.stderr)
