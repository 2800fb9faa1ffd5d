"""The ways to P(label), each over the same prompts on one engine.

| way | how |
|---|---|
| bare | no P |
| A | a second, scored request at the label's place |
| B | log-probabilities of the labels at every token |
| C | a request for the analysis; one for the answer, scored, behind the header given |
| D | B, and the scheduler hands on the label's step alone |
| G | a logits processor notes the labels' logits, the scheduler hands them back |

With random weights nothing parses: lengths are set, and the label's place is a number of tokens.
What a prompt's output has before that place is learnt from a first pass, since the watching ways
look for ids. With a seed, or greedily, the same comes again nearly always; how often is told.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moderay.engines.vllm import label_logits
from moderay.engines.vllm.engine import NOTING

# Of vLLM's engine: what the ways D and G need. G's scheduler is below D's, so that one engine can
# be asked in both ways.
CLASSES: dict[str, Any] = {
    **NOTING,
    "scheduler_cls": "benchmarks.p_classes.LabelStepScheduler",
}
# Of `SamplingParams.extra_args`: the ids behind which the label comes.
AFTER = "benchmark_after"

WAYS = ("bare", "A", "B", "C", "D", "G")


@dataclass(frozen=True)
class Prompt:
    """One content's request.

    Attributes:
        ids: What the model reads.
        labels: Ids of which P is asked.
        header: The ids of an opened final channel, with `<|end|>` before it.
        thought: Tokens of the analysis, where lengths are set; None: the model ends it itself.
        rest: Tokens of the answer from the label on, where lengths are set; else the most.
        place: From an output to the place of the label in it; None where there is none.
    """

    ids: list[int]
    labels: list[int]
    header: list[int]
    thought: int | None
    rest: int
    place: Callable[[list[int]], int | None]
    most: int = 0

    @property
    def max_tokens(self) -> int:
        return self.most if self.thought is None else self.thought + len(self.header) + self.rest


@dataclass
class Answered:
    """A prompt's output, and P of its labels where the way gave any."""

    tokens: list[int]
    p: list[float] | None = None
    requests: int = 1


@dataclass
class Ways:
    """A live `AsyncLLM` and how it is asked.

    Attributes:
        llm: vLLM's.
        stop: Token ids that end an output, beside the end of the analysis.
        temperature: 0 is greedy; above it each prompt has the seed of its number.
        seeded: False: unseeded, which is faster on a GPU and not how the pipeline asks.
    """

    llm: Any
    stop: list[int]
    temperature: float = 0.0
    seeded: bool = True
    _number: int = field(default=0, init=False)

    async def ask(
        self,
        ids: list[int],
        max_tokens: int,
        seed: int,
        score: Sequence[int] = (),
        extra: dict[str, Any] | None = None,
        stop: Sequence[int] = (),
        fixed: bool = False,
    ) -> Any:
        """A finished request."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        self._number += 1
        warm = self.temperature > 0
        sampling = SamplingParams(
            max_tokens=max_tokens,
            temperature=self.temperature,
            seed=seed if warm and self.seeded else None,
            stop_token_ids=[] if fixed else [*self.stop, *stop],
            ignore_eos=fixed,
            logprob_token_ids=list(score) or None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=extra,
        )
        last = None
        async for part in self.llm.generate({"prompt_token_ids": ids}, sampling, str(self._number)):
            last = part
        assert last is not None
        return last

    async def answer(self, way: str, prompt: Prompt, seed: int, after: list[int]) -> Answered:
        """One prompt by one way; `after`: what the output has before the label."""
        if way == "C":
            return await self._opened(prompt, seed)
        extra: dict[str, Any] | None = None
        if way == "D":
            extra = {AFTER: after}
        if way == "G":
            extra = label_logits.wanted(tuple(after), tuple(prompt.labels))
        scored = prompt.labels if way in "BD" else ()
        last = await self.ask(
            prompt.ids, prompt.max_tokens, seed, scored, extra, fixed=prompt.thought is not None
        )
        out = last.outputs[0]
        tokens = list(out.token_ids)
        place = prompt.place(tokens)
        if way == "bare" or place is None:
            return Answered(tokens)
        p = None
        if way == "B":
            p = probabilities(out.logprobs[place], prompt.labels)
        elif way == "D" and tokens[place - len(after) : place] == after:
            p = probabilities(out.logprobs[-1], prompt.labels) if out.logprobs else None
        elif way == "G":
            spot, logits = label_logits.noted(last.kv_transfer_params)
            if logits and spot == place:
                p = softmax(logits)
        if p is not None:
            return Answered(tokens, p)
        # A, and every other way where it saw nothing.
        second = await self.ask([*prompt.ids, *tokens[:place]], 1, seed, prompt.labels)
        return Answered(tokens, probabilities(second.outputs[0].logprobs[0], prompt.labels), 2)

    async def _opened(self, prompt: Prompt, seed: int) -> Answered:
        """Way C."""
        end, fixed = prompt.header[0], prompt.thought is not None
        most = prompt.max_tokens if prompt.thought is None else prompt.thought
        first = await self.ask(prompt.ids, most, seed, stop=[end], fixed=fixed)
        thought = list(first.outputs[0].token_ids)
        opened = [*(thought[:-1] if thought and thought[-1] == end else thought), *prompt.header]
        second = await self.ask(
            [*prompt.ids, *opened], prompt.rest, seed, prompt.labels, fixed=fixed
        )
        out = second.outputs[0]
        p = probabilities(out.logprobs[0], prompt.labels)
        return Answered([*opened, *out.token_ids], p, 2)


@dataclass(frozen=True)
class Pass:
    """All prompts once.

    Attributes:
        seconds: From the first request to the last answer.
        answers: In the order of the prompts.
    """

    seconds: float
    answers: tuple[Answered, ...]

    @property
    def tokens(self) -> int:
        return sum(len(answer.tokens) for answer in self.answers)

    @property
    def one_request(self) -> float:
        """Share of the prompts for which one request was enough."""
        return sum(answer.requests == 1 for answer in self.answers) / len(self.answers)


async def run_pass(
    ways: Ways, way: str, prompts: Sequence[Prompt], after: Sequence[list[int]], at_once: int
) -> Pass:
    """All prompts by one way, from an empty prefix cache."""
    await ways.llm.reset_prefix_cache()
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> Answered:
        async with gate:
            return await ways.answer(way, prompts[number], number, after[number])

    began = time.monotonic()
    answers = await asyncio.gather(*[one(number) for number in range(len(prompts))])
    return Pass(time.monotonic() - began, tuple(answers))


def before_labels(
    prompts: Sequence[Prompt], answers: Sequence[Answered], ids: int
) -> list[list[int]]:
    """The so many ids that each output has before its label; of an output without one, ids that
    never come.
    """
    places = [prompt.place(answer.tokens) for prompt, answer in zip(prompts, answers, strict=True)]
    return [
        [-1] if place is None else answer.tokens[max(0, place - ids) : place]
        for place, answer in zip(places, answers, strict=True)
    ]


def probabilities(logprobs: Any, labels: Sequence[int]) -> list[float]:
    """P among the labels, from a step's log-probabilities."""
    return softmax([logprobs[label].logprob for label in labels])


def softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / sum(weights) for weight in weights]


def furthest(one: Sequence[Answered], other: Sequence[Answered]) -> tuple[float, float]:
    """The largest difference of P where the tokens are the same, and how often they are."""
    same = [(a, b) for a, b in zip(one, other, strict=True) if a.tokens == b.tokens]
    differences = [
        abs(x - y) for a, b in same if a.p and b.p for x, y in zip(a.p, b.p, strict=True)
    ]
    return max(differences, default=math.nan), len(same) / len(one)
