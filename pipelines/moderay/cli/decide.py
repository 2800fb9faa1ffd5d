"""decide: what people said and other thresholds, over finished labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from moderay.cli.console import (
    Quiet,
    Sets,
    err,
    out,
    printable,
    show_table,
    storage_of,
    table_of,
    warn,
)
from moderay.core.wording import are, counted


def decide(
    output: Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)],
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="POLICY=NUMBER", help="Decide a policy under another threshold."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    job: Annotated[Path | None, typer.Option("--job", help="Job file: its storage.")] = None,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Apply what people said in reviews, and other thresholds, to finished labels; no model runs.

    Example: moderay decide labels --threshold spam=0.7
    """
    from moderay import api

    with err.status(f"deciding {printable(output)}") as bar:

        def progress(done: int, total: int) -> None:
            bar.update(f"deciding {printable(output)}: {done:,} of {counted(total, 'shard')}")

        decided = api.decide(output, threshold or (), storage_of(job, sets), progress=progress)
    for name in decided.lost:
        warn(f"missing: {name}: its label file is not the one that was published; run its job")
    if as_json:
        print(decided.model_dump_json(indent=1))
    else:
        _show(decided, quiet)
    raise typer.Exit(int(bool(decided.lost)))


def _show(decided: Any, quiet: bool) -> None:
    """What changed, by policy, and what a person should know of it."""
    table = table_of(
        ["policy"],
        ["threshold", "flagged before", "flagged", "by people before", "by people", "reversed"],
    )
    for name, policy in decided.policies.items():
        threshold = f"{policy.threshold:g}"
        if policy.threshold != policy.threshold_before:
            threshold = f"{policy.threshold_before:g} -> {threshold}"
        numbers = (
            policy.flagged_before,
            policy.flagged,
            policy.by_people_before,
            policy.by_people,
            policy.reversed,
        )
        table.add_row(name, threshold, *[f"{number:,}" for number in numbers])
    show_table(table)
    for name, policy in decided.policies.items():
        if policy.to_flagged or policy.to_safe:
            out.print(
                f"{name}: {counted(policy.to_flagged, 'row')} flagged that "
                f"{'was' if policy.to_flagged == 1 else 'were'} not, "
                f"{policy.to_safe:,} no longer",
                soft_wrap=True,
            )
    out.print(
        f"{printable(decided.output)}: {decided.rewritten:,} of "
        f"{counted(decided.shards, 'shard')} written again, {counted(decided.rows, 'row')}, "
        f"{decided.flagged:,} flagged",
        soft_wrap=True,
    )
    for note in () if quiet else _notes(decided):
        warn(f"note: {note}")


def _notes(decided: Any) -> list[str]:
    """What a person should know of what was not, or will not be, as it was asked for."""
    notes = []
    for name, policy in decided.policies.items():
        if policy.void:
            notes.append(
                f"{name}: {counted(policy.void, 'answer')} {are(policy.void)} void, since the "
                "policy's text has changed: they count for nothing until they are given again"
            )
        if policy.disputed:
            notes.append(
                f"{name}: on {counted(policy.disputed, 'content')} as many people say one side as "
                "the other: the judges' verdict stands there"
            )
        if policy.withdrawn:
            notes.append(
                f"{name}: {counted(policy.withdrawn, 'row')} {are(policy.withdrawn)} without a "
                "verdict, since only a person had judged them and took the answer back: "
                "moderay run JOB --retry-failed judges them"
            )
        if policy.threshold != policy.threshold_before:
            notes.append(
                f"{name}: a run of the job decides again by the threshold of the policy's file: "
                f"put threshold: {policy.threshold:g} there to keep it"
            )
    return notes
