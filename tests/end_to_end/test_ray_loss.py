"""Whose Ray a run uses, and how it ends when that Ray goes away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels
from support.ray_cluster import ForeignRay, child, foreign_ray, free_port

pytestmark = pytest.mark.long
Cli = Callable[..., subprocess.CompletedProcess[str]]

ANSWER = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}
ROWS = 600


@pytest.fixture
def foreign() -> Iterator[ForeignRay]:
    with foreign_ray() as ray:
        yield ray


@pytest.fixture
def file(job: Callable[..., Path], tmp_path: Path) -> Path:
    """A job of some ten seconds."""
    (tmp_path / "in").mkdir()
    for shard in range(6):
        rows = [f"row {shard} {i}" for i in range(ROWS // 6)]
        pq.write_table(pa.table({"text": rows}), tmp_path / f"in/{shard}.parquet")
    model = {"source": "scripted:script.yaml", "engine": {"max_num_seqs": 16}, "replicas": 1}
    return job({"default": ANSWER, "delay": {"mean_s": 0.25}}, unit={"rows": 10}, model=model)


def started(file: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def sentences(shown: str) -> list[str]:
    """What a run says beside its progress."""
    begins = ("checking ", "starting ", "joining ", "note: ", "P of a label ")
    return [
        line
        for line in shown.splitlines()
        if not line.startswith(begins) and not re.match(r"\d+ (of \d+ rows|engine)", line)
    ]


def until_saved(run: subprocess.Popen[str], folder: Path, units: int) -> None:
    deadline = time.monotonic() + 90
    while len(list((folder / "out/_moderay/units").rglob("*.arrow"))) < units:
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline, "nothing was saved in time"
        time.sleep(0.05)


def test_run_starts_its_own_ray_beside_somebody_elses(
    foreign: ForeignRay, file: Path, tmp_path: Path
) -> None:
    run = started(file, foreign.env)
    until_saved(run, tmp_path, 2)
    foreign.named("gcs_server").kill()
    foreign.named("raylet").kill()
    _, shown = run.communicate(timeout=120)
    assert run.returncode == 0, shown
    assert "note: started its own Ray (" in shown and "RAY_ADDRESS would join another" in shown
    assert sum(map(len, labels(tmp_path / "out").values())) == ROWS


def test_raylet_that_ends_as_ray_starts_is_one_sentence(file: Path, tmp_path: Path) -> None:
    run = started(file, os.environ | {"RAY_ADDRESS": "local"})
    raylet = None
    while raylet is None and run.poll() is None:
        with suppress(StopIteration):
            raylet = child(run.pid, "raylet")
    assert raylet is not None
    raylet.kill()
    _, shown = run.communicate(timeout=120)
    assert run.returncode == 3 and len(sentences(shown)) == 1, shown
    assert "Ray could not be started on this machine: " in shown
    assert not (tmp_path / "out/_moderay/leases/0.json").exists()


@pytest.mark.parametrize(("victim", "whose"), [("gcs_server", "named"), ("raylet", "its own")])
def test_ray_that_goes_away_ends_the_run_in_one_sentence(
    victim: str, whose: str, request: pytest.FixtureRequest, file: Path, tmp_path: Path, cli: Cli
) -> None:
    if whose == "named":
        foreign: ForeignRay = request.getfixturevalue("foreign")
        run = started(file, foreign.env | foreign.token | {"RAY_ADDRESS": foreign.address})
    else:
        run = started(file, os.environ | {"RAY_ADDRESS": "local"})
    until_saved(run, tmp_path, 2)
    (foreign.named(victim) if whose == "named" else child(run.pid, victim)).kill()
    killed = time.monotonic()
    printed, shown = run.communicate(timeout=120)
    assert run.returncode == 3, shown
    assert printed == ""
    assert time.monotonic() - killed < 50
    (line,) = sentences(shown)
    assert line.startswith("moderay: Ray lost what the run needs ("), shown
    assert "the same command goes on from there" in line
    full_text = re.search(r"the full text is in (\S+), beside Ray's own logs", line)
    assert full_text and "Traceback" in Path(full_text[1]).read_text(), line
    again = cli("run", file)
    assert again.returncode == 0, again.stderr
    assert sum(map(len, labels(tmp_path / "out").values())) == ROWS


def test_ray_that_wants_a_token_says_so(foreign: ForeignRay, file: Path) -> None:
    run = started(file, foreign.env | {"RAY_ADDRESS": foreign.address})
    _, shown = run.communicate(timeout=120)
    assert run.returncode == 2 and "set RAY_AUTH_MODE=token" in shown, shown
    assert len(sentences(shown)) == 1, shown


@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("127.0.0.1:{port}", 3, "is it running? Without RAY_ADDRESS, a run starts its own"),
        ("http://me:secret@127.0.0.1:{port}", 2, "HOST:PORT is wanted, such as HEAD:6379"),
        ("nonsense", 3, "could not be joined at nonsense (RAY_ADDRESS)"),
    ],
)
def test_ray_that_cannot_be_joined_is_one_sentence(
    address: str, status: int, text: str, file: Path
) -> None:
    run = started(file, os.environ | {"RAY_ADDRESS": address.format(port=free_port())})
    _, shown = run.communicate(timeout=120)
    assert run.returncode == status and text in shown, shown
    assert len(sentences(shown)) == 1 and "secret" not in shown, shown


# A command that ends while a dataset is at work, or while none is.
ENDING = """
import atexit, logging, sys, threading, time
from pathlib import Path
import ray
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
logging.disable()
begun = Path(sys.argv[1])
def endless(row):
    begun.touch()
    time.sleep(600)
    return row
if sys.argv[2] == "at work":
    rows = ray.data.range(1).map(endless)
    threading.Thread(target=rows.take_all, daemon=True).start()
    while not begun.exists():
        time.sleep(0.05)
atexit.register(print, "taken down", file=sys.stderr)
print("ready", flush=True)
sys.stdin.readline()
sys.argv = ["moderay", "check", "missing.yaml"]
from moderay.cli.app import process
process()
"""


@pytest.mark.parametrize("dataset", ["at work", "none"])
def test_ray_is_not_taken_down_under_a_dataset_and_ends_all_the_same(
    tmp_path: Path, dataset: str
) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", ENDING, str(tmp_path / "begun"), dataset],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert command.stdout is not None
    while (line := command.stdout.readline()) != "ready\n":
        assert line, command.communicate()[1]
    below = psutil.Process(command.pid).children(recursive=True)
    # Ray's agents report that their raylet has ended, for a minute, to a head that is gone as well.
    below = [process for process in below if not process.name().endswith("Agent")]
    _, shown = command.communicate("go\n", timeout=60)
    assert command.returncode == 2 and "missing.yaml" in shown, shown
    assert ("taken down" in shown) == (dataset == "none"), shown
    _, alive = psutil.wait_procs(below, timeout=30)
    assert below and not alive, alive
