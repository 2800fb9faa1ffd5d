"""explain: why a row has the verdicts that it has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moderay.cli.console import Sets, err
from moderay.core.errors import UserError, inert


def explain(
    output: Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)],
    row: Annotated[
        int | None,
        typer.Option("--row", min=0, help="Position in the input file, from 0: column row."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="FILE", help="Label file, where there are several."),
    ] = None,
    content_hash: Annotated[
        str | None,
        typer.Option("--hash", metavar="HASH", help="Instead of a row: column content_hash."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="ID", help="Only this policy.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    page: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write a page to print, HTML.")
    ] = None,
    job: Annotated[
        Path | None, typer.Option("--job", help="Job file: its storage and its policies' folders.")
    ] = None,
    sets: Sets = None,
) -> None:
    """State the reasons for a verdict: content, policy, judge, model, run, and who overruled.

    Example: moderay explain labels --row 3 --policy spam --job job.yaml
    """
    from moderay import api
    from moderay.cli.explain_text import show_explanation

    if sets and job is None:
        raise UserError("--set is of a job: name it with --job")
    explanation = api.explain(
        output,
        row=row,
        shard=shard,
        content_hash=content_hash,
        policy=policy,
        job=job,
        sets=sets or (),
        page=page,
    )
    if as_json:
        text = explanation.to_json().decode()
        # A file gets texts as they are; a terminal, what it would not obey.
        print("\n".join(map(inert, text.split("\n"))) if sys.stdout.isatty() else text)
    elif page is None:
        show_explanation(explanation)
    if page is not None:
        err.print(f"written: {page}", soft_wrap=True, markup=False)
