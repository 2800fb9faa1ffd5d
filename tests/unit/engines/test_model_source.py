"""A source that is no model of ours is told from one that is, in moments, whatever lies there."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import weights
from support.patience import within

from moderay.core.storage import filesystem
from moderay.engines import checkpoint
from moderay.engines.model_source import LONGEST_CONFIG, SourceReport, inspect_source

CONFIG = json.loads((checkpoint.TINY_FOLDER / "config.json").read_text())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of tiny, to be spoilt."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in weights(checkpoint.TINY_FOLDER):
        shutil.copy(file, folder)
    return folder


def another_architecture(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))


def no_architecture(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "bert"}))


def no_object(model: Path) -> None:
    (model / "config.json").write_text("[]")


def no_json(model: Path) -> None:
    (model / "config.json").write_bytes(b"\xff{" * 100)


def deep(model: Path) -> None:
    (model / "config.json").write_text("[" * 200_000)


def huge(model: Path) -> None:
    with (model / "config.json").open("r+b") as file:
        file.truncate(2**40)


def pipe(model: Path) -> None:
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")


def folder(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").mkdir()


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def part_of_it(model: Path) -> None:
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def empty(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()


def a_file(model: Path) -> None:
    shutil.rmtree(model)
    model.write_bytes(b"weights")


def nothing(model: Path) -> None:
    shutil.rmtree(model)


def link_to_itself(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("config.json")


SPOILT = [
    *[another_architecture, no_architecture, no_object, no_json, deep, huge, pipe, folder],
    *[no_config, no_weights, part_of_it, empty, a_file, nothing, link_to_itself],
]


def test_tiny_and_a_copy_of_it_are_models(model: Path) -> None:
    assert inspect_source("tiny", None) == inspect_source(str(model), None) == SourceReport()
    (model / "config.json").write_text(json.dumps({**CONFIG, "architectures": None}))
    assert inspect_source(str(model), None).problem


def test_folders_that_hold_no_model_are_told_in_a_sentence(tmp_path: Path, golden: Any) -> None:
    said = []
    for spoil in SPOILT:
        model = tmp_path / spoil.__name__
        model.mkdir()
        for file in weights(checkpoint.TINY_FOLDER):
            shutil.copy(file, model)
        spoil(model)
        with within(5):
            report = inspect_source(str(model), None)
        assert report.problem and "\n" not in report.problem and len(report.problem) < 300
        said.append(f"{report.problem}\n    hint: {report.hint}\n")
    golden("model-folders", "".join(said).replace(str(tmp_path), "<tmp>"))


def test_models_of_an_object_store_are_looked_at_without_fetching_them(stored_tiny: str) -> None:
    assert inspect_source(stored_tiny, None) == SourceReport()
    fs, path = filesystem(stored_tiny)
    fs.pipe(f"{path}/config.json", json.dumps({"architectures": ["BertModel"]}).encode())
    assert "its config says BertModel" in inspect_source(stored_tiny, None).problem
    fs.pipe(f"{path}/config.json", b" " * (LONGEST_CONFIG + 1))
    assert "bytes, which no model's has" in inspect_source(stored_tiny, None).problem
    assert "holds no model" in inspect_source(f"{stored_tiny}/original", None).problem
    assert "no such bucket" in inspect_source("s3://no-such-bucket/model", None).problem


def test_hub_id_that_cannot_be_asked_for_is_no_problem_and_a_typo_gets_a_hint() -> None:
    report = inspect_source("openai/gpt-oss-safegard-20b", None)
    assert not report.problem and report.offline and "HF_HUB_OFFLINE" in report.unseen
    assert report.hint == "did you mean 'openai/gpt-oss-safeguard-20b'?"
    assert not inspect_source("openai/gpt-oss-safeguard-20b", None).problem
    for source in ("a/b/c", "models/../x", "", "two words", "ünder/score", "a" * 5000 + "/b/c"):
        assert inspect_source(source, None).problem, source


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as a hub does, by the model that it is asked for."""

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix("/api/models/")
        if name == "org/slow":
            time.sleep(20)
        status = {"org/none": 404, "org/private": 401, "org/broken": 503}.get(name, 200)
        status = 404 if "/revision/" in name else status
        kind = "LlamaForCausalLM" if name == "org/llama" else "GptOssForCausalLM"
        body = json.dumps({"id": name, "config": {"architectures": [kind]}, "siblings": []})
        self.send_response(status)
        if status in (401, 404):
            error = "RevisionNotFound" if "/revision/" in name else "RepoNotFound"
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


ASK = """
import sys, time
import huggingface_hub
from moderay.engines import model_source
from moderay.engines.model_source import inspect_source
if sys.argv[1] != "org/slow":  # a busy machine may take long to answer itself
    model_source.HUB_S = 30
began = time.perf_counter()
report = inspect_source(sys.argv[1], sys.argv[2] or None)
assert time.perf_counter() - began < 15, "too long"
print("problem" if report.problem else "unseen" if report.unseen else "sound")
print(report.problem or report.unseen)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.parametrize(
    ("source", "revision", "kind", "word"),
    [
        ("org/good", "", "sound", ""),
        ("org/llama", "", "problem", "its config says LlamaForCausalLM"),
        ("org/none", "", "problem", "the hub has no model of this name"),
        ("org/private", "", "problem", "the hub has no model of this name"),
        ("org/good", "abc", "problem", "has no revision 'abc' on the hub"),
        ("org/broken", "", "unseen", "could not be asked"),
        ("org/slow", "", "unseen", "did not answer"),
        ("org/away", "", "unseen", "could not be asked"),
    ],
)
def test_hub_is_asked_and_one_that_does_not_answer_is_no_problem(
    source: str, revision: str, kind: str, word: str, hub: str, tmp_path: Path
) -> None:
    endpoint = "http://127.0.0.1:9" if source == "org/away" else hub
    env = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", ASK, source, revision],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = result.stdout.splitlines()
    assert told[:1] == [kind] and word in result.stdout, result.stdout + result.stderr


def test_model_in_the_cache_is_looked_at_without_the_hub(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--org--kept/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/models--org--kept/refs").mkdir()
    (tmp_path / "hub/models--org--kept/refs/main").write_text("abc")
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    for kind, word in (("GptOssForCausalLM", "sound"), ("BertModel", "its config says BertModel")):
        (snapshot / "config.json").write_text(json.dumps({"architectures": [kind]}))
        result = subprocess.run(
            [sys.executable, "-c", ASK, "org/kept", ""],
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert word in result.stdout, result.stdout + result.stderr
