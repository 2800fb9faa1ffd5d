"""prevalence: how much truly violates, by a few hundred reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moderay.cli.console import Sets, storage_of, told_if_slow
from moderay.core.errors import UserError


def prevalence(
    output: Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)],
    plan: Annotated[
        bool, typer.Option("--plan", help="Draw rows to review, and say how many it takes.")
    ] = False,
    width: Annotated[
        float | None,
        typer.Option(
            "--width", metavar="W", help="Of --plan: of the 95% interval, from end to end."
        ),
    ] = None,
    reviews: Annotated[
        int | None,
        typer.Option("--reviews", min=1, metavar="N", help="Of --plan: so many, instead."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="ID", help="Of labels under several policies."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Of --plan: another one draws other rows.")
    ] = 0,
    of_plan: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="PLAN", help="Estimate from this plan. Default: each policy's newest."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    job: Annotated[Path | None, typer.Option("--job", help="Job file: its storage.")] = None,
    sets: Sets = None,
) -> None:
    """Estimate how much truly violates: of all, of what is kept, of what is removed.

    Draw rows with --plan, have people review them, then call it without.

    Example: moderay prevalence labels --plan --width 0.02
    """
    import json

    from moderay import api
    from moderay.cli.prevalence_table import show_estimate, show_plan

    storage = storage_of(job, sets)
    if plan:
        if of_plan is not None:
            raise UserError("--id is of a plan that is there, and --plan makes one: choose one")
        with told_if_slow("drawing rows from the label files", quiet=as_json):
            made = api.plan_prevalence(
                output, storage, policy=policy, width=width, reviews=reviews, seed=seed
            )
        if as_json:
            print(made.to_json().decode())
        else:
            show_plan(made, output)
        return
    if width is not None or reviews is not None:
        raise UserError("--width and --reviews are of a plan: say --plan too")
    found = api.prevalence(output, storage, plan=of_plan, policy=policy)
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in found], indent=1))
    else:
        for each in found:
            show_estimate(each, output)
    raise typer.Exit(int(any(each.corpus is None for each in found)))
