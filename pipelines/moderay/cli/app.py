"""The command line: every command by its name, and how the process ends.

Exit status: 0 done, 1 finished with rows or shards missed, 2 change something, 3 try again.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from moderay.cli import (
    cluster,
    decide,
    diff,
    evaluate,
    explain,
    export,
    flat,
    job,
    labels,
    policy,
    policy_folder,
    prevalence,
    review,
    start,
    trial,
    tune,
)
from moderay.cli.console import warn
from moderay.core.errors import ModerayError, Problems

# How it is called, however it was started.
NAME = "moderay"
EXIT_STATUS = """\
Exit status:
  0  done
  1  finished, but rows, shards or floors were missed
  2  change something first: the message says what
  3  run the same command again: it goes on from what is saved"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_STATUS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import moderay

        print(f"{NAME} {moderay.__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it."),
    ] = False,
) -> None:
    """Label a corpus by policy.

    Example: moderay check job.yaml && moderay run job.yaml --limit 50 --show
    """


# In the order in which people meet them.
for command in (
    start.init,
    job.check,
    job.plan,
    job.run,
    flat.labels,
    explain.explain,
    evaluate.eval_,
    diff.diff,
    labels.filter,
    decide.decide,
    labels.trend,
    labels.calibrate,
    tune.tune,
    labels.report,
    review.review,
    prevalence.prevalence,
    labels.verify,
    trial.try_,
    policy.label,
    policy.render,
    cluster.submit,
    cluster.status,
    cluster.logs,
    cluster.stop,
):
    app.command(command.__name__.removesuffix("_"))(command)
app.add_typer(policy_folder.policy, name="policy")
app.add_typer(export.export, name="export")
app.add_typer(review.golden, name="golden")


@contextmanager
def _machine_errors() -> Iterator[None]:
    """Of files that commands write beside an output, such as charts and bands."""
    try:
        yield
    except OSError as error:
        from moderay.core.storage import exhausted

        if (limit := exhausted("", error)) is None:
            raise
        raise limit from error


def process() -> None:
    """The process of a command line: `main`, and the end of a Ray that cannot end in good order."""
    try:
        main()
    except SystemExit as end:
        if "ray" in sys.modules:
            from moderay.core.ray_runtime import leave_lost

            leave_lost(int(end.code or 0))
        raise


def main() -> None:
    """Errors that a person can mend end in one sentence."""
    # A thread of Ray Data that outlives a stopped run must not start another cluster as this
    # process ends.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    # Ray would print to stdout what its processes died of; what matters of it is in the sentence.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    try:
        with _machine_errors():
            app(prog_name=NAME)
    except Problems as error:
        for problem in error.problems:
            warn(str(problem))
        count = len(error.problems)
        warn(f"{count} problem{'s' if count > 1 else ''}; nothing was written")
        sys.exit(error.exit_status)
    except ModerayError as error:
        warn(f"moderay: {error}")
        # Threads of Ray Data that end with this process would tell of it at length.
        logging.disable()
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        warn("moderay: stopped; nothing had been judged yet")
        sys.exit(3)
