"""What newcomers get wrong is told before Ray or an engine starts: what, where, what to do."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from support.mistakes import MISTAKES, Mistake, made
from support.outputs import plain
from support.patience import within

from moderay.engines.host import EngineHost
from moderay.pipeline import flow

# Seconds in which each is told, in a process that has what it needs loaded: of its processor, most
# in 0.1; by the clock more on a busy machine, and a store that is away is asked again first.
QUICK, SOON, PATIENT = 5.0, 20.0, 60.0


def mistaken(mistake: Mistake, folder: Path, cli: Any, patch: pytest.MonkeyPatch) -> str:
    """The command, what it says, and how it ends."""

    def started(*_: object, **__: object) -> None:
        pytest.fail("an engine was started")

    patch.setattr(flow, "start_ray", started)
    # Whether or not another test of this process has joined a Ray.
    patch.setattr(flow, "starts_its_own", lambda: True)
    patch.setattr(EngineHost, "__init__", started)
    patch.chdir(folder)
    with made(mistake, folder):
        began = time.monotonic()
        with within(QUICK):
            result = cli(*shlex.split(mistake.command))
        seconds = time.monotonic() - began
    assert seconds < (PATIENT if "away" in mistake.name else SOON), seconds
    assert not re.search("Traceback|pydantic|Errno", result.stderr), result.stderr
    said = plain(result.stdout + result.stderr, folder)
    said = re.sub(r"process \d+ on \S+ \(renewed \d+ s", "process N on <host> (renewed 0 s", said)
    print(f"{seconds:5.2f} s  {mistake.name}")
    return f"# {mistake.name}\n$ moderay {mistake.command}\n{said}-> {result.returncode}\n\n"


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What was told of each."""
    return {}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_is_told_before_an_engine_starts(
    mistake: Mistake,
    told: dict[str, str],
    tmp_path: Path,
    cli: Any,
    s3: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**s3, "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    told[mistake.name] = mistaken(mistake, tmp_path, cli, monkeypatch)
    assert re.search(r"-> [23]\n", told[mistake.name]), told[mistake.name]


def test_mistakes_are_told_as_before(told: dict[str, str], golden: Any) -> None:
    if len(told) < len(MISTAKES):
        pytest.skip("only with all of them")
    every = "".join(told[mistake.name] for mistake in MISTAKES)
    golden("mistakes", re.sub(r"(?m)^checking .*\n", "", every))  # told where it takes a second
