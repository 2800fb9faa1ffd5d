"""submit, status, logs, stop: jobs on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from moderay.cli.console import JobFile, Sets, out, printable, warn
from moderay.core.errors import UserError

DASHBOARD = "The cluster's dashboard, such as http://HEAD:8265."
Address = Annotated[
    str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help=DASHBOARD)
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As submit named it.", show_default=False)]


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
        warn(
            f"moderay: no longer watching; {name} goes on: moderay logs {name} --follow shows "
            f"it, moderay stop {name} ends it (--address {cluster.address})"
        )
        raise typer.Exit(3) from None
    out.print(f"{name}: {ended.status}", soft_wrap=True)
    if ended.lost:
        warn(
            f"moderay: {name} was lost: {ended.message}; the same submit goes on from what is saved"
        )
    raise typer.Exit(ended.exit_status)
