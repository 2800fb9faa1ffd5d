"""What a cluster is asked before a job is queued there.

It is a driver of its own on the cluster, which prints what there is as JSON lines; `readiness`
judges them. It begins with the standard library, Ray, and what needs no more than these: where a
library is missing, this is what reports it.
"""

# What needs more than that is imported inside functions.
# ruff: noqa: PLC0415

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moderay.core.errors import ModerayError, Problem, Problems

if TYPE_CHECKING:
    from moderay.corpus.shard import Shard
    from moderay.pipeline.check import Checked

# What begins a line of it in a driver's log.
MARK = '{"preflight":'
# Nodes that are looked at, the head and those with GPUs first: nodes of one kind have one image and
# one environment.
MOST_NODES = 32
# Seconds a node has for an answer, the start of a worker included.
ANSWER_S = 120.0

Node = Mapping[str, Any]


def main(job: str, distributions: Sequence[str]) -> None:
    """Print a line for each node, for each problem, and, where there was none, what the job finds.

    Args:
        job: The job file.
        distributions: Names of those whose versions are asked for.
    """
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    nodes = _chosen(ray.nodes())
    for node, answer in _on_each(nodes, about, distributions):
        _report(
            "node",
            node=node["NodeName"],
            cpus=node["Resources"].get("CPU", 0),
            gpus=node["Resources"].get("GPU", 0),
            **answer,
        )
    try:
        _report("ready", nodes=sum(node["Alive"] for node in ray.nodes()), **_ready(job, nodes))
    except Problems as error:
        for problem in error.problems:
            # Its lines are not those of the file that somebody wrote.
            of_job = problem.file == job
            _report(
                "problem",
                **asdict(replace(problem, file="the job", line=None) if of_job else problem),
            )
    except (ModerayError, ImportError) as error:
        _report("problem", **asdict(Problem("the head", None, str(error))))


def about(distributions: Sequence[str]) -> dict[str, Any]:
    """On a node: Python's version and those of distributions, None where one is missing."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in distributions},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _chosen(nodes: Sequence[Node]) -> list[Node]:
    """Nodes that are asked, at most `MOST_NODES`."""
    alive = [node for node in nodes if node["Alive"]]
    return sorted(
        alive,
        key=lambda node: (
            "node:__internal_head__" not in node["Resources"],
            -node["Resources"].get("GPU", 0),
        ),
    )[:MOST_NODES]


def _on_each(
    nodes: Sequence[Node], function: Callable[..., dict[str, Any]], *args: object
) -> list[tuple[Node, dict[str, Any]]]:
    """What a function gives on each node; `{"silent": reason}` where it gives nothing in time."""
    # Without a core of its own: on a busy cluster it would wait for the work there.
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    tasks = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*args)
        for node in nodes
    ]
    ray.wait(tasks, num_returns=len(tasks), timeout=ANSWER_S)
    return [(node, _answer(task)) for node, task in zip(nodes, tasks, strict=True)]


def _answer(task: ray.ObjectRef) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = ray.get(task, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return {"silent": f"no worker answered within {ANSWER_S:.0f} s"}
    except ray.exceptions.RayError as error:
        return {"silent": str(error).strip().splitlines()[-1]}
    return answer


def _ready(job: str, nodes: Sequence[Node]) -> dict[str, Any]:
    """What the job finds there. Raises `ModerayError`."""
    from moderay.core.ray_runtime import resources
    from moderay.pipeline.check import check
    from moderay.pipeline.control.sizing import hosted

    checked = check(job)
    engines = hosted(checked.job, checked.cascades, resources())
    if unreached := _unreached(checked, nodes):
        raise Problems(unreached)
    return {
        "shards": len(checked.scan.shards),
        "rows": checked.scan.rows,
        "engines": engines.most,
        "gpus": engines.most * engines.spec.gpus,
    }


def _unreached(checked: Checked, nodes: Sequence[Node]) -> list[Problem]:
    """What of input, output and model a node cannot reach.

    A file that the driver writes in the output must be there for every node.
    """
    from moderay.core.storage import plain_errors, remove
    from moderay.labels.layout import Layout

    job = checked.job
    layout = Layout(job.output.path, job.storage)
    name = f"_moderay/preflight-{uuid.uuid4().hex}"
    url = f"{job.output.path.rstrip('/')}/{name}"
    with plain_errors(job.output.path):
        layout.write(f"{layout.root}/{name}", b"preflight")
    try:
        answers = _on_each(nodes, reach, [url], job.storage, checked.scan.shards[:1])
    finally:
        remove(layout.fs, f"{layout.root}/{name}")
    if (model := _model(job)) is not None:
        answers += _on_each(hosts(nodes), reach_model, *model)
    return [
        Problem(f"node {node['NodeName']}", None, message)
        for node, answer in answers
        for message in answer.get("problems", [answer.get("silent")])
    ]


def hosts(nodes: Sequence[Node]) -> list[Node]:
    """Those on which engines can run: with GPUs where the cluster has any, else with cores."""
    kind = "GPU" if any(node["Resources"].get("GPU") for node in nodes) else "CPU"
    return [node for node in nodes if node["Resources"].get(kind)]


def _model(job: Any) -> tuple[str, str | None] | None:
    """Source and revision of a model that has to be fetched."""
    from moderay.engines.from_job import engine_spec
    from moderay.engines.vllm.engine import VllmSpec

    spec = engine_spec(job, gpus=0)
    if not isinstance(spec, VllmSpec) or spec.source == "tiny":
        return None
    return spec.source, spec.revision


def reach(
    urls: Sequence[str], options: Mapping[str, Any], shards: Sequence[Shard] = ()
) -> dict[str, Any]:
    """On a node: what is wrong with files that must be there."""
    from moderay.core.storage import details, filesystem, plain_errors

    problems = []
    files = [(shard.url, shard.located) for shard in shards]
    files += [(url, partial(filesystem, url)) for url in urls]
    for url, located in files:
        try:
            with plain_errors(url):
                details(*located(options))
        except ModerayError as error:
            problems.append(
                str(error)
                if "://" in url
                else f"{url} is not there: a path must be one of a disk that all nodes share"
            )
    return {"problems": problems}


def reach_model(source: str, revision: str | None) -> dict[str, Any]:
    """On a node that may host engines: what is wrong with the model's config.

    Every engine begins with it.
    """
    if "://" in source or source.startswith("/"):
        return reach([f"{source.rstrip('/')}/config.json"], {})
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RevisionResolutionError

    try:
        hf_hub_download(source, "config.json", revision=revision)
    except (OSError, ValueError, RevisionResolutionError) as error:
        return {
            "problems": [f"model {source!r} cannot be had: {str(error).strip().splitlines()[0]}"]
        }
    return {"problems": []}


def _report(kind: str, **values: Any) -> None:
    print(json.dumps({"preflight": kind, **values}), flush=True)


if __name__ == "__main__":
    # By its name: what is sent to workers is then this module's, not `__main__`'s.
    from moderay.tasks.submit import preflight  # noqa: PLW0406  # itself, on purpose

    preflight.main(sys.argv[1], sys.argv[2:])
