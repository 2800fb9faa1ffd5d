"""Engine profiles: vLLM's settings for each kind of GPU, and which model a source is.

The data is in engine-profiles.yaml. A profile sets speed and memory only. What could change a
verdict (dtype, quantization, KV cache dtype, the longest prompt) is the job's; a GPU that cannot
hold it is refused (`capacity`).
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from moderay.engines import checkpoint

FILE = Path(__file__).parent / "engine-profiles.yaml"

Size = Literal["20b", "120b"]

GIB = 2**30
# Of both models. Hidden size, which is the intermediate size too:
HIDDEN = 2880
# GPUs of one engine, in one node.
MOST_GPUS = 8


@dataclass(frozen=True)
class Gpu:
    """One of the GPUs an engine gets.

    Attributes:
        name: As the driver reports it.
        memory: Bytes, as the driver reports them.
        capability: Compute capability, major and minor.
    """

    name: str
    memory: int
    capability: tuple[int, int]


class Settings(BaseModel):
    """What a profile may set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_num_seqs: int = Field(ge=1)
    """Requests in a batch."""
    max_num_batched_tokens: int = Field(ge=1)
    """Tokens of a step."""
    gpu_memory_utilization: float = Field(gt=0, le=1)
    """Share of the GPU's memory that vLLM may take."""
    tensor_parallel_size: int = Field(ge=1, le=MOST_GPUS)
    """The fewest GPUs of this kind that hold the model."""
    max_cudagraph_capture_size: int | None = None
    """Largest batch with a CUDA graph of its own; None: vLLM chooses."""
    measured: dict[str, str] = {}
    """Which of these numbers a measurement gave, by name: on what, with what, when."""

    @model_validator(mode="after")
    def _measured_ones_are_set(self) -> Settings:
        """A measurement of what is not set would speak for a number that is not there."""
        numbers = self.model_dump(exclude={"measured"}, exclude_none=True)
        if unknown := [name for name in self.measured if name not in numbers]:
            raise ValueError(
                f"measured names {unknown[0]!r}, which is not set here; set are: "
                + ", ".join(numbers)
            )
        return self

    def source(self, name: str) -> str:
        """Where a number comes from: `arithmetic`, or what measured it."""
        return self.measured.get(name, "arithmetic")

    def arguments(self) -> dict[str, Any]:
        """As vLLM's engine takes them. How many GPUs there are is not for the worker to choose."""
        return self.model_dump(exclude={"tensor_parallel_size", "measured"}, exclude_none=True)


class ModelProfile(BaseModel):
    """A published checkpoint: experts in MXFP4, the rest in bfloat16."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    layers: int
    """All of them; every second has a sliding window."""
    experts: int
    """Of each layer."""


class Profile(BaseModel):
    """A kind of GPU: those with at least this memory and compute capability."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    gpu: str
    """For the reader."""
    memory_gib: float
    """GiB."""
    capability: tuple[int, int]
    """Compute capability, major and minor."""
    small: Settings = Field(alias="20b")
    """For gpt-oss 20b."""
    large: Settings = Field(alias="120b")
    """For gpt-oss 120b."""

    def settings(self, size: Size | None) -> Settings:
        """Those of 20b for a checkpoint of unknown size, which is hardly larger."""
        return self.large if size == "120b" else self.small


class Profiles(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    models: dict[Size, ModelProfile]
    """By size."""
    profiles: tuple[Profile, ...] = Field(min_length=1)
    """From the smallest GPU to the largest."""

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
    """Those that come with the package."""
    return Profiles.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def most() -> Settings:
    """The largest settings of any profile.

    A driver, which does not know the workers' GPUs, takes them as the bound.
    """
    return max(
        (p.settings("20b") for p in profiles().profiles), key=lambda settings: settings.max_num_seqs
    )


def least_memory(size: Size) -> float:
    """GiB of the smallest kind of GPU of which one is enough."""
    return next(
        p.memory_gib for p in profiles().profiles if p.settings(size).tensor_parallel_size == 1
    )


def model_size(source: str) -> Size | None:
    """Which of the published checkpoints a source is, None for any other.

    A folder is known by its config, a hub id by its name.
    """
    text = checkpoint.text(source, "config.json")
    if text is None:
        return _size_in_name(source)
    config = json.loads(text)
    quantization = config.get("quantization_config") or {}
    if quantization.get("quant_method") != "mxfp4" or config.get("hidden_size") != HIDDEN:
        return None
    shape = (config.get("num_hidden_layers"), config.get("num_local_experts"))
    return next(
        (
            size
            for size, model in profiles().models.items()
            if (model.layers, model.experts) == shape
        ),
        None,
    )


def _size_in_name(source: str) -> Size | None:
    match = re.search(r"gpt-oss-(?:safeguard-)?(20b|120b)$", source.rstrip("/"), re.IGNORECASE)
    if match is None:
        return None
    return "20b" if match[1].lower() == "20b" else "120b"
