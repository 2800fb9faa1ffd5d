"""policy new, lint, import, show: what is done with a policy's folder, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from moderay.cli.console import Sets, out, printable, warn
from moderay.core.errors import UserError
from moderay.core.wording import counted

policy = typer.Typer(no_args_is_help=True, help="Make policies, and look at them.")

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]


@policy.command()
def new(
    policy_id: Annotated[
        str, typer.Argument(metavar="ID", help="Such as hate_speech.", show_default=False)
    ],
    folder: Annotated[
        Path, typer.Option("--folder", help="Where the policy's folder is made.")
    ] = Path("policies"),
) -> None:
    """Make one more policy, with a word on every key, and places to fill in.

    Example: moderay policy new hate_speech
    """
    from moderay.tasks.init.policy import new_policy

    for file in new_policy(policy_id, folder):
        out.print(f"written: {printable(str(file))}", soft_wrap=True)
    job = folder.parent / "job.yaml"
    beside = job.is_file()
    line = Path(folder.name if beside else folder) / policy_id
    out.print("fill in what stands in brackets: moderay policy lint lists it;", end=" ")
    out.print(f"in {printable(str(job)) if beside else 'the job'}, under policies:")
    out.print(f"  - {printable(str(line))}", soft_wrap=True, highlight=False)


@policy.command()
def lint(
    policies: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[POLICY]...", help="Policy folders.", show_default=False),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option("--job", metavar="JOB", help="The policies of a job, side by side as well."),
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Say what is doubtful in policies and their golden sets, with lines and hints.

    Exit status 1 where something is doubtful, 2 where a policy does not load; what is only to be
    filled in is 0.

    Example: moderay policy lint policies/spam policies/harassment
    """
    from moderay.cli.policy_text import show_linted
    from moderay.tasks.policy.lint import lint_job, lint_policies

    if bool(policies) == (job is not None):
        raise UserError("name policies' folders, or a job with --job: one of the two")
    if sets and job is None:
        raise UserError("--set is for a job: name it with --job")
    found = lint_job(job, sets or ()) if job is not None else lint_policies(policies or ())
    show_linted(found, as_json)
    raise typer.Exit(2 if found.problems else int(found.doubtful > 0))


@policy.command("import")
def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Its files, or their folder: a text or Markdown, and cases as CSV, JSON lines, "
            "JSON or YAML.",
            show_default=False,
        ),
    ],
    policy_id: Annotated[
        str, typer.Option("--id", metavar="NAME", help="Of the new policy, such as spam_pack.")
    ],
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the policy's folder is made.")
    ] = Path("policies"),
) -> None:
    """Make a policy of one that was published in another form, and name what has no place.

    Example: moderay policy import spam_pack --id spam_pack
    """
    from moderay.tasks.policy.importing.importing import import_policy

    made = import_policy(sources, policy_id, folder)
    for file in made.files:
        out.print(f"written: {printable(str(file))}", soft_wrap=True)
    counts = ", ".join(f"{label} {count:,}" for label, count in made.labels.items())
    out.print(f"{counted(made.cases, 'golden case')}: {printable(counts)}", soft_wrap=True)
    sides = (", ".join(made.safe), ", ".join(made.violating))
    out.print(
        f"taken as safe: {printable(sides[0])}; as violating: {printable(sides[1])}", soft_wrap=True
    )
    for note in made.notes:
        warn(str(note))
    out.print("next:")
    lint_line = f"  moderay policy lint {folder / policy_id}"
    out.print(printable(lint_line), soft_wrap=True, highlight=False)


@policy.command()
def show(
    folder: Annotated[
        Path, typer.Argument(metavar="POLICY", help="Policy folder.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Show where a policy's tokens go, its labels, and what its golden set has.

    Example: moderay policy show policies/spam
    """
    from moderay.cli.policy_text import show_outline
    from moderay.tasks.policy.show import outline

    seen = outline(folder)
    if as_json:
        print(json.dumps(seen.as_json(), ensure_ascii=False))
    else:
        show_outline(seen)
