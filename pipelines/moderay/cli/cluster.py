"""submit, status, logs, stop: jobs on a Ray cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moderay.cli.console import (
    JobFile,
    Sets,
    out,
    printable,
    show_table,
    storage_of,
    table_of,
    warn,
)
from moderay.core.errors import UserError

if TYPE_CHECKING:
    from moderay.tasks.submit.cluster import Cluster

_DASHBOARD = typer.Option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    metavar="URL",
    help="The cluster's dashboard, such as http://HEAD:8265.",
)
Address = Annotated[str, _DASHBOARD]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As submit named it.", show_default=False)]


def submit(
    context: typer.Context,
    job: JobFile,
    address: Annotated[str | None, _DASHBOARD] = None,
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
    spark: Annotated[
        bool,
        typer.Option(
            "--spark",
            help="Run it on Spark's executors, on a Ray that is started there and ends with it.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="With --spark: how many executors. Default: as many as Spark has.",
        ),
    ] = None,
) -> None:
    """Check a job here and on a Ray cluster, ship what it names, and queue it.

    Example: moderay submit job.yaml --address http://HEAD:8265 --wait
    """
    from moderay.tasks.submit.submit import run_options

    options = run_options(replace=replace, retry_failed=retry_failed, prune=prune, strict=strict)
    source = context.get_parameter_source("address")
    # A variable may well name a Ray that other commands are for.
    is_address_given = source is not None and source.name == "COMMANDLINE"
    if spark and (kuberay or is_address_given):
        raise UserError(
            "--spark starts a Ray of its own on Spark's executors: leave --address and --kuberay "
            "out"
        )
    if kuberay:
        if wait:
            raise UserError(
                "--wait: KubeRay runs the job once kubectl has applied it; kubectl logs -f "
                "job/NAME shows it"
            )
        print(_manifests(job, sets or [], options, cron, cluster_file, image), end="")
    elif cron or cluster_file or image:
        raise UserError("--cron, --cluster and --image belong to --kuberay")
    elif spark:
        _run_on_spark(job, sets or [], options, workers)
    elif workers is not None:
        raise UserError("--workers belongs to --spark")
    elif address is None:
        raise UserError(
            "--address is missing: the URL of the cluster's dashboard, such as http://HEAD:8265, "
            "or RAY_API_SERVER_ADDRESS; or give --kuberay or --spark"
        )
    else:
        _queue(job, sets or [], options, address, wait)


def _run_on_spark(job: Path, sets: list[str], options: list[str], workers: int | None) -> None:
    """Run a job on Spark, and end with its exit status."""
    from moderay.tasks.submit.spark import run_on_spark

    status = run_on_spark(
        job, sets, options, workers, lambda line: out.print(printable(line), soft_wrap=True)
    )
    raise typer.Exit(status)


def _manifests(
    job: Path,
    sets: list[str],
    options: list[str],
    cron: str | None,
    cluster_file: Path | None,
    image: str | None,
) -> str:
    """What KubeRay runs the job from; the package is in the image."""
    from moderay.tasks.submit import kuberay
    from moderay.tasks.submit.bundle import ship

    shipment = ship(job, sets, scheduled=cron is not None)
    files = {name: file for name, file in shipment.files.items() if not name.startswith("moderay/")}
    wanted = kuberay.KubeRayOptions(options, cron, cluster_file or kuberay.CLUSTER, image)
    return kuberay.manifests(shipment.job, files, wanted)


def _queue(job: Path, sets: list[str], options: list[str], address: str, wait: bool) -> None:
    """Submit a job to a cluster that runs."""
    from moderay.tasks.submit.cluster import connect
    from moderay.tasks.submit.submit import found
    from moderay.tasks.submit.submit import submit as submit_job

    cluster = connect(address)
    job_id, ready = submit_job(cluster, job, sets, options)
    out.print(found(cluster.address, ready), soft_wrap=True)
    out.print(
        f"submitted: {job_id}; moderay status | logs | stop {job_id} --address {cluster.address}",
        soft_wrap=True,
    )
    if wait:
        _follow(cluster, job_id)


def _follow(cluster: Cluster, job_id: str) -> None:
    """Show a submitted job's log until it ends, and end with its exit status."""
    from moderay.tasks.submit.logs import follow

    try:
        ended = follow(cluster, job_id, lambda line: out.print(printable(line), soft_wrap=True))
    except KeyboardInterrupt:
        warn(
            f"moderay: no longer watching; {job_id} goes on: moderay logs {job_id} --follow shows "
            f"it, moderay stop {job_id} ends it (--address {cluster.address})"
        )
        raise typer.Exit(3) from None
    out.print(f"{job_id}: {ended.status}", soft_wrap=True)
    if ended.lost:
        warn(
            f"moderay: {job_id} was lost: {ended.message}; the same submit goes on from what is "
            "saved"
        )
    raise typer.Exit(ended.exit_status)


def status(
    address: Annotated[str | None, _DASHBOARD] = None,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[OUTPUT|ID]",
            help="A folder of labels, or a submitted job.",
            show_default=False,
        ),
    ] = None,
    job: Annotated[Path | None, typer.Option("--job", help="Job file: its storage.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show how far labels are and who writes them, or how submitted jobs are doing.

    Example: moderay status labels
    """
    is_output = target is not None and ("/" in target or Path(target).is_dir())
    if target is not None and (is_output or address is None):
        _output_status(target, storage_of(job, None), as_json)
    elif address is None:
        raise UserError(
            "status takes a folder of labels, or --address URL of a cluster's dashboard for the "
            "jobs that were submitted there"
        )
    else:
        _job_status(address, target, as_json)


def _output_status(output: str, storage: Mapping[str, Any], as_json: bool) -> None:
    from moderay import api
    from moderay.cli.tables import show_output_status
    from moderay.tasks.output_status import status_json

    status = api.output_status(output, storage)
    if as_json:
        print(json.dumps(status_json(output, status), ensure_ascii=False))
    else:
        show_output_status(output, status)


def _job_status(address: str, job_id: str | None, as_json: bool) -> None:
    from moderay.tasks.submit.cluster import connect
    from moderay.tasks.submit.jobs import local_time, submitted_job, submitted_jobs
    from moderay.tasks.submit.logs import log_lines

    cluster = connect(address)
    jobs = submitted_jobs(cluster) if job_id is None else [submitted_job(cluster, job_id)]
    if as_json:
        print(json.dumps({"jobs": [asdict(job) for job in jobs]}, ensure_ascii=False))
        return
    table = table_of(["id", "status", "exit", "started", "ended", "output"])
    for job in jobs:
        table.add_row(
            job.id,
            job.status,
            str(job.exit_status) if job.over else "",
            local_time(job.started),
            local_time(job.ended),
            printable(job.output),
        )
    show_table(table)
    if job_id is not None:
        for line in log_lines(cluster, job_id)[-1:]:
            out.print(printable(line), soft_wrap=True)


def logs(
    job_id: JobId,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", help="As they come, until the job ends.")
    ] = False,
) -> None:
    """Show the log of a submitted job.

    Example: moderay logs ID --address http://HEAD:8265 --follow
    """
    from moderay.tasks.submit.cluster import connect
    from moderay.tasks.submit.logs import log_lines

    cluster = connect(address)
    if follow:
        _follow(cluster, job_id)
    for line in log_lines(cluster, job_id):
        out.print(printable(line), soft_wrap=True)


def stop(job_id: JobId, address: Address) -> None:
    """End a submitted job in good order: what is in judging is saved.

    Example: moderay stop ID --address http://HEAD:8265
    """
    from moderay.tasks.submit import jobs
    from moderay.tasks.submit.cluster import connect

    ended = jobs.stop(connect(address), job_id)
    goes_on = "; the same submit goes on from there" if ended.exit_status else ""
    out.print(f"{job_id}: {ended.status}{goes_on}", soft_wrap=True)
