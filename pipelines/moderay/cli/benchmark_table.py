"""What `eval --summary` shows: several benchmarks beside published figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moderay.cli.console import out, printable, show_table, table_of
from moderay.cli.eval_table import NAMES, interval_text
from moderay.core.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from moderay.tasks.evaluate.benchmark_records import (
        BenchmarkRecord,
        CellRecord,
        PublishedRecord,
        SummaryRecord,
    )
    from moderay.tasks.evaluate.records import EvalRecord, FiguresRecord

# Of figures that a single evaluation has no line for.
_NAMES = NAMES | {"labels_right": "right labels", "policies_right": "every policy right"}


class _Notes:
    """Where published figures stand, each told once, by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, published: PublishedRecord) -> int:
        """Of a figure's note."""
        # A figure that stands in no cell stands here.
        value = "" if published.comparable else f" {published.value:.3f}, not comparable"
        note = f"; {published.note}" if published.note else ""
        text = f"{published.model}{value}{note}: {published.source}"
        return self._numbers.setdefault(text, len(self._numbers) + 1)

    def show(self) -> None:
        """All of them."""
        for text, number in self._numbers.items():
            out.print(f"\\[{number}] {printable(text)}", soft_wrap=True)


def show_summary(record: SummaryRecord) -> None:
    """One table of all benchmarks, its notes, and tables by the values of columns."""
    notes = _Notes()
    table = _table()
    for benchmark in record.benchmarks:
        title = printable(benchmark.name)
        if benchmark.missing is not None:
            table.add_row(f"[bold]{title}[/]: no data", *[""] * 4)
            continue
        table.add_row(f"[bold]{title}[/]", *[""] * 4)
        _add_cells(table, benchmark, notes, "  ")
    show_table(table)
    for benchmark in record.benchmarks:
        _show_what_is_not_there(benchmark)
    notes.show()
    for benchmark in record.benchmarks:
        if benchmark.evaluation is not None:
            _show_slices(benchmark.name, benchmark.evaluation)


def show_beside_published(benchmark: BenchmarkRecord) -> None:
    """The figures of one benchmark that others published too."""
    notes = _Notes()
    table = _table()
    _add_cells(table, benchmark, notes, "")
    show_table(table)
    notes.show()


def _table() -> Table:
    return table_of(["benchmark"], ["rows", "ours", "95%"], "published")


def _add_cells(table: Table, benchmark: BenchmarkRecord, notes: _Notes, indent: str) -> None:
    several = len({cell.policy for cell in benchmark.cells} - {None}) > 1
    for cell in benchmark.cells:
        value, interval = "-", ""
        if cell.ours is not None:
            value = f"{cell.ours.value:.3f}"
            interval = interval_text(cell.ours.low, cell.ours.high)
        table.add_row(
            indent + _title(cell, several), f"{cell.rows:,}", value, interval, _beside(cell, notes)
        )


def _title(cell: CellRecord, several: bool) -> str:
    """What a figure is of; `several`: whether the job has more than one policy."""
    figure = _NAMES[cell.figure]
    at = f", {printable(cell.at_or_above)} and above" if cell.at_or_above else ""
    if cell.figure == "policies_right" or not several:
        return f"{figure}{at}"
    return f"{printable(cell.policy or 'any of them')} {figure}{at}"


def _beside(cell: CellRecord, notes: _Notes) -> str:
    """The published figures, each value once, with the numbers of its notes."""
    numbers: dict[str, list[str]] = {}
    for each in cell.published:
        value = f"{each.value:.3f}" if each.comparable else "not comparable"
        numbers.setdefault(value, []).append(str(notes.number(each)))
    texts = [f"{value} \\[{', '.join(found)}]" for value, found in numbers.items()]
    return ", ".join(texts) or "none"


def _show_what_is_not_there(benchmark: BenchmarkRecord) -> None:
    name = printable(benchmark.name)
    if benchmark.missing is not None:
        out.print(f"{name}: {printable(benchmark.missing)}", soft_wrap=True)
        return
    assert benchmark.evaluation is not None
    missing = {
        policy: figures.whole.not_judged_safe + figures.whole.not_judged_violating
        for policy, figures in benchmark.evaluation.policies.items()
    }
    for policy, rows in missing.items():
        if rows:
            out.print(
                f"{name}: {counted(rows, 'row')} without a verdict under {printable(policy)}, "
                "which no figure counts",
                soft_wrap=True,
            )


def _show_slices(name: str, record: EvalRecord) -> None:
    """A table for each policy and column: of kinds that are all safe or all violate, accuracy."""
    for policy, figures in record.policies.items():
        for column, values in figures.slices.items():
            of = "" if len(record.policies) == 1 else f", {policy}"
            title = printable(f"{name}{of} by {column}")
            table = table_of([title], ["rows", "violate", "accuracy", "95%"])
            for value, found in {**values, "all": figures.whole}.items():
                table.add_row(printable(value), *_accuracy(found))
            show_table(table)


def _accuracy(found: FiguresRecord) -> list[str]:
    violating = found.true_positives + found.false_negatives + found.not_judged_violating
    figure = found.figures.get("accuracy")
    shown = ["-", ""]
    if figure is not None:
        shown = [f"{figure.value:.3f}", interval_text(figure.low, figure.high)]
    return [f"{found.rows:,}", f"{violating:,}", *shown]
