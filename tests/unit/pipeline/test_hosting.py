"""What a machine cannot host stops `run` there, and `check` nowhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mistakes import GPT_OSS_20B, model, project
from support.outputs import plain

from moderay.core.errors import Problems, UserError
from moderay.core.ray_runtime import Resources
from moderay.engines.vllm.gpu_profiles import GIB, Gpu
from moderay.pipeline import flow, hosting
from moderay.pipeline.check import check
from moderay.pipeline.control.sizing import hosted
from moderay.pipeline.run import run

T4 = Gpu("Tesla T4", int(14.6 * GIB), (7, 5))
A2000 = Gpu("NVIDIA RTX A2000", 6 * GIB, (8, 6))
L4 = Gpu("NVIDIA L4", 22 * GIB, (8, 9))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A job for a model of the published size."""
    project(tmp_path)
    model(**GPT_OSS_20B)(tmp_path)
    return tmp_path / "job.yaml"


def machine(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu] | None) -> None:
    monkeypatch.setattr(hosting, "gpus_here", lambda: gpus)
    # Whether or not another test of this process has joined a Ray.
    monkeypatch.setattr(flow, "starts_its_own", lambda: True)


@pytest.mark.parametrize(
    ("gpus", "word"),
    [
        ([], "needs a GPU of 15 GiB or more, and this machine has none"),
        ([T4], "has no bfloat16"),
        ([A2000, T4], "and its share of gpt-oss 20b takes"),
        ([L4], ""),
        ([T4, L4], ""),
        (None, ""),
    ],
)
def test_machine_is_asked_for_what_the_model_needs(
    gpus: list[Gpu] | None, word: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus)
    checked = check(large)
    assert bool(checked.elsewhere) == bool(word)
    if word:
        with pytest.raises(Problems) as caught:
            run(checked)
        assert word in str(caught.value)


def test_engine_of_more_gpus_than_there_are_is_refused(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, [L4])
    checked = check(large, ["model.engine.tensor_parallel_size=2"])
    assert "an engine of 2 GPUs is asked for, and this machine has 1" in str(checked.elsewhere[0])
    with pytest.raises(UserError, match="asks for 2 GPUs an engine, and the cluster has 1"):
        hosted(checked.job, checked.cascades, Resources(1, 8, 8))
    with pytest.raises(UserError, match="needs a GPU of 15 GiB or more, and the Ray that"):
        hosted(check(large).job, checked.cascades, Resources(0, 8, 8))


def test_check_notes_it_and_names_the_cluster_that_is_looked_at(
    large: Path,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    golden: Any,
) -> None:
    machine(monkeypatch, [])
    said = []
    for address in ("local", "192.0.2.1:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        result = cli("check", large)
        assert result.returncode == 0
        said.append(plain(result.stderr + result.stdout, tmp_path))
    golden("check-no-gpu", "".join(said))


def test_small_models_and_scripts_need_none(
    job: Callable[..., Path], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, [])
    assert not check(job()).elsewhere
    assert not check(job(model={"source": "tiny"})).elsewhere
    served = {"endpoint": "http://127.0.0.1:9/v1", "name": "x"}
    assert not check(job(model=served)).elsewhere


def test_reading_finds_room_beside_an_engine_on_small_nodes(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, [L4])
    checked = check(large)
    for node, cores in ((1, 0.5), (2, 1.0), (64, 1.0)):
        assert hosted(checked.job, checked.cascades, Resources(1, 64, node)).read_cpus == cores
