"""labels: an output's labels as one table, for whoever works on with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moderay.cli.console import Sets, err, storage_of
from moderay.core.errors import UserError, inert
from moderay.core.wording import counted


def labels(
    output: Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)],
    flagged: Annotated[
        bool, typer.Option("--flagged", help="Only rows that violate the policy.")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="RULE", help="Only rows for which this is true: Polars SQL."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME", help="Also this column of the input, such as id."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, as by default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Into one Parquet file.")
    ] = None,
    job: Annotated[Path | None, typer.Option("--job", help="Job file: its storage.")] = None,
    sets: Sets = None,
) -> None:
    """Print a row for each label and policy: file, row, policy, label, title, P, rationale.

    Example: moderay labels labels --flagged --where "probability > 0.9" > flagged.csv
    """
    from moderay.tasks.flat_labels import csv_lines, flat_labels, json_lines, write_flat_parquet

    if as_csv + as_json + (parquet is not None) > 1:
        raise UserError("--csv, --json and --parquet: choose one")
    flat = flat_labels(output, storage_of(job, sets), columns or (), flagged, where)
    if parquet is not None:
        rows = write_flat_parquet(flat, parquet)
        err.print(f"{counted(rows, 'row')}: {parquet}", soft_wrap=True, markup=False)
        return
    for lines in json_lines(flat) if as_json else csv_lines(flat):
        # A file gets texts as they are; a terminal, what it would not obey.
        sys.stdout.write(_inert_lines(lines) if sys.stdout.isatty() else lines)


def _inert_lines(lines: str) -> str:
    return "\n".join(map(inert, lines.split("\n")))
