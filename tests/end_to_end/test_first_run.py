"""What `moderay init` writes is run as it is; the answers are scripted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.outputs import labels

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_first_job_labels_the_example(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rules = [
        {
            "policy": policy,
            "content": content,
            "answer": f'{{"label": "{label}", "rationale": "So."}}',
        }
        for policy, safe, bad in (("HA0", "HA0", "HA1"), ("", "0", "1"))
        for content, label in (("stupid", bad), ("", safe))
    ]
    Path("script.yaml").write_text(yaml.safe_dump({"rules": rules}))
    assert cli("init", "first").returncode == 0
    assert cli("policy", "new", "hate", "--folder", "first/policies").returncode == 0
    job = Path("first/job.yaml")
    job.write_text(job.read_text().replace("policies:\n", "policies:\n  - policies/hate\n"))
    result = cli("run", job, "--set", "model.source=scripted:../script.yaml")
    assert result.returncode == 0, result.stderr
    rows = labels(tmp_path / "first/labels")["example.parquet"].to_pylist()
    assert [row["id"] for row in rows if row["harassment"]["violates"]] == [2]
    assert [row["id"] for row in rows if row["hate"]["violates"]] == [2]
    assert {row["harassment"]["status"] for row in rows} == {"ok"}
