"""The command line. Exit status: 0 done, 1 finished with rows or shards missed, 2 change something,
3 try again.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from moderay.core.errors import ModerayError, Problems, UserError, inert
from moderay.core.verdicts import RETRYABLE, Status
from moderay.engines import checkpoint

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Label a corpus by policy.",
)
out, err = Console(), Console(stderr=True)

JobFile = Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of the job, such as output.path=labels."
    ),
]
# Characters of a content that `run --show` prints.
SHOWN = 60


def main() -> None:
    """Entry point: errors that a person can mend end in one sentence."""
    # A thread of Ray Data that outlives a stopped run must not start another cluster as this
    # process ends.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        app(standalone_mode=True)
    except Problems as error:
        for problem in error.problems:
            _warn(str(problem))
        print(
            (
                f"{len(error.problems)} problem{'s' if len(error.problems) > 1 else ''}; nothing "
                "was "
                "written"
            ),
            file=sys.stderr,
        )
        sys.exit(error.exit_status)
    except ModerayError as error:
        _warn(f"moderay: {error}")
        # Threads of Ray Data that end with this process would tell of it at length.
        logging.disable()
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("moderay: stopped; nothing had been judged yet", file=sys.stderr)
        sys.exit(3)


@app.command()
def check(job: JobFile, sets: Sets = None) -> None:
    """Report everything wrong with a job, its policies and its input; judge nothing."""
    from moderay.pipeline.check import check as check_file

    checked = check_file(job, sets or ())
    _notice(checked.job.model)
    for name, reason in checked.scan.unreadable:
        _warn(f"warning: {name} cannot be read and will be left out: {reason}")
    shards = checked.scan.shards
    out.print(
        f"{job}: ok: {len(shards)} shards, {checked.scan.rows:,} rows, {len(checked.policies)} "
        "policies"
    )


@app.command()
def plan(
    job: JobFile,
    sets: Sets = None,
    replace: bool = False,
    rows: Annotated[
        int,
        typer.Option(
            "--rows", min=1, help="Rows to read for it at most; the rest is taken to be like them."
        ),
    ] = 20_000,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            help="Tokens a second of one GPU, as run shows them. Default: an earlier run's.",
        ),
    ] = None,
) -> None:
    """What a run would do and cost: rows, what is known already, what each judge settles, requests,
    tokens, GPU hours.
    """
    from moderay.pipeline.check import check as check_file
    from moderay.pipeline.estimate import forecast
    from moderay.pipeline.plan import make_plan

    checked = check_file(job, sets or ())
    found = make_plan(checked, replace)
    cost = forecast(checked, found, rows, rate)
    hours = (
        "not known: give --rate, tokens a second of one GPU"
        if cost.gpu_hours is None
        else f"{cost.gpu_hours:,.1f} at {cost.tokens_per_s:,.0f} tokens/s"
    )
    table = Table(show_header=False, box=None)
    for name, value in (
        (
            "shards",
            (
                f"{len(checked.scan.shards):,}, of them published {len(found.done):,}, to decide "
                f"again {sum(work.redecide for work in found.todo):,}"
            ),
        ),
        (
            "rows",
            f"{checked.scan.rows:,}, of them left {cost.rows:,}, selected about {cost.selected:,}",
        ),
        ("distinct contents", f"{cost.distinct:,}"),
        *[
            (f"{policy}:", ", ".join(f"{name} {count:,}" for name, count in said.items() if count))
            for policy, said in cost.verdicts.items()
        ],
        ("requests", f"{cost.requests:,}"),
        (
            "prompt tokens",
            f"{cost.prompt_tokens:,}, of them {cost.cached_tokens:,} in the prefix cache",
        ),
        ("output tokens", f"{cost.output_tokens:,}"),
        ("GPU hours", hours),
    ):
        table.add_row(name, value)
    out.print(table)
    if cost.rows > cost.read:
        out.print(f"from {cost.read:,} rows; --rows reads more")
    for guess in cost.guesses:
        _warn(f"note: {guess}")


@app.command()
def run(
    job: JobFile,
    sets: Sets = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Judge again what the output holds under another cascade."),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Judge rows again that timed out, did not parse or met an engine error.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove the labels of shards that are gone from the input."),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Judge only the first N rows, show them, and write nothing."
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the verdicts (with --limit).")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit status 1 with an alarm: of the audit, or of the trend."
        ),
    ] = False,
    briefly: Annotated[
        bool,
        typer.Option(
            "--brief",
            help="End with a few lines for a pager: what is new, flagged and failed, and alarms.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
    progress_file: Annotated[
        Path | None, typer.Option("--progress", help="Append progress as JSON lines to this file.")
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            "--agreement",
            hidden=True,
            metavar="PREFIX",
            help="Compare with truth columns PREFIX<policy>.",
        ),
    ] = "",
) -> None:
    """Label what is selected and not published yet."""
    from moderay.pipeline.check import check as check_file

    checked = check_file(job, sets or ())
    _notice(checked.job.model)
    for name, reason in checked.scan.unreadable:
        _warn(f"warning: {name} cannot be read and is left out: {reason}")
    if limit is not None:
        return _look(checked, limit, show)
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.flow import run as run_checked

    outcome = run_checked(
        checked,
        replace=replace,
        retry_failed=retry_failed,
        prune=prune,
        progress=Progress(err, log=progress_file),
    )
    if briefly or as_json:
        _briefly(checked.job, outcome, as_json)
    else:
        _told(checked, outcome)
    if reference:
        out.print(f"agreement {_agreement(checked, reference):.2f}")
    raise typer.Exit(max(outcome.exit_status, int(strict and bool(outcome.manifest["alarms"]))))


@app.command("filter")
def filter_(
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
            "--keep", metavar="RULE", help="Rows to keep: Polars SQL over the verdict columns."
        ),
    ] = None,
    place: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Where kept/, removed/ and held/ go.")
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
    sets: Sets = None,
) -> None:
    """Keep the rows of a data set that a rule over their labels allows; the others are removed or
    held, with the reasons.
    """
    from moderay.pipeline.check import check as check_file
    from moderay.tasks.filter.filter import filter_labels
    from moderay.tasks.filter.request import check_job, read_labels, wanted

    if (job is None) == (labels is None):
        raise UserError("filter takes either a job file or --labels DIR")
    checked = check_file(job, sets or ()) if job is not None else None
    asked = wanted(
        checked.job if checked else None, keep, place, threshold or (), unselected, verdicts
    )
    storage = checked.job.storage if checked else {}
    labelled = 0
    if checked is not None:
        check_job(asked, checked)
        labelled = _labelled(checked)
    found = read_labels(checked.job.output.path if checked else str(labels), storage)
    with err.status("filtering") as status:
        done = filter_labels(
            found,
            asked,
            storage,
            lambda shards, all_: status.update(f"filtering: {shards:,} of {all_:,} shards"),
        )
    _filtered(done, asked.out)
    raise typer.Exit(max(done.exit_status, labelled))


@app.command("trend")
def trend_(
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
    last: Annotated[
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
    """Nights side by side: flagged shares, what has changed since when, failures, tokens and cost;
    and alarms.
    """
    from dataclasses import asdict

    from moderay.config.job import Alarms
    from moderay.config.job_file import load_job
    from moderay.labels.analysis import chart as charts
    from moderay.labels.analysis.trend import found_nights, trend

    given = load_job(job, sets or ())[0] if job is not None else None
    paths = outputs or ([given.output.path] if given else [])
    if not paths:
        raise UserError("trend takes outputs, a folder of them, or --job JOB")
    found = trend(
        found_nights(paths, given.storage if given else {})[-last:],
        given.alarms if given else Alarms(),
    )
    if chart is not None:
        charts.picture(found, chart)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
    else:
        _trend(found, price)
    raise typer.Exit(int(strict and bool(found.alarms)))


@app.command()
def calibrate(
    job: JobFile,
    policy: Annotated[str, typer.Option("--policy", help="Id of the policy.")],
    place: Annotated[
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
            help="An input column in which people said; null is unknown.",
        ),
    ] = None,
    judge: Annotated[str, typer.Option("--judge", help="screen or glance.")] = "screen",
    max_miss: Annotated[
        float, typer.Option("--max-miss", help="Share of violations that may be missed.")
    ] = 0.05,
    confidence: Annotated[float, typer.Option("--confidence", help="How sure that is.")] = 0.95,
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Contents to calibrate on at most, chosen by hash.")
    ] = 200_000,
    sets: Sets = None,
) -> None:
    """Make a screen, or a band for glance, that misses at most a stated share of violations."""
    from moderay.pipeline.check import check as check_file
    from moderay.tasks.calibrate.calibrate import calibrate_judge

    card = calibrate_judge(
        check_file(job, sets or ()), policy, judge, labels, gold, max_miss, confidence, rows, place
    )
    table = Table(show_header=False, box=None)
    for name, value in card.items():
        table.add_row(name, value)
    out.print(table)
    out.print(f"written: {place}; in the job: - {judge}: {place}", soft_wrap=True)


@app.command()
def label(
    policy: Annotated[Path, typer.Argument(help="Policy folder.")],
    content: Annotated[str, typer.Option("--content", help="The text to judge.")],
    model: Annotated[str, typer.Option("--model", help="Hub id, folder, or tiny.")] = "tiny",
    effort: Annotated[str, typer.Option("--effort", help="low, medium or high.")] = "low",
) -> None:
    """Judge one text and print the verdict as JSON."""
    from moderay.config.job import Job
    from moderay.config.policy import load_policy
    from moderay.corpus.content import texts
    from moderay.pipeline.stages.prepare import POSITION, prepared
    from moderay.tasks.embed import job_cascades, judge_here

    job = Job.model_validate(
        {
            "input": {"path": "", "content": "content"},
            "output": {"path": ""},
            "policies": [str(policy)],
            "model": {"source": model, "effort": _effort(effort)},
        }
    )
    _notice(job.model)
    spec = load_policy(policy)
    cascades = job_cascades(job, [spec])
    rows = prepared(
        pa.table({POSITION: [0]}),
        texts(pa.chunked_array([[content]])),
        job,
        cascades,
        cascades[0].last.safeguard.vocab,
    )
    found = judge_here(job, cascades, rows).column(spec.id)[0].as_py()
    print(json.dumps(found, indent=1, ensure_ascii=False))


@app.command()
def render(
    policy: Annotated[Path, typer.Argument(help="Policy folder.")],
    content: Annotated[str, typer.Option("--content", help="The text to judge.")],
    effort: Annotated[str, typer.Option("--effort", help="low, medium or high.")] = "low",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="tiny, or a checkpoint's folder; by default harmony's own vocabulary."
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="One JSON list of token ids.")] = False,
) -> None:
    """Show exactly what the model is given."""
    from moderay.config.policy import load_policy
    from moderay.engines.harmony.prompt import prompt

    vocab = _vocabulary(model)
    rendered = prompt(load_policy(policy), _effort(effort), vocab).render(vocab.encode(content))
    print(json.dumps(rendered) if ids else vocab.decode(rendered))


DASHBOARD = "The cluster's dashboard, such as http://HEAD:8265."
Address = Annotated[
    str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help=DASHBOARD)
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As submit named it.", show_default=False)]


@app.command()
def submit(
    job: JobFile,
    address: Annotated[
        str | None,
        typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help=DASHBOARD),
    ] = None,
    sets: Sets = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Show the run's progress and end with its exit status; Ctrl-C leaves it running.",
        ),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="As for run.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="As for run.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="As for run.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="As for run.")] = False,
    kuberay: Annotated[
        bool,
        typer.Option(
            "--kuberay", help="Print a RayJob with a cluster of its own instead, for kubectl."
        ),
    ] = False,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            metavar="SCHEDULE",
            help="With --kuberay: a RayCronJob, such as '0 2 * * *' (UTC).",
        ),
    ] = None,
    cluster_file: Annotated[
        Path | None,
        typer.Option(
            "--cluster",
            metavar="FILE",
            help="With --kuberay: a RayCluster other than infra/raycluster.yaml.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", help="With --kuberay: the image, instead of the cluster file's."),
    ] = None,
) -> None:
    """Run a job on a Ray cluster: check it and the cluster, ship what it names, and queue it."""
    given = {
        "--replace": replace,
        "--retry-failed": retry_failed,
        "--prune": prune,
        "--strict": strict,
    }
    options = [option for option, asked in given.items() if asked]
    if kuberay:
        if wait:
            raise UserError(
                "--wait: KubeRay runs the job once kubectl has applied it; kubectl logs -f "
                "job/NAME shows it"
            )
        print(_manifests(job, sets or (), options, cron, cluster_file, image), end="")
        return
    if cron or cluster_file or image:
        raise UserError("--cron, --cluster and --image belong to --kuberay")
    if address is None:
        raise UserError(
            "--address is missing: the URL of the cluster's dashboard, such as http://HEAD:8265, "
            "or RAY_API_SERVER_ADDRESS; or give --kuberay"
        )
    from moderay.tasks.submit import submit as jobs

    cluster = jobs.connect(address)
    name, ready = jobs.submit(cluster, job, sets or (), options)
    out.print(
        (
            f"{cluster.address}: {ready['nodes']:,} nodes, {ready['engines']:,} engines; "
            f"{ready['shards']:,} shards, {ready['rows']:,} rows"
        ),
        soft_wrap=True,
    )
    out.print(
        f"submitted: {name}; moderay status | logs | stop {name} --address {cluster.address}",
        soft_wrap=True,
    )
    if wait:
        _follow(cluster, name)


@app.command()
def status(
    address: Address,
    name: Annotated[str | None, typer.Argument(metavar="[ID]", show_default=False)] = None,
) -> None:
    """How a submitted job is doing; without an ID, all of them."""
    from moderay.tasks.submit import submit as jobs

    cluster = jobs.connect(address)
    found = jobs.submissions(cluster) if name is None else [jobs.submission(cluster, name)]
    table = Table(
        "id", "status", "exit", "started", "ended", "output", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in table.columns:
        column.overflow = "fold"
    for job in found:
        exit_status = str(job.exit_status) if job.over else ""
        table.add_row(
            job.id,
            job.status,
            exit_status,
            jobs.clock(job.started),
            jobs.clock(job.ended),
            printable(job.output),
        )
    out.print(table)
    for line in jobs.logs(cluster, name)[-1:] if name is not None else ():
        out.print(printable(line), soft_wrap=True)


@app.command()
def logs(
    name: JobId,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", help="As they come, until the job ends.")
    ] = False,
) -> None:
    """What a submitted job has said."""
    from moderay.tasks.submit import submit as jobs

    cluster = jobs.connect(address)
    if follow:
        _follow(cluster, name)
    for line in jobs.logs(cluster, name):
        out.print(printable(line), soft_wrap=True)


@app.command()
def stop(name: JobId, address: Address) -> None:
    """End a submitted job in good order: what is in judging has the grace time, and is saved."""
    from moderay.tasks.submit import submit as jobs

    ended = jobs.stop(jobs.connect(address), name)
    goes_on = "; the same submit goes on from there" if ended.exit_status else ""
    out.print(f"{name}: {ended.status}{goes_on}", soft_wrap=True)


def _manifests(
    job: Path,
    sets: Sequence[str],
    options: Sequence[str],
    cron: str | None,
    cluster: Path | None,
    image: str | None,
) -> str:
    """What KubeRay runs the job from; the package is in the image."""
    from moderay.tasks.submit import kuberay
    from moderay.tasks.submit.bundle import ship

    shipment = ship(job, sets, scheduled=cron is not None)
    files = {name: file for name, file in shipment.files.items() if not name.startswith("moderay/")}
    return kuberay.manifests(
        shipment.job,
        files,
        cron=cron,
        options=options,
        cluster=cluster or kuberay.CLUSTER,
        image=image,
    )


def _follow(cluster: Any, name: str) -> None:
    """Show a submitted job's log until it ends, and end with its exit status."""
    from moderay.tasks.submit import submit as jobs

    try:
        ended = jobs.follow(cluster, name, lambda line: out.print(printable(line), soft_wrap=True))
    except KeyboardInterrupt:
        _warn(
            f"moderay: no longer watching; {name} goes on: moderay logs {name} --follow shows "
            f"it, moderay stop {name} ends it (--address {cluster.address})"
        )
        raise typer.Exit(3) from None
    out.print(f"{name}: {ended.status}", soft_wrap=True)
    if ended.lost:
        _warn(
            f"moderay: {name} was lost: {ended.message}; the same submit goes on from what is saved"
        )
    raise typer.Exit(ended.exit_status)


def _effort(text: str) -> Any:
    if text not in ("low", "medium", "high"):
        raise UserError(f"--effort {text!r}: valid are low, medium, high")
    return text


def _vocabulary(source: str | None) -> Any:
    from moderay.engines.harmony.vocabulary import vocabulary

    return vocabulary(source)


def _notice(model: Any) -> None:
    """What a person should know of a model before it judges."""
    from moderay.engines.remote import KEY, is_private

    if model.endpoint is None and model.source == "tiny":
        print(f"note: {checkpoint.TINY_NOTICE}", file=sys.stderr)
    if model.endpoint is not None and not is_private(model.endpoint):
        _warn(
            f"warning: contents go unencrypted to {model.endpoint}, and {KEY} is not sent there: "
            "https would carry both safely"
        )


def _look(checked: Any, limit: int, show: bool) -> None:
    """Judge the first rows here and now, without the output."""
    from moderay.tasks.embed import first_rows, judge_here

    judged = judge_here(checked.job, checked.cascades, first_rows(checked, limit)).to_pylist()
    if show:
        vocab = checked.cascades[0].last.safeguard.vocab
        table = Table("row", "content", *[policy.id for policy in checked.policies])
        for row in judged:
            text = printable(" ".join(vocab.decode((row["ids"] or [])[:SHOWN]).split())[:SHOWN])
            table.add_row(
                str(row["row"]), text, *[_verdict(row[policy.id]) for policy in checked.policies]
            )
        out.print(table)
    out.print(f"{len(judged)} rows judged, nothing written")


def _verdict(verdict: dict[str, Any]) -> str:
    if verdict["status"] != Status.OK:
        return str(verdict["status"])
    probability = "" if verdict["probability"] is None else f" {verdict['probability']:.2f}"
    return printable(f"{verdict['label']}{probability} {verdict['rationale'] or ''}")


def printable(text: str) -> str:
    """Text without what a terminal would obey, and without Rich's markup."""
    from rich.markup import escape

    return escape(inert(text))


def _warn(text: str) -> None:
    """A message on stderr. Names in it may come from other people's storage."""
    print("\n".join(map(inert, text.split("\n"))), file=sys.stderr)


def _labelled(checked: Any) -> int:
    """Label what is not labelled yet; the run's exit status."""
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.flow import run as run_checked

    _notice(checked.job.model)
    outcome = run_checked(checked, progress=Progress(err))
    _told(checked, outcome)
    return int(outcome.exit_status)


def _told(checked: Any, outcome: Any) -> None:
    """What a person should hear of a run that has ended."""
    if not outcome.worked:
        out.print(
            f"nothing to do: {outcome.manifest['shards']:,} shards with "
            f"{outcome.manifest['rows']:,} rows are published in {checked.job.output.path}"
        )
    else:
        _summary(outcome)
        out.print(f"labels: {checked.job.output.path}", soft_wrap=True)
    if failed := sum(
        counts[status.value]
        for counts in outcome.manifest["counts"].values()
        for status in RETRYABLE
    ):
        _warn(
            f"note: {failed:,} verdicts are missing (timeout, unparsed or engine_error); "
            "--retry-failed asks for them again"
        )
    for name in outcome.pruned:
        out.print(f"pruned: {printable(name)}", soft_wrap=True)
    if gone := outcome.manifest["gone"]:
        _warn(
            f"note: the input no longer has {len(gone):,} shards whose labels are here, such as "
            f"{gone[0]}; --prune removes them"
        )
    for kind in ("unreadable", "failed"):
        for name, reason in outcome.manifest[kind].items():
            _warn(f"{kind}: {name}: {reason}")
    for alarm in outcome.manifest["alarms"]:
        _warn(f"alarm: {alarm}")


def _briefly(job: Any, outcome: Any, as_json: bool) -> None:
    """A night in a few lines, or for machines."""
    from moderay.labels.analysis.summary import brief, lines

    said = brief(job, outcome.manifest, outcome.worked)
    print(json.dumps(said, ensure_ascii=False) if as_json else "\n".join(map(inert, lines(said))))


def _trend(found: Any, price: float | None) -> None:
    """Per policy the shares through the nights; per night what it brought and cost; what is new,
    and the alarms.
    """
    from moderay.labels.analysis.chart import blocks

    shares = Table(
        "policy", "", "nights", "last", "(95%)", "change", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for policy, series in found.policies.items():
        for name, line in (
            ("flagged", series.flagged),
            *series.labels.items(),
            ("failed", series.failed),
        ):
            last, change = line[-1], series.change if name == "flagged" else None
            told = "" if change is None else f"{change.before.value:.2%} before {change.since}"
            bounds = f"{100 * last.low:.2f}-{100 * last.high:.2f}"
            shares.add_row(
                policy if name == "flagged" else "",
                printable(name),
                blocks([share.value for share in line]),
                f"{last.value:.2%}",
                bounds,
                told,
            )
    out.print(shares)
    paid = ["GPU h/M rows"] if any(night.gpu_s for night in found.nights) else []
    paid += ["cost/M rows"] if paid and price is not None else []
    nights = Table(
        "night",
        "rows",
        "shards",
        "changed",
        "flagged",
        "requests",
        "tokens/M rows",
        *paid,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in nights.columns[1:]:
        column.justify = "right"
    for night in found.nights:
        millions = max(1, night.rows) / 1e6
        hours = night.gpu_s / 3600 / millions
        costs = [
            f"{night.tokens / millions:,.0f}",
            f"{hours:,.2f}",
            f"{hours * (price or 0):,.2f}",
        ][: 1 + len(paid)]
        counts = (night.rows, night.shards, night.changed, night.flagged, night.requests)
        nights.add_row(night.date, *[f"{count:,}" for count in counts], *costs)
    out.print(nights)
    for policy, series in found.policies.items():
        for reason in series.reasons:
            out.print(f"new on {series.dates[-1]}: {policy}: {printable(reason)}", soft_wrap=True)
    for alarm in found.alarms:
        _warn(f"alarm: {alarm}")


def _filtered(done: Any, place: str) -> None:
    """What a filter did: rows by fate, and why those that are not kept are not."""
    said = done.summary
    if not done.worked:
        out.print(
            (
                f"nothing to do: {said['shards']:,} shards with {said['rows']['in']:,} rows are "
                f"filtered in {place}"
            ),
            soft_wrap=True,
        )
        return
    rows, fate = said["rows"], said["rule"]["unselected"]
    table = Table("rows", "", "", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[1].justify = "right"
    for name in ("kept", "removed", "held", *(["unselected"] if fate else [])):
        why = said.get(name, {})
        reasons = [
            f"{policy} {reason or '-'} {count:,}"
            for policy, counts in why.items()
            for reason, count in counts.items()
        ]
        table.add_row(
            name,
            f"{rows[name]:,}",
            printable(", ".join(reasons)) if name != "unselected" else f"in {fate}/",
        )
    out.print(table)
    out.print(f"{rows['in']:,} rows in {said['shards']:,} shards: {place}", soft_wrap=True)
    for name in said["gone"]:
        out.print(f"removed, since its labels are gone: {printable(name)}", soft_wrap=True)
    for kind in ("missing", "failed"):
        for name, reason in said[kind].items():
            _warn(f"{kind}: {name}: {reason}")


def _summary(outcome: Any) -> None:
    """Per policy: judged, flagged, forced, every other count that is not zero, and this run's
    rates.
    """
    totals = outcome.manifest["counts"]
    rare = [status.value for status in Status if status is not Status.OK]
    others = [name for name in rare if any(counts[name] for counts in totals.values())]
    table = Table(
        "policy",
        "judged",
        "flagged",
        "forced",
        *others,
        "rows/s",
        "tokens/s",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in totals.items():
        rates = [f"{rate:,.0f}" for rate in outcome.rates.get(name, ())] or ["", ""]
        table.add_row(
            name, *[f"{counts[field]:,}" for field in ("ok", "flagged", "forced", *others)], *rates
        )
    out.print(table)
    if any(len(judges) > 1 for judges in outcome.manifest["judges"].values()):
        out.print(_judges(outcome.manifest["judges"]))
    rows, shards = outcome.manifest["rows"], outcome.manifest["shards"]
    out.print(
        f"{rows:,} rows in {shards:,} shards; this run: {outcome.judged:,} in "
        f"{outcome.seconds:.0f} s{_unpaid(outcome)}{_engine_time(outcome)}"
    )


def _judges(policies: Any) -> Table:
    """Per policy and judge: what it settled, and what the audit says of it."""
    table = Table(
        "policy",
        "judge",
        "settled",
        "share",
        "audited",
        "overruled",
        "missed (95%)",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for policy, judges in policies.items():
        for judge, said in judges.items():
            audit = ["", "", ""]
            if "audited" in said:
                low, estimate, high = said["missed_violations"]
                audit = [
                    f"{said['audited']:,}",
                    f"{said['overruled']:,}",
                    f"{estimate:,.0f} ({low:,.0f} to {high:,.0f})",
                ]
            table.add_row(policy, judge, f"{said['settled']:,}", f"{said['share']:.1%}", *audit)
    return table


def _unpaid(outcome: Any) -> str:
    """Verdicts that cost nothing: in all label files those of equal contents, in this run those
    from before.
    """
    duplicates = sum(counts["duplicates"] for counts in outcome.manifest["counts"].values())
    said = (
        (duplicates, "of duplicates"),
        (outcome.manifest["runs"][-1]["reused_verdicts"], "from before"),
    )
    return "".join(f", {count:,} verdicts {what}" for count, what in said if count)


def _engine_time(outcome: Any) -> str:
    """Where the time of this run's engines went, up to the last unit of each."""
    usage = outcome.manifest["runs"][-1]["usage"]
    spent = {state: usage.get(f"engine_{state}_ms", 0) for state in ("working", "starting", "idle")}
    total = sum(spent.values())
    return (
        ", engines " + ", ".join(f"{state} {ms / total:.0%}" for state, ms in spent.items() if ms)
        if total
        else ""
    )


def _agreement(checked: Any, prefix: str) -> float:
    """Share of (row, policy) pairs with a known truth on which `violates` agrees with it."""
    from moderay.labels.layout import Layout

    layout = Layout(checked.job.output.path, checked.job.storage)
    same = known = 0
    for shard in checked.scan.shards:
        table = pq.read_table(layout.fs.open(layout.label(shard.name), "rb"))
        for policy in checked.policies:
            said = [verdict["violates"] for verdict in table.column(policy.id).to_pylist()]
            pairs = [
                (a, b)
                for a, b in zip(table.column(prefix + policy.id).to_pylist(), said, strict=True)
                if a is not None
            ]
            known += len(pairs)
            same += sum(a == b for a, b in pairs)
    return same / known


if __name__ == "__main__":
    main()
