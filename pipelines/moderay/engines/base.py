"""The engine's protocol: prompt ids in, completion ids out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class EngineDead(Exception):
    """The engine answers nobody any more."""


class RequestFailed(Exception):
    """This request could not be answered; others can."""


@dataclass(frozen=True, slots=True)
class Request:
    """One completion asked for. `score`: ids whose log-probability is wanted at the first generated token (with it,
    `max_tokens` is 1). `seed` counts only where `temperature` is above 0."""

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    score: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """`tokens` holds the stop token where there was one. `logprobs`: id -> log-probability for the ids of `score`.
    `cached`: prompt tokens that the prefix cache held."""

    tokens: list[int]
    logprobs: Mapping[int, float]
    cached: int = 0


class Engine(Protocol):
    async def generate(self, request: Request) -> Completion:
        """Raises `RequestFailed` or `EngineDead`. Cancelling the call aborts the request."""
        ...

    def close(self) -> None: ...


class EngineSpec(Protocol):
    """What a driver sends to an actor."""

    @property
    def max_num_seqs(self) -> int:
        """Requests the engine works on at once."""
        ...

    @property
    def gpus(self) -> int:
        """GPUs one engine takes; 0 runs on the CPU."""
        ...

    @property
    def vocabulary_source(self) -> str | None:
        """What `prompt.vocabulary` is asked for."""
        ...

    def identity(self) -> Mapping[str, object]:
        """What of the engine can change a verdict; part of the judge key."""
        ...

    def here(self) -> EngineSpec:
        """The same engine as the machine asks for that it will run on; called there, before it is built."""
        ...

    async def build(self) -> Engine:
        """Raises `UserError` where the model cannot be had or does not fit."""
        ...


class Counted:
    """An engine, and what it was asked: `usage` counts requests, prompt_tokens (of them cached_tokens in the prefix cache) and
    output_tokens."""

    def __init__(self, engine: Engine, usage: Counter[str]) -> None:
        self._engine, self._usage = engine, usage

    async def generate(self, request: Request) -> Completion:
        said = await self._engine.generate(request)
        self._usage.update(requests=1, prompt_tokens=len(request.prompt), cached_tokens=said.cached, output_tokens=len(said.tokens))
        return said

    def close(self) -> None:
        self._engine.close()
