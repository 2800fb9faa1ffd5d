"""infra/slurm/array.sh, run by bash as Slurm runs it, with a driver that says what it was given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.project import ROOT

from moderay.labels.lease import slots_of
from moderay.pipeline.outcome import part

SCRIPT = ROOT / "infra" / "slurm" / "array.sh"
DRIVER = """#!/bin/bash
echo "arguments: $*; Ray: ${RAY_ADDRESS:-its own}"
exit "${STATUS:-0}"
"""
# Sleeps in the background: bash heeds a signal only between commands.
STOPPED_DRIVER = """#!/bin/bash
trap 'echo ended in good order; kill $!; exit 3' TERM
sleep 60 &
echo running
wait
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*"
"""


class Task:
    """A task of an array on a node whose PATH has programs of this test."""

    def __init__(self, folder: Path, driver: str) -> None:
        self.folder = folder
        for name, text in (("moderay", driver), ("scontrol", SCONTROL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def start(self, variables: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), "jobs/tweets.yaml", "--set", "name=a b"],
            env={
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                "RAY_ADDRESS": "somebody-elses:6379",
                "SLURM_JOB_ID": "811",
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "16",
                **variables,
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, variables: Mapping[str, str]) -> tuple[int, str]:
        started = self.start(variables)
        output, _ = started.communicate(timeout=60)
        return started.returncode, output


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "3/16"),
        ({"SLURM_ARRAY_TASK_ID": "0"}, "0/16"),
        ({"SLURM_ARRAY_TASK_COUNT": "2", "PARTS": "7"}, "3/7"),
    ],
)
def test_each_task_of_an_array_labels_its_part_on_its_own_ray(
    variables: Mapping[str, str], expected: str, tmp_path: Path
) -> None:
    status, output = Task(tmp_path, DRIVER).run(variables)
    assert output == (
        f"arguments: run jobs/tweets.yaml --set name=a b --part {expected}; Ray: its own\n"
    )
    assert status == 0


@pytest.mark.parametrize("first", [0, 1])
def test_tasks_of_an_array_have_every_slot_once(first: int) -> None:
    slots = [slot for task in range(first, first + 7) for slot in slots_of(part(f"{task}/7"))]
    assert sorted(slots) == list(range(1024))


@pytest.mark.parametrize("status", [1, 2, 3])
def test_task_ends_as_its_driver_did_and_is_not_queued_again(status: int, tmp_path: Path) -> None:
    ended, output = Task(tmp_path, DRIVER).run({"STATUS": str(status)})
    assert ended == status
    assert "scontrol" not in output


def test_task_whose_time_is_up_ends_in_good_order_and_is_queued_again(tmp_path: Path) -> None:
    task = Task(tmp_path, STOPPED_DRIVER).start({})
    assert task.stdout is not None
    assert task.stdout.readline() == "running\n"
    task.send_signal(signal.SIGTERM)
    output, _ = task.communicate(timeout=60)
    assert output == "ended in good order\nscontrol requeue 811\n"
    assert task.returncode == 3


def test_task_that_was_killed_waits_for_the_end_of_its_claim(tmp_path: Path) -> None:
    began = time.monotonic()
    status, output = Task(tmp_path, DRIVER).run({"SLURM_RESTART_COUNT": "1", "CLAIM_S": "0.5"})
    assert time.monotonic() - began >= 0.5
    assert status == 0 and output.startswith("arguments: run")


def test_command_of_a_task_is_one_that_moderay_knows(tmp_path: Path) -> None:
    """The real command line: all that is wrong is the job, which is not there."""
    real = f'#!/bin/bash\nexec "{sys.executable}" -m moderay "$@"\n'
    status, output = Task(tmp_path, real).run(
        {"PYTHONPATH": str(ROOT / "pipelines"), "SLURM_ARRAY_TASK_ID": "16"}
    )
    assert status == 2
    assert "jobs/tweets.yaml" in output and "--part" not in output
