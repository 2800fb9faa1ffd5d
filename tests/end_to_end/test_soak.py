"""A short soak, and one that somebody ends."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.project import environment
from support.soak_plan import world_plan

pytestmark = pytest.mark.long


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    soaks: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        soaks.append(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.soak", *args],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment(),
                cwd=tmp_path,
            )
        )
        return soaks[-1]

    yield start
    for soak in soaks:
        if soak.poll() is None:
            soak.send_signal(signal.SIGINT)
            soak.communicate()


def test_plan_of_a_seed_is_the_same_each_time() -> None:
    assert world_plan(3, 1) == world_plan(3, 1) != world_plan(4, 1)


def test_episode_of_faults_ends_with_the_labels_of_the_truth(started) -> None:  # type: ignore[no-untyped-def]
    soak = started("--seed=0", "--world=0", "--episodes=1")
    printed, _ = soak.communicate(timeout=300)
    assert soak.returncode == 0, printed
    assert "1 episodes in " in printed and "0 violations" in printed, printed


def test_soak_that_is_interrupted_leaves_no_process_behind(started) -> None:  # type: ignore[no-untyped-def]
    soak = started("--seed=0")
    assert soak.stdout is not None
    for line in soak.stdout:
        if "episode 0" in line:
            break
    time.sleep(4)
    below = psutil.Process(soak.pid).children(recursive=True)
    assert any("faulty_driver" in " ".join(one.cmdline()) for one in below)
    soak.send_signal(signal.SIGINT)
    printed, _ = soak.communicate(timeout=120)
    assert "0 violations" in printed, printed
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive
