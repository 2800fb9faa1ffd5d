"""export sft: what people decided, for a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moderay.cli.console import Sets, out, printable, show_table, table_of
from moderay.core.errors import UserError
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.tasks.export.records import SftRecord

export = typer.Typer(no_args_is_help=True, help="Hand on what people decided.")


@export.callback()
def _about() -> None:
    """Hand on what people decided."""


@export.command()
def sft(
    output: Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)],
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where it is written.")],
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="ID", help="Only this policy; once for each."),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Shares of train, validation and test.")
    ] = "0.9/0.05/0.05",
    balance: Annotated[
        Literal["weights", "sample", "none"],
        typer.Option("--balance", help="How a policy's two sides come to count the same."),
    ] = "weights",
    golden: Annotated[
        Literal["test", "train", "none"],
        typer.Option("--golden", help="Where golden cases go; train: split like the rest."),
    ] = "test",
    effort: Annotated[
        Literal["low", "medium", "high"] | None,
        typer.Option("--effort", help="Of reasoning. Default: the labels'."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Whose token ids: tiny, or a checkpoint's folder. Default: the labels'."
        ),
    ] = None,
    job: Annotated[
        Path | None, typer.Option("--job", help="Job file: its storage, and its golden sets.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Write what people decided as training conversations: Parquet, and a card.

    Example: moderay export sft labels --out sft --job job.yaml
    """
    from moderay import api

    if sets and job is None:
        raise UserError("--set is of a job: name it with --job")
    exported = api.export_sft(
        output,
        out=folder,
        policies=policies or (),
        split=split,
        balance=balance,
        golden=golden,
        effort=effort,
        model=model,
        job=job,
        sets=sets or (),
    )
    _show(exported.record)
    out.print(f"written: {printable(str(folder))}", soft_wrap=True)


def _show(record: SftRecord) -> None:
    names = ["violating", "safe", "reviews", "golden", "with reasoning"]
    table = table_of(["policy", "part"], names)
    for name, policy in record.policies.items():
        for part, counts in policy.parts.items():
            figures = (
                counts.violating,
                counts.safe,
                counts.reviews,
                counts.golden,
                counts.with_reasoning,
            )
            table.add_row(printable(name), part, *[f"{figure:,}" for figure in figures])
    show_table(table)
    for reason, count in record.left_out.items():
        out.print(f"left out: {counted(count, 'content')} ({reason})", soft_wrap=True)
