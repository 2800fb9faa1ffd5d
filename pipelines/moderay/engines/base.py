"""The two protocols that judges know, and the spec a driver sends.

An engine takes prompt ids and gives completion ids; an endpoint is asked in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from moderay.engines.usage import Usage

# How an engine comes to P of a label.
WITH_THE_ANSWER = "with the answer"
SECOND_REQUEST = "by a second request"
AS_THE_ENDPOINT_SAYS = "as the endpoint says"


class EngineDeadError(Exception):
    """The engine answers nobody any more."""


class RequestFailedError(Exception):
    """This request could not be answered; others can."""


class BrokenReplyError(Exception):
    """The request ended without an answer, and nothing says why; it may be made again."""


class NotNowError(Exception):
    """The engine takes no requests now; the same one is made again, and its row is not blamed."""

    def __init__(self, message: str, seconds: float) -> None:
        """`seconds`: until then."""
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to make.

    Attributes:
        prompt: Token ids.
        max_tokens: Of the completion.
        temperature: 0 is greedy.
        top_p: Share of the probability that is sampled from.
        seed: Counts only where `temperature` is above 0.
        score: Ids whose log-probability is wanted: without `after` at the first generated token,
            and then `max_tokens` is 1.
        after: With it they are wanted where the completion ends in these ids for the last time,
            if the engine can tell.
        stop: Ids at which the completion ends too.
    """

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    score: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine makes of a request.

    Attributes:
        tokens: Generated ids, the stop token included where there was one.
        logprobs: Id -> log-probability, or logit, for the ids of `Request.score`; empty where none
            are known.
        cached: Prompt tokens that the prefix cache held.
        scored_at: Which generated token `logprobs` are of.
    """

    tokens: list[int]
    logprobs: Mapping[int, float]
    cached: int = 0
    scored_at: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """One answer to get from an endpoint.

    Attributes:
        instructions: The policy, with the answer format.
        content: What is judged.
        effort: Of the reasoning: low, medium or high.
        max_tokens: Of reasoning and answer together.
        temperature: 0 is greedy.
        top_p: Share of the probability that is sampled from.
        thought: The reasoning so far, where `labels` are given.
        labels: Where there are any, the answer is JSON with one of them and nothing else, given at
            once after `thought`.
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
    """A token of an answer.

    Attributes:
        text: As it is spelled.
        logprobs: Spelling -> log-probability, of the token and of the likeliest others in its
            place.
    """

    text: str
    logprobs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint makes of a question.

    Attributes:
        reasoning: The text of the analysis.
        answer: The text of the one final message; None where there is none, or several.
        whole: Whether the answer is not cut off.
        tokens: Those of the answer, where the endpoint gives log-probabilities.
        prompt_tokens: As the endpoint counts them.
        cached_tokens: Of those, the ones in its prefix cache.
        output_tokens: Of reasoning and answer, as the endpoint counts them.
    """

    reasoning: str
    answer: str | None
    whole: bool = True
    tokens: tuple[Token, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Endpoint(Protocol):
    """A served model, asked in words.

    Attributes:
        probability_by: As an engine's.
    """

    probability_by: str

    async def respond(self, question: Question) -> Reply:
        """The reply. Cancelling the call drops the connection.

        Raises:
            RequestFailedError: This question cannot be answered.
            BrokenReplyError: Nobody knows why there is no answer.
            NotNowError: The endpoint asks for a pause.
            EngineDeadError: The endpoint is gone.
            ModerayError: A person must mend something.
        """
        ...

    def close(self) -> None:
        """End it; what is in flight fails."""
        ...


class Engine(Protocol):
    """A live model, asked in token ids.

    Attributes:
        probability_by: How it comes to P of a label, in words: `WITH_THE_ANSWER` where it takes
            `Request.after` at its word.
    """

    probability_by: str

    async def generate(self, request: Request) -> Completion:
        """The completion. Cancelling the call aborts the request.

        Raises:
            RequestFailedError: This request cannot be answered.
            EngineDeadError: The engine is gone.
        """
        ...

    def close(self) -> None:
        """End it; what is in flight fails."""
        ...


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
        """The model whose vocabulary counts, as `vocabulary.vocabulary` takes it."""
        ...

    def identity(self) -> Mapping[str, object]:
        """What of the engine can change a verdict; part of the judge key."""
        ...

    def here(self) -> EngineSpec:
        """The same engine as this machine asks for; called where it is built, before that."""
        ...

    async def build(self) -> Engine | Endpoint:
        """The live engine.

        Raises:
            UserError: The model cannot be had, or does not fit.
        """
        ...


class Counted:
    """A live engine or endpoint whose work is booked."""

    def __init__(self, engine: Engine | Endpoint, usage: Usage) -> None:
        """`usage`: where it is booked."""
        self._engine = engine
        self._usage = usage
        self.probability_by = engine.probability_by

    async def generate(self, request: Request) -> Completion:
        """As `Engine.generate`; only where the spec builds an engine."""
        self._usage.asked()
        try:
            completion = await cast(Engine, self._engine).generate(request)
        except BaseException:
            self._usage.ended()
            raise
        self._usage.ended(
            requests=1,
            prompt_tokens=len(request.prompt),
            cached_tokens=completion.cached,
            output_tokens=len(completion.tokens),
        )
        return completion

    async def respond(self, question: Question) -> Reply:
        """As `Endpoint.respond`; only where the spec builds an endpoint."""
        self._usage.asked()
        try:
            reply = await cast(Endpoint, self._engine).respond(question)
        except BaseException:
            self._usage.ended()
            raise
        self._usage.ended(
            requests=1,
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            output_tokens=reply.output_tokens,
        )
        return reply

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()
