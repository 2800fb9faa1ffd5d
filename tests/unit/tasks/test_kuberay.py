"""Manifests for KubeRay: valid against its CRDs, of one cluster, with all that a run reads."""

from __future__ import annotations

import base64
import functools
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.outputs import plain
from support.project import ROOT, SHARED
from typer.testing import CliRunner

from moderay.cli.app import app
from moderay.config.job import Job
from moderay.config.job_file import load_job
from moderay.core.errors import UserError
from moderay.tasks.submit.bundle import ship
from moderay.tasks.submit.config_maps import CONFIG_BYTES
from moderay.tasks.submit.cron import checked_cron
from moderay.tasks.submit.kuberay import (
    CLUSTER,
    FOLDER,
    KubeRayOptions,
    load_cluster,
    manifests,
)

CRDS = SHARED / "kuberay_crds"
needs_crds = pytest.mark.skipif(
    not CRDS.is_dir(),
    reason="the CRDs of KubeRay are not beside the checkout (../shared/data/kuberay_crds)",
)

JOB = {
    "name": "Tweets, every night",
    "input": {"path": "s3://corpus/tweets/*.parquet", "content": "text"},
    "output": {"path": "s3://labels/tweets/"},
    "policies": ["policies/spam"],
    "model": {
        "source": "openai/gpt-oss-safeguard-120b",
        "replicas": {"min": 2, "max": 16},
        "engine": {"tensor_parallel_size": 2},
    },
}


def job(**model: Any) -> Job:
    return Job.model_validate(JOB | ({"model": model} if model else {}))


def shipped_files() -> dict[str, bytes | Path]:
    """As they are shipped: the job file, and what it names beside it."""
    spam = ROOT / "policies" / "spam"
    return {
        "job.yaml": yaml.safe_dump(JOB).encode(),
        **{f"policies/spam/{file.name}": file for file in spam.iterdir()},
    }


def made(
    model: dict[str, Any] | None = None,
    files: Mapping[str, bytes | Path] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    shipped = shipped_files() if files is None else files
    text = manifests(job(**model or {}), shipped, KubeRayOptions(**options))
    return list(yaml.safe_load_all(text))


def resource(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[-1]


def ray_job(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The RayJob's spec, also where it is run by a schedule."""
    spec: dict[str, Any] = resource(documents)["spec"]
    return dict(spec["jobTemplate"]) if "jobTemplate" in spec else spec


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema that refuses what it does not name: Kubernetes would silently drop it."""
    closed = {
        name: {key: strict(below) for key, below in value.items()}
        for name, value in schema.items()
        if name == "properties"
    }
    closed |= {
        name: strict(value)
        for name, value in schema.items()
        if name in ("items", "additionalProperties") and isinstance(value, dict)
    }
    if (
        schema.get("type") == "object"
        and "additionalProperties" not in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        closed["additionalProperties"] = False
    return schema | closed


@functools.cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    text = (CRDS / f"ray.io_{kind.lower()}s.yaml").read_text()
    crd = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    # Of metadata the CRD says nothing: it is Kubernetes' own.
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    named = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,34}[a-z0-9])?$"},
            "labels": texts,
        },
    }
    return jsonschema.Draft202012Validator(
        strict(
            schema
            | {"properties": schema["properties"] | {"metadata": named | {"required": ["name"]}}}
        )
    )


def problems(manifest: Mapping[str, Any]) -> list[str]:
    return [
        f"{'.'.join(map(str, error.path))}: {error.message}"
        for error in validator(manifest["kind"]).iter_errors(manifest)
    ]


@needs_crds
@pytest.mark.parametrize("cron", [None, "0 2 * * *"], ids=["RayJob", "RayCronJob"])
@pytest.mark.parametrize("model", [{}, {"source": "tiny"}], ids=["gpus", "cpu"])
def test_manifest_is_valid_against_the_crd(cron: str | None, model: dict[str, Any]) -> None:
    actual = resource(made(cron=cron, model=model))
    assert actual["kind"] == ("RayCronJob" if cron else "RayJob")
    assert problems(actual) == []


@needs_crds
def test_cluster_is_valid_against_the_crd() -> None:
    assert problems(load_cluster()) == []


@needs_crds
def test_fields_that_kubernetes_would_drop_are_found() -> None:
    actual = resource(made())
    actual["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "envForm"
    ] = []
    actual["spec"]["concurrencyPolicy"] = "Forbid"
    assert len(problems(actual)) == 2


def test_cluster_job_and_schedule_share_one_cluster() -> None:
    by_hand, by_job, by_night = (
        load_cluster()["spec"],
        ray_job(made())["rayClusterSpec"],
        ray_job(made(cron="0 2 * * *"))["rayClusterSpec"],
    )
    assert by_job == by_night
    head, workers = by_job["headGroupSpec"]["template"]["spec"], by_job["workerGroupSpecs"][0]
    del head["volumes"], head["containers"][0]["volumeMounts"]
    workers |= {
        name: by_hand["workerGroupSpecs"][0][name]
        for name in ("replicas", "minReplicas", "maxReplicas")
    }
    workers["template"]["spec"]["containers"][0]["resources"] = by_hand["workerGroupSpecs"][0][
        "template"
    ]["spec"]["containers"][0]["resources"]
    assert by_job == by_hand


def test_workers_are_as_many_and_have_as_many_gpus_as_the_job_asks_for() -> None:
    workers = ray_job(made())["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (2, 2, 16)
    assert (
        workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    )


def test_job_without_gpus_takes_the_image_without_them() -> None:
    spec = ray_job(made(model={"source": "tiny", "replicas": 3}))["rayClusterSpec"]
    workers = spec["workerGroupSpecs"][0]
    assert "gpu" not in str(workers["template"]["spec"]["containers"][0]["resources"])
    assert (workers["minReplicas"], workers["maxReplicas"]) == (3, 3)
    assert spec["headGroupSpec"]["template"]["spec"]["containers"][0]["image"].endswith("-cpu")


def test_given_image_is_that_of_every_pod() -> None:
    images = {
        line.split()[-1]
        for line in manifests(
            job(), shipped_files(), KubeRayOptions(image="registry/moderay@sha256:0")
        ).splitlines()
        if "image:" in line
    }
    assert images == {"registry/moderay@sha256:0"}


def mounted(documents: list[dict[str, Any]], folder: Path) -> Path:
    """What the head finds under `FOLDER`, written to a folder."""
    configs = {document["metadata"]["name"]: document for document in documents[:-1]}
    head = ray_job(documents)["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    volume = next(
        mount["name"]
        for mount in head["containers"][0]["volumeMounts"]
        if mount["mountPath"] == FOLDER
    )
    sources = next(each for each in head["volumes"] if each["name"] == volume)["projected"][
        "sources"
    ]
    assert [source["configMap"]["name"] for source in sources] == list(configs)
    for source in sources:
        config = configs[source["configMap"]["name"]]
        for item in source["configMap"]["items"]:
            path = folder / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            text = config.get("data", {}).get(item["key"])
            path.write_bytes(
                text.encode()
                if text is not None
                else base64.b64decode(config["binaryData"][item["key"]])
            )
    return folder


def test_run_on_the_head_reads_the_job_and_its_policies(tmp_path: Path) -> None:
    documents = made(run=["--retry-failed"])
    command = shlex.split(ray_job(documents)["entrypoint"])
    assert command == ["moderay", "run", f"{FOLDER}/job.yaml", "--retry-failed"]
    loaded, policies = load_job(mounted(documents, tmp_path) / Path(command[2]).name)
    assert loaded.output.path == "s3://labels/tweets/" and [policy.id for policy in policies] == [
        "spam"
    ]


def test_files_of_any_kind_come_out_as_they_went_in(tmp_path: Path) -> None:
    inputs: dict[str, bytes | Path] = {
        "job.yaml": b"name: x\n",
        "policies/a/policy.md": (
            "\ufeff# T\u00eates \u00e0 claques\r\n\ttab, trailing blank \n\n\u4e00\x85\u2028\x07"
        ).encode(),
        "policies/b/policy.md": b"",
        "policies_b/policy.md": b"another of the same key",
        "cascade/0-screen/weights.npy": bytes(range(256)) * 4,
    }
    folder = mounted(made(files=inputs), tmp_path)
    assert {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    } == inputs


def test_file_that_looks_like_a_number_stays_text_in_every_yaml() -> None:
    text = manifests(job(), shipped_files() | {"policies/spam/words.txt": b"1e5"})
    assert 'policies_spam_words.txt: "1e5"\n' in text


def test_more_than_one_config_map_holds_is_mounted_as_one_folder(tmp_path: Path) -> None:
    inputs: dict[str, bytes | Path] = {
        f"cascade/{number}-screen/weights.npy": bytes([200 + number]) * 524_416
        for number in range(2)
    }
    documents = made(files=inputs | {"job.yaml": b"name: x\n"})
    assert len(documents) == 3
    for config in documents[:-1]:
        assert (
            sum(len(base64.b64decode(value)) for value in config.get("binaryData", {}).values())
            < 2**20
        )
    folder = mounted(documents, tmp_path)
    assert all((folder / path).read_bytes() == data for path, data in inputs.items())


def test_other_files_are_another_config_map_so_that_a_running_job_keeps_its_own() -> None:
    names = [
        made(files=shipped_files() | {"policies/spam/words.txt": text})[0]["metadata"]["name"]
        for text in (b"a", b"a", b"b")
    ]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("cron", ["0 2 * * *", "*/15 0-6 1,15 jan-jun MON", "5/10 * 31 12 0"])
def test_schedules_that_kuberay_reads(cron: str) -> None:
    assert checked_cron(cron) == cron
    schedule = resource(made(cron=cron))["spec"]
    assert (schedule["schedule"], schedule["timeZone"]) == (cron, "Etc/UTC")


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return f"{error.value}\n"


def test_what_cannot_be_submitted_is_told_in_one_sentence(
    golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    result = [
        refused(lambda cron=cron: made(cron=cron))
        for cron in (
            "0 2 * *",
            "TZ=UTC 0 2 * * *",
            "60 2 * * *",
            "0 2 * * 7",
            "0 6-2 * * *",
            "*/0 * * * *",
            "0 2 L * *",
            "0 2 30 2 *",
        )
    ]
    result.append(
        refused(
            lambda: made(
                files=shipped_files() | {"policies/spam/words.txt": b"x" * (CONFIG_BYTES + 1)}
            )
        )
    )
    for name, text in {
        "broken": "a: [b",
        "job": "kind: RayJob",
        "empty": "kind: RayCluster\nspec: {workerGroupSpecs: []}",
    }.items():
        (tmp_path / name).write_text(text)
        result.append(refused(lambda name=name: made(cluster=tmp_path / name)))
    result.append(refused(lambda: made(cluster=tmp_path / "none")))
    golden("kuberay-refused", plain("".join(result), tmp_path))


def test_names_are_those_that_kuberay_takes() -> None:
    for name in (
        "Tweets, every night",
        "moderay",
        "",
        "9 lives",
        "\u4e00",
        "a" * 100,
        "x" * 27 + " y",
    ):
        actual = list(
            yaml.safe_load_all(manifests(Job.model_validate(JOB | {"name": name}), shipped_files()))
        )[-1]["metadata"]["name"]
        # 47 of a RayJob's, of which a schedule takes eleven.
        assert (
            len(actual) <= 36
            and actual.startswith("moderay")
            and actual == actual.strip("-").lower()
            and actual.isascii()
        )


def test_cluster_file_of_infra_is_the_packages_own() -> None:
    assert (ROOT / "infra" / "raycluster.yaml").resolve() == CLUSTER.resolve()


def test_submit_prints_the_job_with_what_it_names(tmp_path: Path) -> None:
    data = JOB | {"policies": [str(ROOT / "policies" / "spam")]}
    (tmp_path / "tweets.yaml").write_text(yaml.safe_dump(data))
    printed = CliRunner().invoke(
        app,
        ["submit", str(tmp_path / "tweets.yaml"), "--kuberay", "--cron", "0 2 * * *", "--strict"],
    )
    assert printed.exit_code == 0, printed.output
    config, nightly = yaml.safe_load_all(printed.stdout)
    assert (
        yaml.safe_load(config["data"]["job.yaml"])["policies"] == ["policies/spam"]
        and "policies_spam_policy.md" in config["data"]
    )
    assert (
        nightly["kind"] == "RayCronJob"
        and nightly["spec"]["jobTemplate"]["entrypoint"]
        == f"moderay run {FOLDER}/job.yaml --strict"
    )


@pytest.mark.parametrize("wrong", [[], ["--cron", "0 2 * * *"], ["--kuberay", "--wait"]])
def test_submit_says_which_options_belong_together(
    tmp_path: Path, wrong: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    (tmp_path / "tweets.yaml").write_text(
        yaml.safe_dump(JOB | {"policies": [str(ROOT / "policies" / "spam")]})
    )
    refused = CliRunner().invoke(app, ["submit", str(tmp_path / "tweets.yaml"), *wrong])
    assert isinstance(refused.exception, UserError) and "kuberay" in str(refused.exception).lower()


def test_schedule_leaves_the_night_to_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUS", "s3://corpus")
    monkeypatch.setenv("LABELS", "s3://labels")
    monkeypatch.setenv("DATE", "2026-11-20")
    job = {
        scheduled: yaml.safe_load(
            ship(ROOT / "jobs/nightly.yaml", scheduled=scheduled).files["job.yaml"]
        )
        for scheduled in (False, True)
    }
    assert (job[True]["date"], job[True]["input"]["path"]) == (
        "${DATE}",
        "s3://corpus/date=${DATE}",
    )
    assert (job[False]["date"], job[False]["input"]["path"]) == (
        "2026-11-20",
        "s3://corpus/date=2026-11-20",
    )
