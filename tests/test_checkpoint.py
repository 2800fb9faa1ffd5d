"""Models in an object store: fetched once per machine, whole, and the same judge wherever they lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from moderay import checkpoint, tiny
from moderay.errors import UserError
from moderay.prompt import vocabulary
from moderay.storage import filesystem

LOCATE = """
import sys
from moderay import checkpoint, events
events.in_worker("test", 0)
print(checkpoint.located(sys.argv[1]))
"""


@pytest.fixture
def stored(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """`tiny` in the S3 server, with files beside it from which no model is loaded."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODERAY_CACHE", str(tmp_path / "cache"))
    url = f"s3://data/{tmp_path.name}/tiny"
    fs, path = filesystem(url)
    fs.put([str(file) for file in weights(tiny.FOLDER)], f"{path}/")
    fs.pipe({f"{path}/pytorch_model.bin": b"a pickle", f"{path}/original/model.safetensors": b"the same once more"})
    yield url
    fs.rm(path, recursive=True)


def weights(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))


def test_engines_that_start_at_once_fetch_once_and_find_the_same(stored: str) -> None:
    started = [subprocess.Popen([sys.executable, "-c", LOCATE, stored], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=100) for process in started]
    [folder] = {out.strip() for out, _ in said}
    fetched = [json.loads(line) for _, log in said for line in log.splitlines() if "weights fetched" in line]
    assert [event["bytes"] for event in fetched] == [sum(file.stat().st_size for file in weights(tiny.FOLDER))]
    assert {file.name: file.read_bytes() for file in Path(folder).iterdir()} == {file.name: file.read_bytes() for file in weights(tiny.FOLDER)}


def test_fetch_that_was_killed_is_finished_and_other_weights_are_another_folder(stored: str) -> None:
    folder = Path(checkpoint.located(stored))
    (folder / "model.safetensors").rename(folder / "model.safetensors.part")
    os.truncate(folder / "model.safetensors.part", 1000)
    kept = (folder / "config.json").stat().st_mtime_ns
    assert Path(checkpoint.located(stored)) == folder and (folder / "config.json").stat().st_mtime_ns == kept
    assert (folder / "model.safetensors").read_bytes() == (tiny.FOLDER / "model.safetensors").read_bytes()
    assert not list(folder.glob("*.part"))
    fs, path = filesystem(stored)
    fs.pipe(f"{path}/config.json", (tiny.FOLDER / "config.json").read_bytes() + b"\n")
    assert Path(checkpoint.located(stored)) != folder


def test_model_is_the_same_judge_wherever_it_lies(stored: str, tmp_path: Path) -> None:
    shutil.copytree(tiny.FOLDER, tmp_path / "copy")
    assert checkpoint.identity(stored) == checkpoint.identity("tiny") == checkpoint.identity(str(tmp_path / "copy"))
    assert checkpoint.identity("openai/gpt-oss-safeguard-20b") == "openai/gpt-oss-safeguard-20b"
    assert vocabulary(stored).encode("a prize") == vocabulary("tiny").encode("a prize")
    assert checkpoint.text(stored, "no-such-file.json") is None


def test_what_cannot_be_fetched_is_told_in_one_sentence(stored: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, golden) -> None:  # type: ignore[no-untyped-def]
    said = []
    for url in (f"{stored}/original", "s3://no-such-bucket/model"):
        with pytest.raises(UserError) as caught:
            checkpoint.located(url)
        said.append(str(caught.value).replace(tmp_path.name, "<tmp>"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    with pytest.raises(UserError) as caught:
        checkpoint.located(stored)
    said.append(str(caught.value).replace(tmp_path.name, "<tmp>").replace(str(tmp_path.parent), "<folder>").replace(os.uname().nodename, "<host>"))
    golden("checkpoint", "\n".join(said) + "\n")


def test_label_by_a_model_in_an_object_store(stored: str, cli) -> None:  # type: ignore[no-untyped-def]
    said = cli("label", ROOT / "policies/spam", "--content", "claim your free prize before midnight", "--model", stored)
    assert said.returncode == 0, said.stderr
    verdict = json.loads(said.stdout)
    assert verdict["status"] == "ok" and verdict["decided_by"] == "reason" and abs(sum(verdict["scores"]) - 1) < 1e-5
