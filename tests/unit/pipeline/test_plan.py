"""Whose an output is: a job's by what was judged there, and nobody's where nothing was."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.outputs import labels, plain

from moderay.labels.layout import Layout, list_state
from moderay.labels.lease import WHOLE, Lease
from moderay.labels.manifest_store import append_manifest, read_manifest
from moderay.pipeline import manifest as manifests
from moderay.pipeline.check import Checked, check
from moderay.pipeline.plan import AnotherCascadeError, assert_same_cascade, make_plan
from moderay.pipeline.run import run

LOW = {"source": "scripted:script.yaml", "effort": "low"}
HIGH = {"source": "scripted:script.yaml", "effort": "high"}
Job = Callable[..., Path]


def begin(checked: Checked, held: Lease) -> None:
    """What a run writes before it judges anything."""
    start = manifests.RunStart(held.run, WHOLE, (), manifests.hardware(0, 1))
    layout = Layout(checked.job.output.path)
    append_manifest(layout, lambda before: manifests.begun(before, checked, "0" * 16, start))


def test_run_that_failed_as_it_began_is_in_nobodys_way(job: Job, corpus: Path) -> None:
    wrong = check(job(model=LOW))
    layout = Layout(wrong.job.output.path)
    with Lease(layout) as held:
        begin(wrong, held)
    right = check(job(model=HIGH))
    plan = make_plan(right)
    assert plan.rows_left == 105 and plan.next_run == 1
    with Lease(layout, least=plan.next_run) as held:
        assert make_plan(right).rows_left == 105
        begin(right, held)
    manifest = read_manifest(layout)
    assert manifest is not None and [run.status for run in manifest.runs] == ["killed", "running"]
    assert manifest.policies["spam"].cascade[-1].effort == "high"


def test_run_that_lives_and_has_only_claimed_is_not_overrun(
    job: Job, corpus: Path, tmp_path: Path
) -> None:
    theirs, mine = check(job(model=LOW)), check(job(model=HIGH))
    layout = Layout(mine.job.output.path)
    with Lease(layout, (0, 2)) as held:
        # Neither has begun: whoever writes its beginning first has the output.
        assert make_plan(mine).rows_left == 105
        begin(theirs, held)
        with pytest.raises(AnotherCascadeError, match=r"being labelled by run 0 .* is 'high'"):
            make_plan(mine)
        with pytest.raises(AnotherCascadeError):
            assert_same_cascade(mine, read_manifest(layout))
        assert make_plan(theirs).rows_left == 105
        assert make_plan(mine, replace=True).rows_left == 105
    assert make_plan(mine).rows_left == 105


def test_driver_that_lives_by_the_stores_clock_is_not_overrun_by_a_machine_whose_clock_is_off(
    job: Job, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, mine = check(job(model=LOW)), check(job(model=HIGH))
    layout = Layout(mine.job.output.path)
    with Lease(layout, (0, 2)) as held:
        begin(theirs, held)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 3600)
        with Lease(layout, (1, 2)) as late:
            with pytest.raises(AnotherCascadeError, match="being labelled by run 0"):
                assert_same_cascade(mine, read_manifest(layout), alive=late.living)
            assert late.living() == {held.run} and held.living() == {late.run}
    monkeypatch.undo()


@pytest.mark.parametrize("key", ["0" * 16, "f" * 16])
def test_units_that_are_saved_are_paid_for(key: str, job: Job, corpus: Path) -> None:
    theirs, mine = check(job(model=LOW)), check(job(model=HIGH))
    layout = Layout(mine.job.output.path)
    with Lease(layout) as held:
        begin(theirs, held)
    layout.write(layout.unit("a.parquet", (0, 10), key), b"verdicts")
    with pytest.raises(AnotherCascadeError, match="holds labels of another cascade") as caught:
        make_plan(mine)
    # Of a run that has not ended, nothing can be taken by `reuse`.
    assert "reuse" not in str(caught.value) and "--replace" in str(caught.value)


@pytest.mark.slow
def test_labels_whose_files_are_gone_are_in_nobodys_way(
    job: Job, corpus: Path, tmp_path: Path, joined_ray: None
) -> None:
    run(check(job(model=LOW)))
    mine = check(job(model=HIGH))
    with pytest.raises(AnotherCascadeError):
        make_plan(mine)
    for file in labels(tmp_path / "out"):
        (tmp_path / "out" / file).unlink()
    assert not list_state(Layout(mine.job.output.path)).published("a.parquet")
    assert make_plan(mine).rows_left == 105


def pasted(text: str) -> list[list[str]]:
    """The commands of a message, as a shell reads them."""
    lines = [line for line in text.splitlines() if line.startswith("    moderay")]
    read = []
    for line in lines:
        script = f'printf "%s\\0" {line.strip()}'
        words = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
        read.append(words.decode().split("\0")[:-1])
        assert read[-1] == shlex.split(line)
    return read


@pytest.mark.slow
@pytest.mark.parametrize("odd", [False, True])
def test_commands_of_the_message_work_when_they_are_pasted(
    odd: bool, job: Job, corpus: Path, tmp_path: Path, cli: Any, joined_ray: None
) -> None:
    folder = tmp_path / ('it\'s #1: $HOME, [new] & "all"' if odd else "plain")
    folder.mkdir()
    file = job(model=LOW, input={"path": "in", "content": "text"})
    for name in ("in", "script.yaml", "job.yaml"):
        (tmp_path / name).rename(folder / name)
    file = folder / "job.yaml"
    sets = ("--set", "unit.rows=7", "--set", "name=a b")
    assert cli("run", file, *sets).returncode == 0
    refused = cli("run", file, *sets, "--set", "model.effort=high")
    assert refused.returncode == 2
    over, beside = pasted(refused.stderr)
    assert "unit.rows=7" in over and "model.effort=high" in over
    done = cli(*beside[1:])
    assert done.returncode == 0 and (folder / "out-2/a.parquet").is_file(), done.stderr
    # The next output's name is free, and what was reused before still is.
    again = cli(*beside[1:], "--set", "model.effort=medium")
    assert again.returncode == 2
    _, third = pasted(again.stderr)
    assert cli(*third[1:]).returncode == 0 and (folder / "out-3/a.parquet").is_file()
    assert cli(*over[1:]).returncode == 0
    assert "nothing to do" in cli(*over[1:]).stdout


@pytest.mark.slow
def test_plan_over_another_cascade_shows_the_cost_and_that_run_is_refused(
    job: Job, corpus: Path, tmp_path: Path, cli: Any, golden: Any, joined_ray: None
) -> None:
    run(check(job(model=LOW)))
    result = cli("plan", job(model=HIGH), "--rate", 10_000)
    assert result.returncode == 0
    # Which of equal rows is judged, and so how long answers are, is open.
    shown = re.sub(r"(?m)^(prompt tokens|output tokens|GPU time) +[1-9].*$", r"\1", result.stdout)
    golden("plan-refused", plain(shown + result.stderr, tmp_path))
