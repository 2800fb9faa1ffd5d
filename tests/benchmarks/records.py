"""What a benchmark found: typed, as JSON and as a table.

A part of `make bench-full` is one module that measures, prints a table and, with `--json FILE`,
writes a `Part`. The runner reads those and nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table


class Record(BaseModel):
    """Frozen, and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Record):
    """One number, and what it was in each round: a median says nothing without its spread."""

    value: float
    rounds: tuple[float, ...] = ()

    def shown(self) -> str:
        """The value, and in brackets the lowest and the highest of several rounds."""
        if len(self.rounds) < 2:
            return f"{self.value:,.0f}" if self.value.is_integer() else number(self.value)
        return f"{number(self.value)} ({number(min(self.rounds))} to {number(max(self.rounds))})"


class Case(Record):
    """A row of the table: what was varied, and the figures by the name of their column."""

    name: str
    figures: Mapping[str, Figure] = {}
    note: str = ""


class Part(Record):
    """What one module measured.

    Attributes:
        part: Its name, as `full` knows it.
        title: For people.
        settings: What was the same in all cases: rows, rounds, threads, deadlines.
        columns: The figures' names, in the order of the table; units are in the names.
        cases: Whatever was measured, also where the time was over before the last.
        notes: What a reader must know to read the figures.
        left_out: What was not measured, and why.
        seconds: That it took.
    """

    part: str
    title: str
    settings: Mapping[str, float | str] = {}
    columns: tuple[str, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def figure(rounds: Iterable[float]) -> Figure:
    """The median of what was measured in each round."""
    measured = tuple(rounds)
    return Figure(value=statistics.median(measured), rounds=measured)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """The median of the rounds' ratios: what disturbs the machine in a round disturbs both."""
    return figure(one / other for one, other in zip(ours, theirs, strict=True))


def number(value: float) -> str:
    """Three digits of it, and all of those before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def lines_of(part: Part) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table's head and rows, a `-` where a case has no such figure."""
    head = ("", *part.columns)
    body = [
        (
            case.name,
            *[
                case.figures[column].shown() if column in case.figures else "-"
                for column in part.columns
            ],
        )
        for case in part.cases
    ]
    return head, body


def markdown(part: Part) -> str:
    """The part as a section of BENCHMARKS.md."""
    head, body = lines_of(part)
    text = [f"## {part.title}", ""]
    if part.settings:
        text += [", ".join(_setting(name, value) for name, value in part.settings.items()), ""]
    if body:
        rule = ("---", *["---:"] * len(part.columns))
        text += ["| " + " | ".join(row) + " |" for row in (head, rule, *body)]
        text.append("")
    text += [f"- {case.name}: {case.note}" for case in part.cases if case.note]
    text += [f"- {note}" for note in part.notes]
    text += [f"- Not measured: {missing}" for missing in part.left_out]
    return "\n".join(text).rstrip() + "\n"


def _setting(name: str, value: float | str) -> str:
    return f"{name}: {value}" if isinstance(value, str) else f"{name}: {value:,g}"


def show(part: Part, console: Console | None = None) -> None:
    """Print the part."""
    console = console or Console()
    head, body = lines_of(part)
    table = Table(title=part.title, title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in body:
        table.add_row(*row)
    console.print(table)
    settings = ", ".join(_setting(name, value) for name, value in part.settings.items())
    about = (f"{case.name}: {case.note}" for case in part.cases if case.note)
    missing = (f"not measured: {each}" for each in part.left_out)
    for line in filter(None, (settings, *about, *part.notes, *missing)):
        console.print(f"  {line}", markup=False, highlight=False)


def finish(part: Part, file: Path | None) -> None:
    """Print it, and write it where somebody wants the file."""
    show(part)
    if file is not None:
        file.write_text(part.to_json(), encoding="utf-8")
