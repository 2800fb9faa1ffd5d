"""Jobs on a real Ray cluster of three nodes on this machine, through the command line."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from support.outputs import compared, labels, manifest_of, plain, saved

from moderay.core.errors import ModerayError
from moderay.tasks.submit.cluster import connect

pytestmark = pytest.mark.long

Cli = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Node:
    """A node's own process, below which all of its others run."""

    process: subprocess.Popen[str]
    folder: str

    def raylet(self) -> psutil.Process:
        below = psutil.Process(self.process.pid).children(recursive=True)
        return next(process for process in below if process.name() == "raylet")

    def end(self) -> None:
        """SIGKILL everything of this node."""
        actual = (
            [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
            if self.process.poll() is None
            else []
        )
        for process in actual:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Cluster:
    """A head without cores and two workers, each with a folder of its own as on a machine of its
    own. `env`: of those who may speak to it.
    """

    url: str
    env: dict[str, str]
    head: Node
    workers: list[Node]


# Of the store, in the environment of the cluster's processes alone.
STORE_SECRET = "planted-and-not-to-be-told"


@pytest.fixture(scope="module")
def auth() -> Iterator[dict[str, str]]:
    with tempfile.NamedTemporaryFile("w", prefix="token-") as token:
        token.write("0123456789abcdef" * 4)
        token.flush()
        yield {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token.name}


def _environment(auth: dict[str, str], python: Path) -> dict[str, str]:
    """Of a node's processes, in which `python` is the one of this folder."""
    lean = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "STORE_SECRET": STORE_SECRET,
    }
    env = os.environ | auth | lean | {"PATH": f"{python}:{os.environ['PATH']}"}
    env.pop("RAY_ADDRESS")
    return env


def _head(env: dict[str, str], port: int, dashboard: int) -> Node:
    ports = (f"--port={port}", f"--dashboard-port={dashboard}")
    return _node(env, "head", "--head", *ports, "--num-cpus=0", "--no-monitor")


@pytest.fixture(scope="module")
def cluster(auth: dict[str, str]) -> Iterator[Cluster]:
    port, dashboard = _free_port(), _free_port()
    nodes: list[Node] = []
    env = _environment(auth, Path(sys.executable).parent)
    try:
        nodes += [_head(env, port, dashboard)]
        _until_started(nodes[0])
        nodes += [
            _node(env, f"worker-{number}", f"--address=127.0.0.1:{port}", "--num-cpus=2")
            for number in (1, 2)
        ]
        for node in nodes[1:]:
            _until_started(node)
        yield Cluster(f"http://127.0.0.1:{dashboard}", auth, nodes[0], nodes[1:])
    finally:
        for node in reversed(nodes):
            node.end()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _node(env: dict[str, str], name: str, *options: str) -> Node:
    folder = tempfile.mkdtemp(prefix="mr-")  # sockets lie in it, whose paths must be short
    ports = [
        f"--{kind}-port={_free_port()}" for kind in ("dashboard-agent-listen", "ray-client-server")
    ]
    workers = [
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--include-log-monitor=false",
        f"--object-store-memory={100 * 2**20}",
    ]
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        f"--node-name={name}",
        f"--temp-dir={folder}",
        *ports,
        *workers,
        *options,
    ]
    return Node(
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True
        ),
        folder,
    )


def _until_started(node: Node) -> None:
    assert node.process.stdout is not None
    said = []
    for line in node.process.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            return
    raise AssertionError("".join(said))


@dataclass
class Watch:
    """A command in a process of its own, and what it says meanwhile."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def id(self) -> str:
        actual = re.search(r"submitted: (\S+);", self.said)
        assert actual is not None, self.said
        return actual[1]

    def until(self, holds: Callable[[], object]) -> None:
        while not holds():
            assert self.process.poll() is None, self.said
            time.sleep(0.1)


@pytest.fixture
def watch(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(*args: object) -> Watch:
        command, log = (
            [sys.executable, "-m", "moderay", *map(str, args), "--address", cluster.url],
            tmp_path / f"{len(started)}.log",
        )
        with log.open("w") as into:
            started.append(
                Watch(
                    subprocess.Popen(
                        command,
                        stdout=into,
                        stderr=subprocess.STDOUT,
                        text=True,
                        env=os.environ | cluster.env,
                    ),
                    log,
                )
            )
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_job_on_a_cluster_is_watched_stopped_resumed_and_survives_a_killed_node(
    cluster: Cluster, submitted, watch, cli: Cli, tmp_path: Path, golden
) -> None:
    out = tmp_path / "out"
    file = submitted(out, 4.0)  # two minutes and more, if nobody stops it
    address = ("--address", cluster.url)
    first = watch("submit", file, "--wait")
    first.until(lambda: saved(out) > 1)
    looking = watch("logs", first.id, "--follow")
    refused = cli("submit", file, *address, **cluster.env)
    golden("submit-running", _plain(refused.stderr, cluster, tmp_path, first.id))
    assert refused.returncode == 3
    shown = cli("status", first.id, *address, **cluster.env).stdout
    assert first.id in shown and "RUNNING" in shown and str(out) in shown
    looking.until(lambda: "Running entrypoint" in looking.said)
    looking.process.send_signal(signal.SIGINT)
    assert looking.process.wait(60) == 3 and "no longer watching" in looking.said
    stopped = cli("stop", first.id, *address, **cluster.env)
    assert first.process.wait(60) == 3 and "stopped by SIGTERM" in first.said
    assert f"{first.id}: STOPPED" in stopped.stdout and f"{first.id}: STOPPED" in first.said
    manifest = manifest_of(out)
    assert (
        not manifest["complete"]
        and manifest["runs"][-1]["status"] == "stopped"
        and 0 < manifest["runs"][-1]["judged"] < 105
    )

    before = saved(out) + len(labels(out)) * 7
    submitted(out, 0.3)
    second = watch("submit", file, "--wait")
    second.until(
        lambda: saved(out) + len(labels(out)) * 7 > before and any(map(_engines, cluster.workers))
    )
    next(worker for worker in cluster.workers if _engines(worker)).raylet().kill()
    assert second.process.wait(120) == 0, second.said
    assert (
        second.id == first.id.removesuffix("1") + "2"
        and f"{second.id}: SUCCEEDED" in second.said
        and "105 rows in 3 shards" in second.said
    )
    assert cli("logs", second.id, *address, **cluster.env).stdout in second.said

    here = cli("run", submitted(tmp_path / "here", 0.0))
    assert here.returncode == 0, here.stderr
    there, expected = labels(out), labels(tmp_path / "here")
    assert there.keys() == expected.keys() and len(there) == 3
    assert all(
        compared(there[shard], "spam") == compared(expected[shard], "spam") for shard in expected
    )
    keys = [manifest_of(folder)["cascade_key"] for folder in (out, tmp_path / "here")]
    assert keys[0] == keys[1]


def test_job_that_the_cluster_cannot_run_is_not_queued(
    cluster: Cluster, submitted, cli: Cli, tmp_path: Path, golden
) -> None:
    file = submitted(tmp_path / "out", 0.0, input={"path": "/nowhere/corpus", "content": "text"})
    refused = cli("submit", file, "--address", cluster.url, **cluster.env)
    golden("submit-problems", _plain(refused.stderr, cluster, tmp_path))
    assert refused.returncode == 2
    assert (
        str(tmp_path / "out") not in cli("status", "--address", cluster.url, **cluster.env).stdout
    )


def test_cluster_that_was_started_without_its_environment_is_told_what_to_do(
    auth: dict[str, str], submitted: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    """Its `python` is one that has no Ray, as where `ENV/bin/ray start` was called by its path."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    dashboard = _free_port()
    head = _head(_environment(auth, python.parent), _free_port(), dashboard)
    try:
        _until_started(head)
        address = ("--address", f"http://127.0.0.1:{dashboard}")
        refused = cli("submit", submitted(tmp_path / "out", 0.0), *address, **auth)
    finally:
        head.end()
    assert refused.returncode == 2, refused.stderr
    assert "is not the one that Ray runs on (No module named 'ray')" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1 and "ray start --head" in refused.stderr


def test_job_on_a_cluster_leaves_no_secret_there(
    cluster: Cluster, submitted: Callable[..., Path], watch: Callable[..., Watch], tmp_path: Path
) -> None:
    storage = {"s3": {"secret": "${STORE_SECRET}"}}
    run = watch("submit", submitted(tmp_path / "out", 0.3, storage=storage), "--wait")
    arguments = set[str]()
    while run.process.poll() is None:
        for node in (cluster.head, *cluster.workers):
            arguments |= _arguments(node)
        time.sleep(0.2)
    assert run.process.returncode == 0, run.said
    details = requests.get(
        f"{cluster.url}/api/jobs/", headers={"Authorization": f"Bearer {'0123456789abcdef' * 4}"}
    ).text
    assert run.id in details and any("moderay run" in line for line in arguments)
    assert STORE_SECRET not in details + run.said + "\n".join(arguments)
    logs = [
        file
        for node in (cluster.head, *cluster.workers)
        for file in Path(node.folder).rglob("*")
        if file.is_file() and not file.is_symlink()
    ]
    assert len(logs) > 20
    written = [*logs, *(file for file in (tmp_path / "out").rglob("*") if file.is_file())]
    assert [file for file in written if STORE_SECRET.encode() in file.read_bytes()] == []


def _arguments(node: Node) -> set[str]:
    """Of the node's processes."""
    found = set[str]()
    for process in psutil.Process(node.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.add(" ".join(process.cmdline()))
    return found


def test_cluster_that_does_not_let_one_in_is_told_in_one_sentence(
    cluster: Cluster, submitted, cli: Cli, tmp_path: Path, golden
) -> None:
    web = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    said = []
    for url in (
        f"127.0.0.1:{_free_port()}",
        f"http://127.0.0.1:{web.server_port}",
        "ray://127.0.0.1:10001",
        cluster.url,
    ):
        with pytest.raises(ModerayError) as caught:
            connect(url)
        said.append(f"{caught.value}\n")
    said.append(
        cli(
            "status",
            "--address",
            cluster.url,
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN="fedcba9876543210" * 4,
        ).stderr
    )
    said.append(cli("logs", "nobody-1", "--address", cluster.url, **cluster.env).stderr)
    web.shutdown()
    golden(
        "submit-no-cluster",
        re.sub(r"127\.0\.0\.1:\d+", "<address>", _plain("".join(said), cluster, tmp_path)),
    )


def _engines(node: Node) -> list[psutil.Process]:
    try:
        return [
            process
            for process in node.raylet().children(recursive=True)
            if "MapBatches(Judge)" in " ".join(process.cmdline())
        ]
    except psutil.NoSuchProcess:  # one that was just ending
        return []


def _plain(text: str, cluster: Cluster, folder: Path, name: str = "<none>") -> str:
    return plain(text, folder).replace(cluster.url, "<cluster>").replace(name, "<id>")
