"""What every command shares: the two consoles, the common arguments, printing safely."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from moderay.core.errors import inert
from moderay.core.redaction import shown

if TYPE_CHECKING:
    from moderay.config.job import Model

out = Console()
err = Console(stderr=True)

JobFile = Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of the job, such as output.path=labels."
    ),
]

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, notes or summary; warnings and errors alone."),
]


def storage_of(job: Path | None, sets: list[str] | None) -> Mapping[str, Any]:
    """The `storage:` of a job file, for commands that take an output's folder."""
    if job is None:
        return {}
    from moderay import api

    return api.load_job(job, sets or ()).storage


def printable(text: str) -> str:
    """Text without what a terminal would obey, and without Rich's markup."""
    return escape(inert(text))


def warn(text: str) -> None:
    """A message on stderr, without secrets. Names in it may come from other people's storage."""
    print("\n".join(map(inert, shown(text).split("\n"))), file=sys.stderr)


def warn_of_model(model: Model) -> None:
    """What a person should know of a model before it judges."""
    from moderay.engines.checkpoint import TINY_NOTICE
    from moderay.engines.remote.access import KEY, is_private

    if model.endpoint is None and model.source == "tiny":
        warn(f"note: {TINY_NOTICE}")
    if model.endpoint is not None and not is_private(model.endpoint):
        warn(
            f"warning: contents go unencrypted to {model.endpoint}, and {KEY} is not sent there: "
            "https would carry both safely"
        )
