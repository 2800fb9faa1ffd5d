"""`--quiet`: nothing but warnings and errors, and the same labels and exit status."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.outputs import labels

Cli = Callable[..., subprocess.CompletedProcess[str]]
# A process of its own, since what Ray's says of itself in this one is not moderay's.
OWN = {"PATH": os.environ["PATH"]}


@pytest.mark.slow
def test_a_run_that_is_well_says_nothing(
    job: Callable[..., Path], corpus: Path, cli: Cli, tmp_path: Path
) -> None:
    file = job(filter={"keep": "NOT spam.violates", "out": "clean"})
    for command in ("check", "run", "filter"):
        result = cli(command, file, "--quiet", **OWN)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), command
    assert len(labels(tmp_path / "out")) == 3 and (tmp_path / "clean/kept").is_dir()
    assert json.loads(cli("run", file, "-q", "--json").stdout)["new"]["rows"] == 105


@pytest.mark.slow
def test_what_is_wrong_is_said_all_the_same(
    job: Callable[..., Path], corpus: Path, cli: Cli, tmp_path: Path
) -> None:
    (corpus / "broken.parquet").write_bytes(b"no Parquet")
    result = cli("run", job(), "--quiet", **OWN)
    assert result.stdout == ""
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "warning",
        "unreadable",
    ]
    result = cli("run", tmp_path / "none.yaml", "-q")
    assert result.returncode == 2 and "none.yaml" in result.stderr
