"""The engine's protocol: prompt ids in, completion ids out; and an endpoint's, which is asked in
words.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol


class EngineDeadError(Exception):
    """The engine answers nobody any more."""


class RequestFailedError(Exception):
    """This request could not be answered; others can."""


class BrokenReplyError(Exception):
    """The request ended without an answer, and nothing says why; it may be made again."""


class NotNowError(Exception):
    """The engine takes no requests now; this one is made again in `seconds`, and nothing is held
    against its row.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Request:
    """One completion asked for. `score`: ids whose log-probability is wanted at the first generated
    token (with it, `max_tokens` is 1). `seed` counts only where `temperature` is above 0.
    """

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    score: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """`tokens` holds the stop token where there was one. `logprobs`: id -> log-probability for the
    ids of `score`. `cached`: prompt tokens that the prefix cache held.
    """

    tokens: list[int]
    logprobs: Mapping[int, float]
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """One answer asked of an endpoint. `max_tokens`: of reasoning and answer together. With
    `labels`, the answer is JSON with one of them and no more, given at once after `thought`, the
    reasoning so far.
    """

    instructions: str
    content: str
    effort: str
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    thought: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer as it is spelled, with the log-probabilities of it and of the likeliest
    others in its place.
    """

    text: str
    logprobs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reply:
    """`answer`: the text of the one final message, None where there is none, or several; `whole`:
    it is not cut off. `tokens`: those of the answer, where the endpoint gives log-probabilities.
    The counts are the endpoint's own.
    """

    reasoning: str
    answer: str | None
    whole: bool = True
    tokens: tuple[Token, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Endpoint(Protocol):
    async def respond(self, question: Question) -> Reply:
        """Raises `RequestFailedError`, `BrokenReplyError`, `NotNowError` or `EngineDeadError`, and
        a `ModerayError` for what a person must mend. Cancelling the call drops the connection.
        """
        ...

    def close(self) -> None: ...


class Engine(Protocol):
    async def generate(self, request: Request) -> Completion:
        """Raises `RequestFailedError`, `EngineDeadError`. Cancelling the call aborts it."""
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
        """What `vocabulary.vocabulary` is asked for."""
        ...

    def identity(self) -> Mapping[str, object]:
        """What of the engine can change a verdict; part of the judge key."""
        ...

    def here(self) -> EngineSpec:
        """The same engine as the machine asks for that it will run on; called there, before it is
        built.
        """
        ...

    async def build(self) -> Engine | Endpoint:
        """Raises `UserError` where the model cannot be had or does not fit."""
        ...


class Usage:
    """What an engine was asked and where its time went, from the start of its actor on. `seats`:
    requests it works on at once.
    """

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._counts = Counter[str]()
        self._asked = self._starting = 0
        self._since = time.monotonic_ns()
        self._starting_ns = self._idle_ns = self._working_ns = self._taken_ns = 0
        # The dials look from a thread of their own.
        self._lock = threading.Lock()

    def figures(self) -> Counter[str]:
        """Counts: engine_starts, engine_deaths, requests, prompt_tokens (of them cached_tokens in
        the prefix cache), output_tokens. Milliseconds, which add up to those of the actor:
        engine_starting_ms, engine_idle_ms (nothing was asked of it), engine_working_ms; and, of all
        its seats together, seats_taken_ms and seats_free_ms.
        """
        with self._lock:
            self._book()
            seats = self._seats * (self._starting_ns + self._idle_ns + self._working_ns)
            times = {
                "engine_starting": self._starting_ns,
                "engine_idle": self._idle_ns,
                "engine_working": self._working_ns,
            }
            times |= {"seats_taken": self._taken_ns, "seats_free": seats - self._taken_ns}
            return self._counts + Counter({f"{name}_ms": ns // 10**6 for name, ns in times.items()})

    def count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of an engine."""
        self._turn(0, 1)
        try:
            yield
            self.count(engine_starts=1)
        finally:
            self._turn(0, -1)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Around a request, however it ends."""
        self._turn(1, 0)
        try:
            yield
        finally:
            self._turn(-1, 0)

    def _turn(self, asked: int, starting: int) -> None:
        with self._lock:
            self._book()
            self._asked += asked
            self._starting += starting

    def _book(self) -> None:
        """The time since the last turn, under what the engine did in it."""
        now = time.monotonic_ns()
        passed, self._since = now - self._since, now
        if self._asked:
            self._working_ns += passed
            self._taken_ns += passed * min(self._asked, self._seats)
        elif self._starting:
            self._starting_ns += passed
        else:
            self._idle_ns += passed


class Counted:
    """A live engine or endpoint, whose work is booked in `usage`."""

    def __init__(self, engine: Any, usage: Usage) -> None:
        self._engine, self._usage = engine, usage

    async def generate(self, request: Request) -> Completion:
        with self._usage.asked():
            said: Completion = await self._engine.generate(request)
        self._usage.count(
            requests=1,
            prompt_tokens=len(request.prompt),
            cached_tokens=said.cached,
            output_tokens=len(said.tokens),
        )
        return said

    async def respond(self, question: Question) -> Reply:
        with self._usage.asked():
            said: Reply = await self._engine.respond(question)
        self._usage.count(
            requests=1,
            prompt_tokens=said.prompt_tokens,
            cached_tokens=said.cached_tokens,
            output_tokens=said.output_tokens,
        )
        return said

    def close(self) -> None:
        self._engine.close()
