"""The command line: every command by its name, and how the process ends.

Exit status: 0 done, 1 finished with rows or shards missed, 2 change something, 3 try again.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from moderay.cli import cluster, flat, job, labels, policy
from moderay.cli.console import warn
from moderay.core.errors import ModerayError, Problems

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Label a corpus by policy.",
)
# In the order in which people meet them.
for command in (
    job.check,
    job.plan,
    job.run,
    flat.labels,
    labels.filter,
    labels.trend,
    labels.calibrate,
    labels.verify,
    policy.label,
    policy.render,
    cluster.submit,
    cluster.status,
    cluster.logs,
    cluster.stop,
):
    app.command()(command)


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


def main() -> None:
    """Entry point: errors that a person can mend end in one sentence."""
    # A thread of Ray Data that outlives a stopped run must not start another cluster as this
    # process ends.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        with _machine_errors():
            app(standalone_mode=True)
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
