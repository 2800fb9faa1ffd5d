"""The local API: who may ask, what is answered, and how it is met by the commands."""

import asyncio
import http.client
import json
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.workbenches import asked, policy_folder, script_file, scripted_job

from moderay.core.errors import UserError
from moderay.tasks.workbench.client import ask
from moderay.tasks.workbench.port import token_file
from moderay.tasks.workbench.server import served
from moderay.tasks.workbench.workbench import opened

POLICY = """\
---
id: short
labels: {"0": {violates: false}, "1": {violates: true}}
answer: label
---
# Short
"""


@contextmanager
def serving(policy: Path, script: Path) -> Iterator[int]:
    """A workbench that is served from a thread of its own; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ready = threading.Event()
    stopped = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with opened(scripted_job(policy, script)) as bench, served(bench, port):
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(60)
        loop.close()


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODERAY_CACHE", str(tmp_path / "cache"))
    return policy_folder(tmp_path)


def request(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_only_who_can_read_the_token_may_ask(policy: Path, tmp_path: Path) -> None:
    with serving(policy, script_file(tmp_path)) as port:
        file = token_file(port)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        known = {"Authorization": f"Bearer {file.read_text()}"}
        assert request(port, "/health", **known)[0] == 200
        refused: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer \xe9"},
            {**known, "Origin": "http://localhost"},
            {**known, "Origin": "null"},
            # A name of somebody else's that leads here.
            {**known, "Host": f"rebound.example.org:{port}"},
            {**known, "Host": "127.0.0.1"},
        ]
        for headers in refused:
            assert request(port, "/health", **headers) == (403, {"error": "not allowed"}), headers
            body = json.dumps({"policy": str(policy), "content": "a prize"}).encode()
            assert request(port, "/label", body, **headers)[0] == 403
        assert not asked(tmp_path)
    assert not file.exists()
    with pytest.raises(UserError, match=f"nothing of yours listens on port {port}"):
        ask(port, "/health")


def test_texts_are_labelled_under_folders_and_texts_of_policies(
    policy: Path, tmp_path: Path
) -> None:
    with serving(policy, script_file(tmp_path)) as port:
        assert ask(port, "/health")["warm"] is False
        body = {"policy": [str(policy), POLICY], "content": ["a prize", "bad \udcff", "a prize"]}
        first, second, third = ask(port, "/label", body)["labels"]
        assert first == third and first["flagged"] is True
        assert first["policies"]["spam"]["label"] == "SP4"
        assert second["policies"]["spam"]["status"] == "invalid"
        paid = asked(tmp_path)
        ask(port, "/label", {"policy": str(policy), "content": "a prize"})
        assert asked(tmp_path) == paid and ask(port, "/health")["warm"] is True
        # Another effort is another question to the same engine.
        ask(port, "/label", {"policy": str(policy), "content": "a prize", "effort": "high"})
        assert asked(tmp_path) > paid
        rendered = ask(port, "/render", {"policy": POLICY, "content": "Hi", "effort": "high"})
        assert "Reasoning: high" in rendered["text"] and rendered["ids"]


def test_commands_use_an_engine_that_is_warm(
    policy: Path, tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    script = script_file(tmp_path)
    with serving(policy, script) as port:
        warm = ("--content", "a prize", "--port", str(port))
        result = cli("label", policy, *warm)
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout)["label"] == "SP4"
        (tmp_path / "lines").write_bytes(b"my shop\nbad \xff\n")
        result = cli("label", policy, "--file", tmp_path / "lines", *warm[2:])
        records = [json.loads(line)["policies"]["spam"] for line in result.stdout.splitlines()]
        assert [(r["status"], r["label"]) for r in records] == [("ok", "SP2"), ("invalid", None)]
        assert "Reasoning: high" in cli("render", policy, *warm, "--effort", "high").stdout

        assert cli("label", policy, *warm, "--model", f"scripted:{script}").returncode == 0
        result = cli("label", policy, *warm, "--model", "tiny")
        assert result.returncode == 2 and "leave --model out" in result.stderr
        result = cli("label", tmp_path / "nosuch", *warm)
        assert result.returncode == 2 and "no policy.md in this policy folder" in result.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1", "the body is no JSON: "),
        (b"[" * 100_000, "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b"[]", "the body is no JSON object"),
        (b"{}", "policy: a text or a list of texts is wanted"),
        (b'{"policy": "x", "content": [1]}', "'x' is neither an absolute path nor the text"),
        (b'{"policy": "/nosuch", "content": "x"}', "no policy.md in this policy folder"),
        (b'{"policy": "/no\\u0000such", "content": "x"}', "cannot be read"),
        (b'{"policy": "---\\nid: x\\n---\\n", "content": "x"}', "no policy text below"),
        (b'{"policy": [], "content": "x"}', "policy: a text or a list of texts is wanted"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    body: bytes, message: str, policy: Path, tmp_path: Path
) -> None:
    with serving(policy, script_file(tmp_path)) as port:
        token = {"Authorization": f"Bearer {token_file(port).read_text()}"}
        status, answer = request(port, "/label", body, **token)
        assert status == 400 and message in answer["error"]


def test_requests_that_are_too_large_or_lead_nowhere_are_refused_as_json(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moderay.tasks.workbench.server.LONGEST_REQUEST", 1000)
    with serving(policy, script_file(tmp_path)) as port:
        with pytest.raises(UserError, match=f"port {port}: Request Entity Too Large"):
            ask(port, "/label", {"policy": str(policy), "content": "x" * 2000})
        with pytest.raises(UserError, match=f"port {port}: Not Found"):
            ask(port, "/nowhere")


def test_a_token_never_goes_where_a_link_leads(policy: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token_file(port).parent.mkdir(parents=True)
    token_file(port).symlink_to(target)

    async def serve() -> bool:
        job = scripted_job(policy, script_file(tmp_path))
        async with opened(job) as bench, served(bench, port) as file:
            return file.is_symlink()

    assert asyncio.run(serve()) is False
    assert target.read_text() == "mine" and not os.path.lexists(token_file(port))
