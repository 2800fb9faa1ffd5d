"""What every command shares: the two consoles, the common arguments, printing safely."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console, ConsoleDimensions
from rich.markup import escape
from rich.table import Table

from moderay.core.errors import inert
from moderay.core.redaction import shown
from moderay.core.wording import alarm_line

if TYPE_CHECKING:
    from moderay.config.job import Model

# Wider than any line: in a pipe nothing is wrapped or cut.
PIPE_COLUMNS = 10_000


class CommandConsole(Console):
    """As wide as the terminal; in a pipe, as wide as what it prints."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        size = super().size
        return size if self.is_terminal else ConsoleDimensions(PIPE_COLUMNS, size.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self.width, self.height = new_size


out = CommandConsole()
err = CommandConsole(stderr=True)

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


def table_of(names: Sequence[str], figures: Sequence[str] = (), last: str | None = None) -> Table:
    """A table without rows yet, in which a terminal folds what is too long and cuts nothing.

    Args:
        names: headers of columns of words.
        figures: headers of columns of numbers, which come next.
        last: header of one more column of words.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", overflow="fold", no_wrap=True)
    if last is not None:
        table.add_column(last, overflow="fold")
    return table


def pairs_of() -> Table:
    """A table without rows yet, of titles and what belongs to them."""
    table = Table("", "", show_header=False, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def show_table(table: Table) -> None:
    """Print a table; in a pipe, a line for each row and no blanks around it."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    lines = captured.get().strip("\n").split("\n")
    print("\n".join(line.rstrip() for line in lines if line.strip()))


def warn(text: str) -> None:
    """A message on stderr, without secrets. Names in it may come from other people's storage."""
    print("\n".join(map(inert, shown(text).split("\n"))), file=sys.stderr)


def tell(text: str) -> None:
    """What begins now, for people who wait: on stderr."""
    print(inert(shown(text)), file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """What takes a while: in a terminal it is seen to go on; in a pipe it is a line."""
    if err.is_terminal:
        with err.status(text):
            yield
    else:
        tell(text)
        yield


def ring(alarm: object) -> None:
    """An alarm, in the one form in which it is told everywhere."""
    warn(alarm_line(alarm))


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
