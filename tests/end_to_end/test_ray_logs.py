"""Ray's tracebacks: a sentence on the terminal, and the full text in a file that it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from moderay.core.errors import ModerayError, TryAgainError, UserError
from moderay.core.ray_logs import RayTaskFailedError, told_with_logs
from moderay.core.ray_loss import ray_errors


@ray.remote
def broken_task() -> None:
    raise TypeError("no\x1b[31m such key\nin the second line")


@ray.remote
def refused_task() -> None:
    raise UserError("the policy is gone")


@ray.remote
class BrokenActor:
    def __init__(self) -> None:
        raise TypeError("no\x1b[31m such key\nin the second line")

    def call(self) -> None: ...


@ray.remote(max_retries=0)
def dying_task() -> None:
    os._exit(1)


def raised(call: Callable[[], object], kind: type[ModerayError]) -> str:
    with pytest.raises(kind) as error, told_with_logs(), ray_errors():
        ray.get(call())
    assert type(error.value) is kind or kind is TryAgainError
    return str(error.value)


@pytest.mark.parametrize("call", [broken_task.remote, lambda: BrokenActor.remote().call.remote()])
def test_what_nobody_expected_is_a_sentence_and_a_file(call: Callable[[], object]) -> None:
    sentence = raised(call, RayTaskFailedError)
    assert sentence.startswith("a task failed as nobody expected: TypeError: no such key; "), (
        sentence
    )
    full_text = re.search(r"the full text is in (\S+), beside Ray's own logs$", sentence)
    assert full_text is not None, sentence
    text = Path(full_text[1]).read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in text and "in the second line" in text


def test_a_worker_that_died_is_a_sentence_and_a_file() -> None:
    sentence = raised(dying_task.remote, TryAgainError)
    assert "the same command goes on from there; the full text is in " in sentence
    assert "\x1b" not in sentence and "\n" not in sentence


def test_an_error_of_ours_stays_as_it_is() -> None:
    assert raised(refused_task.remote, UserError) == "the policy is gone"


def test_a_ray_of_another_version_says_which(
    ray_cluster: str, job: Callable[..., Path], corpus: Path
) -> None:
    script = (
        "import ray, sys; ray.__version__ = '2.59.1'; sys.argv = ['moderay', 'run', '-q', "
        f"{str(job())!r}]; from moderay.cli.app import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_ADDRESS": ray_cluster},
        timeout=120,
    )
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1, run.stderr
    assert f"Ray: {ray.__version__}" in run.stderr and "Ray: 2.59.1" in run.stderr
    assert "install the same ones here" in run.stderr
