"""Engine profiles: which GPU gets which settings, what overrides them, and which GPU is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from moderay.config.job import Job
from moderay.core.errors import UserError
from moderay.engines.from_job import engine_spec
from moderay.engines.vllm.capacity import EngineNeed, fewest_gpus, refusal
from moderay.engines.vllm.engine import VllmSpec
from moderay.engines.vllm.gpu_profiles import (
    FILE,
    GIB,
    Gpu,
    Profiles,
    Settings,
    Size,
    model_size,
    most,
    profiles,
)

# What drivers report.
A4000 = Gpu("NVIDIA RTX A4000", int(15.7 * GIB), (8, 6))
RTX_4060_TI = Gpu("NVIDIA GeForce RTX 4060 Ti", int(15.57 * GIB), (8, 9))
L4 = Gpu("NVIDIA L4", int(22.03 * GIB), (8, 9))
A10G = Gpu("NVIDIA A10G", int(21.98 * GIB), (8, 6))
RTX_5090 = Gpu("NVIDIA GeForce RTX 5090", int(31.4 * GIB), (12, 0))
A100_40 = Gpu("NVIDIA A100-SXM4-40GB", int(39.4 * GIB), (8, 0))
L40S = Gpu("NVIDIA L40S", int(44.4 * GIB), (8, 9))
A100_80 = Gpu("NVIDIA A100-SXM4-80GB", int(79.1 * GIB), (8, 0))
H100 = Gpu("NVIDIA H100 80GB HBM3", int(79.1 * GIB), (9, 0))
H100_MIG = Gpu("NVIDIA H100 80GB HBM3 MIG 3g.40gb", int(39.5 * GIB), (9, 0))
H200 = Gpu("NVIDIA H200", int(139.8 * GIB), (9, 0))
B200 = Gpu("NVIDIA B200", int(178 * GIB), (10, 0))
T4 = Gpu("Tesla T4", int(14.6 * GIB), (7, 5))

KINDS = {
    "16 GB": (A4000, RTX_4060_TI, T4),
    "24 GB": (L4, A10G, RTX_5090),
    "A100 40 GB": (A100_40, L40S, H100_MIG),
    "A100 80 GB": (A100_80,),
    "H100": (H100,),
    "H200": (H200,),
    "B200": (B200,),
}
SIZES: tuple[Size, ...] = ("20b", "120b")
# Tokens of the longest prompt as a job comes: windows of 8,192, a policy of 2,000, and the answer.
LONGEST = 11_000


def wanted(
    settings: Settings,
    size: Size,
    longest: int = LONGEST,
    gpus: int | None = None,
    kv: str = "auto",
) -> EngineNeed:
    shape = (
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        settings.gpu_memory_utilization,
    )
    return EngineNeed(
        size, longest, *shape, settings.tensor_parallel_size if gpus is None else gpus, kv
    )


@pytest.mark.parametrize(
    ("kind", "gpu"),
    [(kind, gpu) for kind, gpus in KINDS.items() for gpu in gpus],
    ids=lambda value: getattr(value, "name", value),
)
def test_gpu_found_chooses_the_profile(kind: str, gpu: Gpu) -> None:
    assert profiles().of(gpu).gpu == kind


def test_every_kind_of_gpu_has_settings_for_both_models() -> None:
    assert [profile.gpu for profile in profiles().profiles] == list(KINDS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gpu", [gpus[0] for gpus in KINDS.values()], ids=lambda gpu: gpu.name)
def test_profile_holds_a_jobs_windows_on_as_few_gpus_as_can(gpu: Gpu, size: Size) -> None:
    settings = profiles().of(gpu).settings(size)
    assert refusal(gpu, wanted(settings, size)) is None
    assert fewest_gpus(gpu, wanted(settings, size)) == settings.tensor_parallel_size


@pytest.mark.parametrize(("size", "gib"), [("20b", 12.8), ("120b", 60.7)])
def test_weights_come_out_as_published(size: Size, gib: float) -> None:
    assert wanted(most(), size, gpus=1).weights(H100, 1) / GIB == pytest.approx(gib, abs=0.05)


def test_keys_and_values_take_24_and_36_kib_a_token_and_half_in_fp8() -> None:
    settings = profiles().of(H100).settings("20b")
    long, longer = 100_000, 101_024  # both beyond what the sliding layers keep
    for size, kv, kib in (("20b", "auto", 24), ("120b", "auto", 36), ("20b", "fp8", 12)):
        model = wanted(settings, size, kv=kv)  # type: ignore[arg-type]
        assert model.kv(longer, 1) - model.kv(long, 1) == 1024 * kib * 1024


@pytest.mark.parametrize(
    "setting", ["dtype: float16", "kv_cache_dtype: fp8", "quantization: fp8", "max_model_len: 4096"]
)
def test_a_setting_that_could_change_a_verdict_is_no_part_of_a_profile(setting: str) -> None:
    data = yaml.safe_load(FILE.read_text())
    data["profiles"][0]["20b"] |= yaml.safe_load(setting)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Profiles.model_validate(data)


def test_gpu_that_cannot_hold_the_job_is_refused_in_one_sentence(
    golden: Callable[[str, str], None],
) -> None:
    small, half = (
        profiles().of(RTX_4060_TI).settings("20b"),
        profiles().of(A100_40).settings("120b"),
    )
    refused = [
        refusal(T4, wanted(small, "20b")),
        refusal(A100_80, wanted(profiles().of(A100_80).settings("20b"), "20b", kv="fp8")),
        refusal(RTX_4060_TI, wanted(small, "20b", longest=40_000)),
        refusal(A100_40, wanted(half, "120b", gpus=1)),
        refusal(Gpu("NVIDIA H100 MIG 1g.10gb", 10 * GIB, (9, 0)), wanted(small, "120b", gpus=4)),
        refusal(Gpu("NVIDIA RTX A2000", 6 * GIB, (8, 6)), wanted(half, "120b", gpus=8)),
    ]
    golden("profiles-refused", "".join(f"{sentence}\n" for sentence in refused))


def test_refusal_names_a_length_and_a_number_of_gpus_that_fit() -> None:
    settings = profiles().of(RTX_4060_TI).settings("20b")
    result = refusal(RTX_4060_TI, wanted(settings, "20b", longest=40_000)) or ""
    room = int(result.split("enough for ")[1].split(" tokens")[0].replace(",", ""))
    gpus = int(result.split("tensor_parallel_size: ")[1][0])
    assert refusal(RTX_4060_TI, wanted(settings, "20b", longest=room)) is None
    assert refusal(RTX_4060_TI, wanted(settings, "20b", longest=room + 200)) is not None
    assert refusal(RTX_4060_TI, wanted(settings, "20b", longest=40_000, gpus=gpus)) is None


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("openai/gpt-oss-safeguard-20b", "20b"),
        ("openai/gpt-oss-120b", "120b"),
        ("somebody/gpt-oss-20b-bf16", None),
        ("tiny", None),
    ],
)
def test_hub_id_tells_the_size(source: str, size: Size | None) -> None:
    assert model_size(source) == size


def test_folder_tells_the_size_by_its_config(tmp_path: Path) -> None:
    config = {
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "hidden_size": 2880,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_size(str(tmp_path)) == "120b"
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": None}))
    assert model_size(str(tmp_path)) is None, "unpacked to bfloat16 it is four times as large"


def spec(
    engine: dict[str, object] | None = None,
    source: str = "openai/gpt-oss-safeguard-20b",
    gpus: int = 8,
) -> VllmSpec:
    job = {
        "input": {"path": "in", "content": "text"},
        "output": {"path": "out"},
        "policies": ["p"],
        "model": {"source": source, "engine": engine or {}},
    }
    actual = engine_spec(Job.model_validate(job), gpus)
    assert isinstance(actual, VllmSpec)
    return actual


def found_on(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, of: VllmSpec) -> VllmSpec:
    monkeypatch.setattr("moderay.engines.vllm.engine.gpu_here", lambda: gpu)
    return of.here()


def test_each_worker_takes_the_settings_of_its_own_gpu_under_one_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = spec()
    for gpus in KINDS.values():
        there, settings = (
            found_on(monkeypatch, gpus[0], driver),
            profiles().of(gpus[0]).settings("20b"),
        )
        assert (there.max_num_seqs, there.max_num_batched_tokens) == (
            settings.max_num_seqs,
            settings.max_num_batched_tokens,
        )
        assert there.engine["gpu_memory_utilization"] == settings.gpu_memory_utilization
        assert there.max_num_seqs <= driver.max_num_seqs, (
            "the driver keeps enough units in flight for any of them"
        )
        assert there.identity() == driver.identity(), "the GPU is no part of the judge key"


def test_what_the_job_says_comes_before_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = spec({"max_num_seqs": 48, "gpu_memory_utilization": 0.5, "tensor_parallel_size": 2})
    there = found_on(monkeypatch, H100, driver)
    assert (driver.max_num_seqs, there.max_num_seqs, there.max_num_batched_tokens) == (
        48,
        48,
        16384,
    )
    assert there.gpus == 2 and there.engine["gpu_memory_utilization"] == 0.5


def test_engine_without_a_gpu_is_set_up_as_the_driver_said(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = spec({"max_num_seqs": 48}, source="tiny", gpus=0)
    assert found_on(monkeypatch, H100, driver) == driver
    assert (driver.max_num_seqs, dict(driver.engine)) == (48, {})


def test_engine_on_a_gpu_too_small_says_so_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = found_on(
        monkeypatch,
        A100_40,
        replace(spec(source="openai/gpt-oss-safeguard-120b"), max_model_len=LONGEST),
    )
    with pytest.raises(
        UserError,
        match=r"safeguard-120b' cannot be hosted on .*A100-SXM4-40GB has 39\.4 GiB.*"
        r" set model\.engine\.tensor_parallel_size: 2 ",
    ):
        asyncio.run(there.build())


def test_checkpoint_of_another_size_or_with_memory_elsewhere_is_left_to_vllm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert found_on(monkeypatch, T4, spec(source="tiny")).refusal() is None
    assert (
        found_on(
            monkeypatch, A4000, spec({"cpu_offload_gb": 60}, source="openai/gpt-oss-safeguard-120b")
        ).refusal()
        is None
    )


def test_every_number_says_whether_it_was_measured() -> None:
    numbers = {
        "max_num_seqs": 1024,
        "max_num_batched_tokens": 16384,
        "gpu_memory_utilization": 0.92,
        "tensor_parallel_size": 1,
    }
    measured = {"max_num_batched_tokens": "make gpu on an H100, vLLM 0.32.0, 2026-12-01"}
    settings = Settings.model_validate({**numbers, "measured": measured})
    assert settings.source("max_num_batched_tokens") == measured["max_num_batched_tokens"]
    assert settings.source("max_num_seqs") == "arithmetic"
    assert "measured" not in settings.arguments()
    with pytest.raises(ValidationError, match=r"'max_cudagraph_capture_size', which is not set"):
        Settings.model_validate({**numbers, "measured": {"max_cudagraph_capture_size": "x"}})


def test_no_number_of_the_shipped_profiles_is_measured_yet() -> None:
    text = FILE.read_text(encoding="utf-8")
    shipped = [p.settings(size) for p in profiles().profiles for size in SIZES]
    assert ("None has been measured yet" in text) == (not any(s.measured for s in shipped))
