"""review: people answer for labels; golden add: what they answered becomes golden cases."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moderay.cli.console import Sets, out, printable, storage_of, tell, warn
from moderay.cli.review_table import show_agreement, show_progress
from moderay.core.errors import UserError
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.tasks.review.serving import ReviewRequest

golden = typer.Typer(no_args_is_help=True, help="Golden cases of what people answered.")

Output = Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)]
Policies = Annotated[
    list[str] | None, typer.Option("--policy", metavar="ID", help="Policies. Default: all.")
]
JobOption = Annotated[
    Path | None, typer.Option("--job", metavar="JOB", help="Job file: its storage, and its gold.")
]


def review(
    output: Output,
    reviewers: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="NAME", help="Who reviews; several get a link each."),
    ] = None,
    policies: Policies = None,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="NAME",
            help="borderline, flagged, safe, disagreement, audit (these by default), gold, "
            "prevalence.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, help="Contents of each queue and policy.")
    ] = 20,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="ID", help="Of a prevalence plan: its rows.")
    ] = None,
    assisted: Annotated[
        bool, typer.Option("--assisted", help="Show the model's verdict before the answer.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write the tasks for Label Studio instead."),
    ] = None,
    import_: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Take Label Studio's answers instead."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others may come to it then.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any.")] = 8770,
    job: JobOption = None,
    sets: Sets = None,
) -> None:
    """Let people label contents on a page of this machine, and keep every answer.

    Example: moderay review labels --as anna
    """
    from moderay.tasks.review.opening import review_request, wanted_rows
    from moderay.tasks.review.serving import default_reviewer

    if export is not None and import_ is not None:
        raise UserError("--export beside --import: leave one of them out")
    storage = storage_of(job, sets)
    if import_ is not None:
        _import(output, storage, import_, reviewers or ())
        return
    checked = None
    if job is not None and "gold" in (queues or ()):
        from moderay import api

        checked = api.check(job, sets or ())
    # Tasks that are exported are nobody's yet.
    names = reviewers or ["nobody" if export is not None else default_reviewer(os.environ)]
    wanted = wanted_rows(queues or (), count, checked, plan)
    request = review_request(output, storage, names, policies or (), wanted)
    if export is not None:
        from moderay.tasks.review.label_studio.exporting import export_tasks

        for file in export_tasks(request.output, request.items, export):
            out.print(f"written: {printable(str(file))}", soft_wrap=True)
        tell(f"{counted(len(request.items), 'task')}")
        return
    _serve(replace(request, assisted=assisted, host=host, port=port))


def _serve(request: ReviewRequest) -> None:
    from moderay.tasks.review.agreement import agreements
    from moderay.tasks.review.serving import is_loopback, review_server

    if not request.items:
        raise UserError("no content is in these queues: name others with --queue")
    if not is_loopback(request.host):
        warn(
            f"warning: {request.host} is reached from other machines, and contents and answers go "
            "there unencrypted: give each link to its reviewer alone"
        )
    with review_server(request) as server:
        for name, link in server.links.items():
            out.print(f"{printable(name)}: {printable(link)}", soft_wrap=True, highlight=False)
        tell(f"{counted(len(request.items), 'content')} to review; Ctrl-C ends it")
        server.serve()
    server.desk.refresh()
    show_progress({name: server.desk.progress(name) for name in request.reviewers})
    show_agreement(agreements(server.desk.answers(), server.desk.policies))


def _import(output: str, storage: Mapping[str, Any], file: Path, reviewers: Sequence[str]) -> None:
    from moderay import api

    if len(reviewers) > 1:
        raise UserError("--as: one name, for answers whose file does not say whose they are")
    taken = api.import_reviews(output, file, storage, reviewer=next(iter(reviewers), None))
    out.print(
        f"{counted(taken.added, 'answer')} taken"
        + (f", {taken.known:,} known before" if taken.known else "")
        + (f", {counted(taken.unanswered, 'task')} without one" if taken.unanswered else ""),
        soft_wrap=True,
    )


@golden.command()
def add(
    output: Output,
    policies: Policies = None,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where the policies' folders are.")
    ] = Path("policies"),
    job: JobOption = None,
    sets: Sets = None,
) -> None:
    """Make golden cases of what people answered.

    Example: moderay golden add labels --policy spam
    """
    from moderay import api

    added = api.add_golden(output, storage_of(job, sets), policies=policies or (), folder=folder)
    if all(each.is_nothing for each in added):
        raise UserError("nobody has reviewed anything of it yet: moderay review asks people")
    for each in added:
        notes = [
            f"{number:,} {what}"
            for number, what in (
                (each.known, "there before"),
                (each.disputed, "disputed"),
                (each.void, "of another text of the policy"),
                (len(each.unreadable), "whose content cannot be read"),
            )
            if number
        ]
        line = f"{each.file}: {counted(each.added, 'golden case')} added"
        out.print(printable(", ".join([line, *notes])), soft_wrap=True, highlight=False)
        for reason in each.unreadable[:3]:
            warn(reason)
