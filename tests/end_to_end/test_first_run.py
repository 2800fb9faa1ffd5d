"""What `moderay init` writes is run as it is; the answers are scripted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.outputs import labels
from support.scripted import SCRIPT

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_first_job_labels_the_example(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rule = {"content": "stupid", "answer": '{"label": "HA1", "rationale": "It insults."}', "p": 0.9}
    default = {**SCRIPT["default"], "answer": '{"label": "HA0", "rationale": "Nothing."}'}
    Path("script.yaml").write_text(yaml.safe_dump({"default": default, "rules": [rule]}))
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
