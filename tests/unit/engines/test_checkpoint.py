"""Models in an object store: fetched once per machine, whole, the same judge anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import weights

from moderay.core.errors import UserError
from moderay.core.storage import filesystem
from moderay.engines import checkpoint
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.vllm.gpu_profiles import model_size

LOCATE = """
import sys
from moderay.core import events
from moderay.engines import checkpoint
events.in_worker("test", 0)
print(checkpoint.located(sys.argv[1]))
"""


def test_engines_that_start_at_once_fetch_once_and_find_the_same(stored_tiny: str) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LOCATE, stored_tiny],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    result = [process.communicate(timeout=100) for process in started]
    [folder] = {out.strip() for out, _ in result}
    fetched = [
        json.loads(line)
        for _, log in result
        for line in log.splitlines()
        if "weights fetched" in line
    ]
    assert [event["bytes"] for event in fetched] == [
        sum(file.stat().st_size for file in weights(checkpoint.TINY_FOLDER))
    ]
    assert {file.name: file.read_bytes() for file in Path(folder).iterdir()} == {
        file.name: file.read_bytes() for file in weights(checkpoint.TINY_FOLDER)
    }


def test_fetch_that_was_killed_is_finished_and_other_weights_are_another_folder(
    stored_tiny: str,
) -> None:
    folder = Path(checkpoint.located(stored_tiny))
    (folder / "model.safetensors").rename(folder / "model.safetensors.part")
    os.truncate(folder / "model.safetensors.part", 1000)
    kept = (folder / "config.json").stat().st_mtime_ns
    assert (
        Path(checkpoint.located(stored_tiny)) == folder
        and (folder / "config.json").stat().st_mtime_ns == kept
    )
    assert (folder / "model.safetensors").read_bytes() == (
        checkpoint.TINY_FOLDER / "model.safetensors"
    ).read_bytes()
    assert not list(folder.glob("*.part"))
    fs, path = filesystem(stored_tiny)
    fs.pipe(f"{path}/config.json", (checkpoint.TINY_FOLDER / "config.json").read_bytes() + b"\n")
    assert Path(checkpoint.located(stored_tiny)) != folder


def test_model_is_the_same_judge_wherever_it_lies(stored_tiny: str, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.TINY_FOLDER, tmp_path / "copy")
    assert (
        checkpoint.identity(stored_tiny)
        == checkpoint.identity("tiny")
        == checkpoint.identity(str(tmp_path / "copy"))
    )
    assert checkpoint.identity("openai/gpt-oss-safeguard-20b") == "openai/gpt-oss-safeguard-20b"
    assert vocabulary(stored_tiny).encode("a prize") == vocabulary("tiny").encode("a prize")
    assert (
        checkpoint.text(stored_tiny, "no-such-file.json") is None
        and model_size(stored_tiny) is None
    )


def test_what_cannot_be_fetched_is_told_in_one_sentence(
    stored_tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, golden
) -> None:  # type: ignore[no-untyped-def]
    result = []
    for url in (f"{stored_tiny}/original", "s3://no-such-bucket/model"):
        with pytest.raises(UserError) as caught:
            checkpoint.located(url)
        result.append(str(caught.value).replace(tmp_path.name, "<tmp>"))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )  # type: ignore[attr-defined]
    with pytest.raises(UserError) as caught:
        checkpoint.located(stored_tiny)
    result.append(
        str(caught.value)
        .replace(tmp_path.name, "<tmp>")
        .replace(str(tmp_path.parent), "<folder>")
        .replace(os.uname().nodename, "<host>")
    )
    golden("checkpoint", "\n".join(result) + "\n")
