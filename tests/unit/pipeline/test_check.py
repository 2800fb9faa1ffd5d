"""`check` looks at all that a job names, at once, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mistakes import project
from support.outputs import plain
from support.project import ROOT

import moderay


def tree(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_check_leaves_nothing_behind(tmp_path: Path, cli: Callable[..., Any]) -> None:
    project(tmp_path)
    before = tree(tmp_path)
    assert cli("check", tmp_path / "job.yaml").returncode == 0
    assert tree(tmp_path) == before
    (tmp_path / "labels/_moderay").mkdir(parents=True)
    before = tree(tmp_path)
    assert cli("check", tmp_path / "job.yaml").returncode == 0
    assert tree(tmp_path) == before


def test_check_leaves_nothing_behind_in_a_store(
    tmp_path: Path, bucket: str, cli: Callable[..., Any]
) -> None:
    from moderay.core.storage import filesystem

    project(tmp_path)
    assert cli("check", tmp_path / "job.yaml", "--set", f"output.path={bucket}/x").returncode == 0
    fs, path = filesystem(bucket)
    fs.invalidate_cache()
    assert fs.find(path) == []


def test_what_only_reads_asks_for_no_right_to_write(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "labels").write_text("in the way")
    with pytest.raises(moderay.Problems, match="the output cannot be written"):
        moderay.check(tmp_path / "job.yaml")
    (tmp_path / "labels").unlink()
    (tmp_path / "file").write_text("x")
    sets = ["output.path=file/labels"]
    with pytest.raises(moderay.Problems, match="the output cannot be written"):
        moderay.check(tmp_path / "job.yaml", sets)
    assert moderay.plan(tmp_path / "job.yaml", rate=1000).forecast.rows == 3


WRONG = """\
name: tweets
input: {path: data, content: text}
output: {path: labels}
policies: [policies/spam]
model: {source: ./model}
filter:
  keep: NOT spam.violatez
  out: labels/clean
  thresholds: {spma: 0.5}
"""


def test_problems_of_model_filter_and_golden_set_come_at_once(tmp_path: Path, golden: Any) -> None:
    project(tmp_path)
    (tmp_path / "job.yaml").write_text(WRONG)
    (tmp_path / "model").mkdir()
    with pytest.raises(moderay.Problems) as caught:
        moderay.check(tmp_path / "job.yaml")
    said = [plain(str(caught.value), tmp_path)]
    with (tmp_path / "policies/spam/golden.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(moderay.Problems) as caught:
        moderay.check(tmp_path / "job.yaml", ["limits.stall_s=soon"])
    said.append(plain(str(caught.value), tmp_path))
    golden("check-at-once", "\n\n".join(said) + "\n")


@pytest.mark.parametrize("file", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda file: file.name)
def test_jobs_of_the_project_have_no_problem_but_their_input(file: Path, tmp_path: Path) -> None:
    try:
        moderay.load_job(file, [f"output.path={tmp_path}/labels"])
    except moderay.Problems as error:
        assert all("environment variable" in str(each) for each in error.problems), error
