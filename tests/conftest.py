"""What tests share: golden texts, a small corpus, a scripted job, one Ray, one S3 server."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from support.listeners import Listener, Pipe, listening, waiting_pipe
from support.project import ROOT
from support.ray_cluster import started_ray
from support.s3_running import s3_server
from support.scripted import SCRIPT, write_job

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A cluster that somebody runs on this machine is not ours to join.
os.environ["RAY_ADDRESS"] = "local"
# Ray's own 15 leaves its workers a thirtieth of a core beside another test that is busy.
os.environ.setdefault("RAY_worker_niceness", "5")
# Threads of an engine wait for each other at every step, and beside other tests each wait is long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How wide the tables are that a terminal is shown.
os.environ["COLUMNS"] = "200"

# How long an example takes says more of the machine than of the code.
settings.register_profile("moderay", deadline=None)
settings.load_profile("moderay")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `long` is `slow` as well.

    What takes longest is begun first, so that two processes end together: the documents, which one
    process follows from the first command to the last, then files with slow tests.
    """
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    documents = ROOT / "tests" / "unit" / "documents"
    items.sort(key=lambda item: (item.path not in slow, documents not in item.path.parents))


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with tests/golden/<name>.txt; MODERAY_GOLDEN=write rewrites the file."""

    def compare(name: str, text: str) -> None:
        file = ROOT / "tests" / "golden" / f"{name}.txt"
        if os.environ.get("MODERAY_GOLDEN") == "write":
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """An HTTP server that notes what it is asked for."""
    with listening(tmp_path_factory.mktemp("listener")) as made:
        yield made


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """A path that notes whether anybody opens it."""
    with waiting_pipe(tmp_path / "pipe.csv") as made:
        yield made


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Path]:
    """Write a job over tmp_path/in with a scripted engine; keyword arguments replace whole
    sections.
    """

    def write(script: dict[str, Any] | None = None, **sections: Any) -> Path:
        own = {"output": {"path": "out", "reasoning": "all"}, "unit": {"rows": 10}}
        return write_job(tmp_path, script or SCRIPT, **{**own, **sections})

    return write


@pytest.fixture
def submitted(job: Callable[..., Path], corpus: Path) -> Callable[..., Path]:
    """A job for a cluster, of some seconds: both engines take two requests at a time. Its paths
    mean the same everywhere.
    """

    def write(out: Path, delay: float = 0.0, **sections: Any) -> Path:
        # How long answers take is no part of what they are: a job goes on under another delay.
        script = {
            "default": SCRIPT["default"],
            "rules": SCRIPT["rules"][:2],
            "delay": {"mean_s": delay},
        }
        own = {
            "input": {"path": str(corpus), "content": "text"},
            "output": {"path": str(out), "reasoning": "all"},
            "model": {
                "source": "scripted:script.yaml",
                "engine": {"max_num_seqs": 2},
                "replicas": 2,
            },
            "unit": {"rows": 5},
            "limits": {"grace_s": 6},
        }
        return job(script, **own | sections)

    return write


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three shards of 35 rows, one of them in a hive folder."""
    folder = tmp_path / "in"
    (folder / "day=2").mkdir(parents=True)
    words = ["hello there", "claim your prize", "visit my shop", "a quiet day", None, "  "]
    for number, name in enumerate(("a.parquet", "b.parquet", "day=2/c.parquet")):
        rows = [
            {
                "id": f"{number}-{i}",
                "text": None if (w := words[i % 6]) is None else f"{w} {i if w.strip() else ''}",
                "n": i,
            }
            for i in range(35)
        ]
        pq.write_table(
            pa.Table.from_pylist(
                rows,
                schema=pa.schema([("id", pa.string()), ("text", pa.string()), ("n", pa.int64())]),
            ),
            folder / name,
        )
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of one local Ray for all tests, which every run in them joins: starting one
    takes longer than most runs.
    """
    cluster = started_ray()
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster.address
    os.environ["RAY_ADDRESS"] = "local"
    cluster.shutdown()


@pytest.fixture(scope="session")
def joined_ray(ray_cluster: str) -> Iterator[None]:
    """For tests that call `run` in their own process, which stays with its Ray to the end: each
    time that it joins, workers start anew.
    """
    import ray

    from moderay.core.ray_runtime import start_ray

    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def cli() -> Cli:
    """`moderay` in this process; where environment variables are given it is a process of its own,
    as a person's is.
    """
    from moderay.cli import console
    from moderay.cli.app import main

    def call(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "moderay", *map(str, args)]
        if env:
            return subprocess.run(
                command, capture_output=True, text=True, env=os.environ | env, timeout=500
            )
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", command[2:])
            # On a busy machine everything is slow enough to be told of.
            patch.setattr(console, "SLOW_S", 60.0)
            with pytest.raises(SystemExit) as end:
                main()
        # Which an error leaves disabled, since with it a process ends.
        logging.disable(logging.NOTSET)
        return subprocess.CompletedProcess(
            command, int(end.value.code or 0), out.getvalue(), err.getvalue()
        )

    return call


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """A local S3 server with a bucket `data`; its environment variables."""
    with s3_server() as env:
        yield env


@pytest.fixture
def bucket(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a folder in the S3 server, whose environment variables hold meanwhile."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return f"s3://data/{tmp_path.name}"


@pytest.fixture
def stored_tiny(s3: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The URL of `tiny` in the S3 server."""
    from support.checkpoints import stored

    with stored(s3, tmp_path) as url:
        yield url


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of loopback on which a program listens that is none of ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
