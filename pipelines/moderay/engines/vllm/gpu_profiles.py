"""Engine profiles: what vLLM is told on which GPU, and which GPU cannot hold the job. Data:
engine-profiles.yaml.

A profile sets speed and memory only. What could change a verdict (dtype, quantization, KV cache
dtype, the longest prompt) is the job's; a GPU that cannot hold it is refused.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from moderay.engines import checkpoint

FILE = Path(__file__).parent / "engine-profiles.yaml"

Size = Literal["20b", "120b"]

GIB = 2**30
# Of both models: hidden and intermediate size, heads and KV heads of 64, vocabulary.
HIDDEN, HEADS, KV_HEADS, HEAD, VOCABULARY = 2880, 64, 8, 64, 201_088
# Tokens that every second layer looks back.
SLIDING = 128
# Steps that are under way at once: while the GPU computes one, vLLM prepares the next.
STEPS = 2
# CUDA's context and graphs, at least.
CONTEXT_BYTES = GIB // 2
# GPUs of one engine, in one node.
MOST_GPUS = 8

# Compute capability from which a GPU has bfloat16 (Ampere), and fp8 keys and values (Ada).
BFLOAT16, FP8 = (8, 0), (8, 9)


@dataclass(frozen=True)
class Gpu:
    """One of the GPUs an engine gets. `memory`: bytes, as the driver reports them; `capability`:
    compute capability.
    """

    name: str
    memory: int
    capability: tuple[int, int]


class Settings(BaseModel):
    """What a profile may set. `tensor_parallel_size`: the fewest GPUs of this kind that hold the
    model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_num_seqs: int = Field(ge=1)
    max_num_batched_tokens: int = Field(ge=1)
    gpu_memory_utilization: float = Field(gt=0, le=1)
    tensor_parallel_size: int = Field(ge=1, le=MOST_GPUS)
    max_cudagraph_capture_size: int | None = None

    def arguments(self) -> dict[str, Any]:
        """As vLLM's engine takes them. How many GPUs there are is not for the worker to choose."""
        return self.model_dump(exclude={"tensor_parallel_size"}, exclude_none=True)


class Model(BaseModel):
    """A published checkpoint: experts in MXFP4, the rest in bfloat16."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    layers: int
    experts: int


class Profile(BaseModel):
    """A kind of GPU: those with at least this memory (GiB) and compute capability. By model: its
    settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    gpu: str
    memory_gib: float
    capability: tuple[int, int]
    small: Settings = Field(alias="20b")
    large: Settings = Field(alias="120b")

    def settings(self, size: Size | None) -> Settings:
        """Those of 20b for a checkpoint of unknown size, which is hardly larger."""
        return self.large if size == "120b" else self.small


class Profiles(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    models: dict[Size, Model]
    profiles: tuple[Profile, ...] = Field(min_length=1)

    def of(self, gpu: Gpu) -> Profile:
        """The last whose memory and capability the GPU reaches; the first for a smaller one."""
        reached = [
            p
            for p in self.profiles
            if gpu.memory >= p.memory_gib * GIB and gpu.capability >= p.capability
        ]
        return reached[-1] if reached else self.profiles[0]


@functools.cache
def profiles() -> Profiles:
    return Profiles.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def most() -> Settings:
    """The largest settings of any profile: what a driver, which does not know the workers' GPUs,
    takes as the bound.
    """
    return max(
        (p.settings("20b") for p in profiles().profiles), key=lambda settings: settings.max_num_seqs
    )


def model_size(source: str) -> Size | None:
    """Which of the published checkpoints a source is: a folder by its config, a hub id by its name.
    None for any other.
    """
    config = checkpoint.text(source, "config.json")
    if config is None:
        found = re.search(r"gpt-oss-(?:safeguard-)?(20b|120b)$", source.rstrip("/"), re.IGNORECASE)
        return None if found is None else "20b" if found[1].lower() == "20b" else "120b"
    said = json.loads(config)
    if (said.get("quantization_config") or {}).get("quant_method") != "mxfp4" or said.get(
        "hidden_size"
    ) != HIDDEN:
        return None
    shape = (said.get("num_hidden_layers"), said.get("num_local_experts"))
    return next(
        (
            size
            for size, model in profiles().models.items()
            if (model.layers, model.experts) == shape
        ),
        None,
    )


@dataclass(frozen=True)
class Wanted:
    """What a job asks of its GPUs. `max_model_len`: tokens of the longest prompt and its answer;
    the rest as vLLM names it.
    """

    size: Size
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    tensor_parallel_size: int = 1
    kv_cache_dtype: str = "auto"

    def weights(self, gpu: Gpu, gpus: int) -> int:
        """Bytes of weights on one of so many GPUs, in the layout of the kernels it runs."""
        model, hopper = profiles().models[self.size], gpu.capability[0] == 9
        hidden = HIDDEN if hopper else _up(HIDDEN, 256)
        inner = _up(HIDDEN // gpus, 64 if hopper else 128) * gpus
        experts = model.layers * model.experts * 3 * hidden * inner * 17 // 32
        attention = model.layers * HIDDEN * 2 * (HEADS + KV_HEADS) * HEAD * 2
        return (experts + attention + 2 * VOCABULARY * HIDDEN * 2) // gpus

    def step(self) -> int:
        """Bytes of a step's activations and of sampling, and CUDA's own."""
        return (
            CONTEXT_BYTES
            + self.max_num_batched_tokens * 4 * 4 * HIDDEN * 2
            + self.max_num_seqs * 3 * VOCABULARY * 4
        )

    def kv(self, tokens: int, gpus: int) -> int:
        """Bytes of keys and values of one prompt on one of so many GPUs."""
        width = 1 if self.kv_cache_dtype.startswith("fp8") else 2
        half = profiles().models[self.size].layers // 2 * 2 * KV_HEADS * HEAD * width
        return (
            (tokens + min(tokens, SLIDING - 1 + STEPS * self.max_num_batched_tokens)) * half // gpus
        )

    def fits(self, gpu: Gpu, tokens: int, gpus: int) -> bool:
        """Whether so many GPUs of a kind hold the model and one prompt of so many tokens."""
        return (
            self.weights(gpu, gpus) + self.step() + self.kv(tokens, gpus)
            <= gpu.memory * self.gpu_memory_utilization
        )


def refusal(gpu: Gpu, wanted: Wanted) -> str | None:
    """Why this GPU cannot hold what the job asks for, and what to change; None where it can. An
    estimate that counts what vLLM takes at least: vLLM itself, which measures, may still refuse.
    """
    capability = ".".join(map(str, gpu.capability))
    if gpu.capability < BFLOAT16:
        return (
            f"{gpu.name} (compute capability {capability}) has no bfloat16, which the model "
            "is computed in: take a GPU of compute capability 8.0 or above"
        )
    if wanted.kv_cache_dtype.startswith("fp8") and gpu.capability < FP8:
        return (
            f"{gpu.name} (compute capability {capability}) cannot keep keys and values in "
            f"{wanted.kv_cache_dtype}: leave out model.kv_cache_dtype"
        )
    gpus, longest = wanted.tensor_parallel_size, wanted.max_model_len
    if wanted.fits(gpu, longest, gpus):
        return None
    enough = fewest_gpus(gpu, wanted)
    more = (
        "take a larger GPU"
        if enough is None
        else f"set model.engine.tensor_parallel_size: {enough} (GPUs for each engine)"
    )
    has = f"{gpu.name} has {gpu.memory / GIB:.1f} GiB"
    if not wanted.fits(gpu, 1, gpus):
        needed = wanted.weights(gpu, gpus) + wanted.step()
        return (
            f"{has}, of which {wanted.gpu_memory_utilization:.0%} may be used, and its share "
            f"of gpt-oss {wanted.size} takes {needed / GIB:.1f} GiB: {more}"
        )
    room = f"enough for {_longest(gpu, wanted):,} tokens, not the {longest:,} of the longest prompt"
    return (
        f"{has}, and beside gpt-oss {wanted.size} that is {room}: lower windows.tokens, or {more}"
    )


def _longest(gpu: Gpu, wanted: Wanted) -> int:
    """Tokens of the longest prompt that fits, to the hundred below."""
    low, high = 0, wanted.max_model_len
    while high - low > 100:
        middle = (low + high) // 2
        low, high = (
            (middle, high)
            if wanted.fits(gpu, middle, wanted.tensor_parallel_size)
            else (low, middle)
        )
    return low // 100 * 100


def fewest_gpus(gpu: Gpu, wanted: Wanted) -> int | None:
    """GPUs of this kind that one engine needs; None where no node's would be enough."""
    return next((n for n in _gpu_counts() if wanted.fits(gpu, wanted.max_model_len, n)), None)


def _gpu_counts() -> tuple[int, ...]:
    """Into which 64 heads and 8 KV heads can be divided."""
    return tuple(n for n in range(1, MOST_GPUS + 1) if KV_HEADS % n == 0)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
