"""filter, trend, calibrate: what is done with labels."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from moderay.cli.console import (
    JobFile,
    Quiet,
    Sets,
    err,
    out,
    pairs_of,
    printable,
    show_table,
    storage_of,
    tell,
    waiting,
    warn,
    warn_of_model,
)
from moderay.cli.tables import show_filter, show_outcome
from moderay.cli.trend_table import show_trend
from moderay.core.wording import are, counted

if TYPE_CHECKING:
    from moderay.config.job import Unselected
    from moderay.pipeline.check import Checked
    from moderay.pipeline.outcome import Outcome


# Seconds between two lines of a filter's progress, where there is no terminal.
FILTER_LINE_S = 10.0


def filter(
    job: Annotated[
        Path | None,
        typer.Argument(
            help="Job file (YAML): what of it is not labelled yet is labelled first.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", metavar="RULE", help="Rows to keep: Polars SQL over verdicts and columns."
        ),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", help="Where kept/, removed/ and held/ go; or delta://..."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="DIR", help="Finished labels, instead of a job."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="POLICY=NUMBER", help="Decide a policy under another threshold."
        ),
    ] = None,
    unselected: Annotated[
        str | None,
        typer.Option("--unselected", help="Rows that were not to be judged: keep, remove or hold."),
    ] = None,
    verdicts: Annotated[
        bool, typer.Option("--verdicts", help="Kept rows have the verdict columns too.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Filter anew what was filtered by another rule."),
    ] = False,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Remove the rows from the input, a Delta table, in one commit."
        ),
    ] = False,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Keep the rows that a rule over their labels allows; remove or hold the others.

    Example: moderay filter job.yaml --keep 'NOT spam.violates' --out clean
    """
    from moderay import api
    from moderay.pipeline.control.progress import Progress

    checked = None if job is None else api.check(job, sets or ())
    runs: list[Outcome] = []
    bar = err.status("filtering")
    shown_at = -math.inf

    def labelled(outcome: Outcome) -> None:
        assert checked is not None
        show_outcome(checked, outcome, quiet)
        runs.append(outcome)

    def filtered(shards: int, total: int) -> None:
        nonlocal shown_at
        if quiet:
            return
        line = f"filtering: {shards:,} of {counted(total, 'shard')}"
        if err.is_terminal:
            bar.start()
            bar.update(line)
        elif shards == total or time.monotonic() - shown_at >= FILTER_LINE_S:
            shown_at = time.monotonic()
            tell(line)

    if checked is not None:
        warn_of_model(checked.job.model)
    try:
        done = api.filter(
            checked,
            labels=labels,
            keep=keep,
            out=folder,
            thresholds=threshold or (),
            unselected=cast("Unselected | None", unselected),  # checked with the rest
            verdicts=verdicts,
            replace=replace,
            in_place=in_place,
            progress=Progress(None if quiet else err),
            labelled=labelled,
            filtered=filtered,
        )
    finally:
        bar.stop()
    show_filter(done, folder or _folder_of_job(checked), quiet)
    raise typer.Exit(max([done.exit_status, *[outcome.exit_status for outcome in runs]]))


def _folder_of_job(checked: Checked | None) -> str:
    return checked.job.filter.out if checked is not None and checked.job.filter is not None else ""


def trend(
    outputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Outputs, folders of outputs, or globs. Default: the job's output.",
            show_default=False,
        ),
    ] = None,
    job: Annotated[
        Path | None, typer.Option("--job", help="Job file: its alarms, and its storage.")
    ] = None,
    nights: Annotated[
        int, typer.Option("--nights", min=1, help="Nights to look at, the last ones.")
    ] = 30,
    price: Annotated[
        float | None, typer.Option("--gpu-hour", help="What an hour of a GPU costs.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="Draw it: .png, .svg or .pdf.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 with an alarm.")] = False,
    sets: Sets = None,
) -> None:
    """Show nights side by side: flagged shares, changes, failures, cost; and alarms.

    Example: moderay trend 'labels/date=*' --nights 14 --chart trend.png
    """
    from moderay import api
    from moderay.labels.analysis.chart import picture
    from moderay.labels.analysis.trend import trend_json

    compared = api.trend(job, sets or (), outputs=outputs or (), nights=nights)
    if chart is not None:
        picture(compared, chart)
    if as_json:
        print(trend_json(compared))
    else:
        show_trend(compared, price)
    raise typer.Exit(int(strict and bool(compared.alarms)))


def report(
    output: Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write it here. Default: _moderay/report.html in it."
        ),
    ] = None,
    contents: Annotated[
        bool,
        typer.Option(
            "--contents/--no-contents", help="Whether contents of the rows that it shows are in it."
        ),
    ] = True,
    job: Annotated[Path | None, typer.Option("--job", help="Job file: its storage.")] = None,
    sets: Sets = None,
) -> None:
    """Show labels on one page to open in a browser: counts, charts, costs, a few rows.

    Example: moderay report labels --out report.html
    """
    from moderay import api

    made = api.report(output, storage_of(job, sets), out=file, contents=contents)
    out.print(
        f"report: {printable(made.place)} ({made.size / 1e6:.2f} MB, "
        f"{counted(made.samples, 'sample')})",
        soft_wrap=True,
    )


def verify(
    output: Annotated[str, typer.Argument(help="Folder of labels.", show_default=False)],
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Remove what is broken, so that the next run makes it again."
        ),
    ] = False,
    job: Annotated[Path | None, typer.Option("--job", help="Job file: its storage.")] = None,
    sets: Sets = None,
) -> None:
    """Read labels in full and hold them against their markers; say what is wrong.

    Example: moderay verify labels
    """
    from moderay import api

    with err.status(f"verifying {printable(output)}"):
        verified = api.verify(output, storage_of(job, sets), repair=repair)
    for run in verified.writing:
        warn(f"note: run {run} holds a part of it: what it has in work may show as broken")
    for finding in verified.findings:
        warn(f"{finding.path}: {finding.problem}; {finding.remedy}")
    dropped = sum(len(finding.drop) for finding in verified.findings) if verified.repaired else 0
    out.print(
        f"{printable(output)}: {counted(verified.shards, 'shard')} with "
        f"{counted(verified.rows, 'row')} {are(verified.shards)} whole"
        + (f", {counted(len(verified.findings), 'finding')}" if verified.findings else "")
        + (f"; {counted(dropped, 'file')} removed: run the job again" if dropped else ""),
        soft_wrap=True,
    )
    raise typer.Exit(verified.exit_status)


def calibrate(
    job: JobFile,
    policy: Annotated[str, typer.Option("--policy", help="Id of the policy.")],
    folder: Annotated[
        Path, typer.Option("--out", help="Folder to write, which the job's cascade then names.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="OUTPUT",
            help="An output of the same input, judged by the job's last judge.",
        ),
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(
            "--gold",
            metavar="COLUMN",
            help="An input column in which people said, or a condition, such as "
            "\"class = 'ad'\"; null is unknown. Or reviews: what they said in moderay review.",
        ),
    ] = None,
    judge: Annotated[
        Literal["screen", "glance", "reason"],
        typer.Option("--judge", help="What to make; of reason a map of its P to what people said."),
    ] = "screen",
    max_miss: Annotated[
        float, typer.Option("--max-miss", help="Share of violations that may be missed.")
    ] = 0.05,
    confidence: Annotated[float, typer.Option("--confidence", help="How sure that is.")] = 0.95,
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Contents to calibrate on at most, chosen by hash.")
    ] = 200_000,
    train_part: Annotated[
        bool,
        typer.Option("--train-part", help="Leave out what tune selects and certifies cascades on."),
    ] = False,
    cross_fit: Annotated[
        bool,
        typer.Option(
            "--cross-fit",
            help="Train the screen and set its cut-off on all labels: it settles more, and its "
            "promise is an estimate.",
        ),
    ] = False,
    sets: Sets = None,
) -> None:
    """Make a screen, or a band, that misses at most a stated share of violations.

    Of reason: fit P to what people said, without a model and without touching its weights.

    Example: moderay calibrate job.yaml --policy spam --from labels --out screen
    """
    from moderay import api

    with waiting(f"calibrating a {judge} for {policy}"):
        made = api.calibrate(
            job,
            sets or (),
            policy=policy,
            out=folder,
            labels=labels,
            gold=gold,
            judge=judge,
            max_miss=max_miss,
            confidence=confidence,
            rows=rows,
            train_part=train_part,
            cross_fit=cross_fit,
        )
    table = pairs_of()
    for title, text in made.items():
        table.add_row(title, printable(text))
    show_table(table)
    in_job = printable(str(folder))
    if judge == "reason":
        in_job = f"{{calibration: {in_job}}}"
    out.print(
        f"written: {printable(str(folder))}; in the job: - {judge}: {in_job}",
        soft_wrap=True,
    )
