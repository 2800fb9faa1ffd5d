"""try: a policy that is being written, judged again whenever it is saved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moderay.cli.console import warn, warn_of_model
from moderay.cli.policy import Effort, ModelName, PolicyFolder, chosen_model
from moderay.core.errors import StoppedError, UserError

if TYPE_CHECKING:
    from moderay.config.job import Job, Model
    from moderay.tasks.workbench.rows import DataRows


def try_(
    policy: PolicyFolder,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="Judge rows of a file, a folder or a glob."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            "--content-column",
            metavar="COLUMN",
            help="The column of --data that is judged. Default: the only one of text.",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help="Which rows of --data.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows of --data.")] = 10,
    content: Annotated[
        list[str] | None,
        typer.Option("--content", metavar="TEXT", help="Judge this text; may be repeated."),
    ] = None,
    golden: Annotated[
        bool,
        typer.Option(
            "--golden", help="Judge the golden cases. Default: where nothing else is named."
        ),
    ] = False,
    model: ModelName = None,
    effort: Effort = "low",
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help="Serve label and render to programs of this machine meanwhile.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Judge once and print, as in a pipe.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON lines.")] = False,
) -> None:
    """Judge some rows again whenever the policy is saved, on an engine that stays warm.

    In a pipe it judges once, and ends with 1 where a golden case is judged otherwise.

    Example: moderay try policies/spam --golden --model tiny
    """
    spec = chosen_model(model, effort)
    # At once: what comes next takes seconds.
    warn(f"loading {spec.source} ...")
    from moderay.tasks.embedded_job import embedded_job
    from moderay.tasks.workbench.rows import DataRows, data_rows, text_row

    if data is None and (column or where):
        raise UserError("--content-column and --where are of rows of --data, which is missing")
    job, [loaded] = embedded_job("content", [policy], spec, {})
    warn_of_model(spec)
    rows = DataRows((), ()) if data is None else data_rows(data, column, where, limit, loaded.id)
    texts = [
        text_row(text, "content" if number == 1 else f"content {number}")
        for number, text in enumerate(content or (), start=1)
    ]
    rows = DataRows((*rows.rows, *texts), rows.files)
    is_page = not (once or as_json) and _has_terminal()
    golden = golden or not rows.rows
    if golden and not rows.rows:
        _refuse_no_cases(policy)
    try:
        status = asyncio.run(_try(policy, job, spec, rows, golden, port, is_page, as_json))
    except KeyboardInterrupt:
        raise StoppedError("stopped before all rows were judged", 3) from None
    raise typer.Exit(status)


def _has_terminal() -> bool:
    """Whether a page can be drawn, and somebody can type."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    is_able = os.environ.get("TERM", "dumb") != "dumb"
    return is_able and all(stream is not None and stream.isatty() for stream in streams)


def _refuse_no_cases(folder: Path) -> None:
    """Raises `UserError` where there is nothing to judge."""
    from moderay.config.policy import load_golden

    if not load_golden(folder):
        raise UserError(
            f"{folder}/golden.jsonl has no cases yet: name rows with --data or --content; "
            "in the page, a makes a row a case"
        )


async def _try(
    folder: Path,
    job: Job,
    model: Model,
    rows: DataRows,
    golden: bool,
    port: int | None,
    is_page: bool,
    as_json: bool,
) -> int:
    """The exit status."""
    from moderay.tasks.workbench.trial import Trial
    from moderay.tasks.workbench.workbench import opened

    async with contextlib.AsyncExitStack() as stack:
        bench = await stack.enter_async_context(opened(job))
        token = None
        if port is not None:
            from moderay.tasks.workbench.server import served

            token = await stack.enter_async_context(served(bench, port))
        trial = Trial(bench, folder, rows, golden)
        if is_page:
            from moderay.cli.trial_page import TrialPage

            page = TrialPage(trial, bench, f"{model.source}, effort {model.effort}", token)
            _end_on(signal.SIGTERM, page.exit)
            # With the terminal gone, textual 8.2 writes to it and reads its end for ever. The
            # engine ends with this process.
            signal.signal(signal.SIGHUP, lambda *_: _leave(bench.log, token))
            if (failure := await page.run_async()) is not None:
                raise failure
            return page.return_code or 0
        from moderay.cli.trial_text import has_missed, show_trial

        await trial.judge()
        show_trial(trial, as_json)
        if token is not None:
            sys.stdout.flush()
            warn(f"listening on port {port}; the token is in {token}; Ctrl-C ends it")
            stopped = asyncio.Event()
            _end_on(signal.SIGTERM, stopped.set)
            _end_on(signal.SIGINT, stopped.set)
            await stopped.wait()
            return 0
        return int(has_missed(trial))


def _leave(*files: Path | None) -> None:
    """End this process at once, without these files."""
    for file in files:
        if file is not None:
            file.unlink(missing_ok=True)
    os._exit(0)


def _end_on(sign: signal.Signals, end: Callable[[], object]) -> None:
    asyncio.get_running_loop().add_signal_handler(sign, end)
