"""The `reason` judge: the safeguard with its reasoning, within a budget; P from the label's own probabilities.

Two requests a window. The first reasons freely and answers. The second asks for the probability of each label at the
point where the answer gives it: the first's prompt and reasoning are in the prefix cache, so it costs one short
prefill, and the long request needs no log-probabilities, which an engine would otherwise hand over at every token.
Where the first ran out of budget or did not parse, the second opens the final channel itself: `forced`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from moderay.answer import label_openings, messages, parse, reasoning
from moderay.content import most_tokens, windows
from moderay.engines.base import Engine, EngineSpec, Request, RequestFailed
from moderay.engines.host import EngineHost
from moderay.identity import digest, number
from moderay.job import Job, Sampling, Windows
from moderay.policy import Policy
from moderay.prompt import CHANNEL, END, MESSAGE, PROMPT_FORMAT, START, Effort, Prompt, Vocabulary, instructions, prompt, vocabulary
from moderay.records import Origin, Status, Verdict

# Tokens an answer may take after the reasoning: the final header and a label, or two sentences in JSON.
ANSWER_TOKENS = {"label": 48, "rationale": 224}
# Characters of an output that did not parse that are kept in `detail`.
DETAIL = 200


@dataclass(frozen=True)
class Reason:
    """One policy's reason judge; picklable. `key` is its judge key: the hash of `identity`."""

    policy: Policy
    model: Mapping[str, object]
    vocabulary_source: str | None
    effort: Effort
    sampling: Sampling
    budget: int
    windows: Windows
    request_s: float
    key: str = ""

    @cached_property
    def vocab(self) -> Vocabulary:
        return vocabulary(self.vocabulary_source)

    @cached_property
    def prompt(self) -> Prompt:
        return prompt(self.policy, self.effort, self.vocab)

    @cached_property
    def openings(self) -> Mapping[str, list[int]]:
        return label_openings(self.policy, self.vocab)

    @cached_property
    def final_header(self) -> list[int]:
        control = self.vocab.control
        return [control[CHANNEL], *self.vocab.encode("final"), control[MESSAGE]]

    @property
    def max_tokens(self) -> int:
        return self.budget + ANSWER_TOKENS[self.policy.answer]

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt with its answer."""
        answer = max(map(len, self.openings.values())) + len(self.final_header) + 8
        return len(self.prompt.prefix) + self.windows.tokens + len(self.prompt.suffix) + self.max_tokens + answer

    def identity(self) -> dict[str, object]:
        """Everything that can change this judge's verdict."""
        return {
            "judge": "reason",
            "policy": instructions(self.policy),
            "labels": {name: label.violates for name, label in self.policy.labels.items()},
            "answer": self.policy.answer,
            "model": dict(self.model),
            "prompt_format": PROMPT_FORMAT,
            "sampling": self.sampling.model_dump(),
            "effort": self.effort,
            "budget": self.budget,
            "windows": self.windows.model_dump(),
        }

    async def judge(self, host: EngineHost, ids: Sequence[int], seed: str) -> Verdict:
        """The verdict on a content given as token ids; a window that could not be judged gives the row its status.
        `seed`: the content's hash, by which the host also knows the row."""
        cut = windows(ids, self.windows.tokens, self.windows.overlap)
        found = await asyncio.gather(*[self._window(host, piece, seed, i) for i, piece in enumerate(cut)])
        worst = max(found, key=self._rank)
        return worst._replace(
            windows=len(found),
            prompt_tokens=sum(verdict.prompt_tokens or 0 for verdict in found),
            output_tokens=sum(verdict.output_tokens or 0 for verdict in found),
            forced=None if worst.scores is None else any(verdict.forced for verdict in found),
        )

    def _rank(self, verdict: Verdict) -> float:
        """Not judged before anything, then P(violates): over windows the highest counts."""
        if verdict.scores is None:
            return 2.0
        return sum(p for p, bad in zip(verdict.scores, self.policy.violating, strict=True) if bad)

    async def _window(self, host: EngineHost, ids: Sequence[int], row: str, index: int) -> Verdict:
        asked, seed = self.prompt.render(ids), number(f"{row}:{self.key}:{index}")
        try:
            return await host.run(row, lambda engine: self._ask(engine, asked, seed), self.request_s)
        except TimeoutError:
            return Verdict(Status.TIMEOUT, detail=f"no answer within {self.request_s:g} s")
        except RequestFailed as error:
            return Verdict(Status.ENGINE_ERROR, detail=str(error))

    async def _ask(self, engine: Engine, asked: list[int], seed: int) -> Verdict:
        sampling = self.sampling
        out = await engine.generate(Request(asked, self.max_tokens, sampling.temperature, sampling.top_p, seed))
        answer = parse(out.tokens, self.policy, self.vocab)
        opened = out.tokens[: answer.final] if answer else self._opened(out.tokens)
        scores = await self._scores(engine, [*asked, *opened], self.openings)
        if not all(map(math.isfinite, scores.values())):
            return Verdict(Status.UNPARSED, detail=self.vocab.decode(out.tokens)[:DETAIL])
        return Verdict(
            Status.OK,
            scores=[scores[name] for name in self.policy.label_names],
            rationale=answer.rationale if answer else None,
            reasoning=answer.reasoning if answer else self._thought(opened),
            answer=answer.label if answer else max(scores, key=lambda name: scores[name]),
            decided_by="reason",
            origin=Origin.JUDGED,
            forced=answer is None,
            prompt_tokens=len(asked),
            output_tokens=len(out.tokens),
        )

    def _opened(self, tokens: Sequence[int]) -> list[int]:
        """The first analysis as far as the budget goes, closed, and the final channel opened behind it."""
        control = self.vocab.control
        found = messages(tokens, self.vocab) or messages(tokens[: self._first_end(tokens)], self.vocab) or []
        if not found or found[0].channel != "analysis":
            return self.final_header
        first = found[0]
        thought = tokens[: min(first.end, first.start + self.budget)]
        return [*thought, control[END], control[START], *self.vocab.encode("assistant"), *self.final_header]

    def _first_end(self, tokens: Sequence[int]) -> int:
        """Where the first message ends, in an output whose later part is broken."""
        stops = {id_ for name, id_ in self.vocab.control.items() if name not in (CHANNEL, MESSAGE)}
        return next((i for i, token in enumerate(tokens) if token in stops), len(tokens))

    def _thought(self, opened: Sequence[int]) -> str:
        found = messages(opened, self.vocab)
        return reasoning(opened, found, self.vocab) if found else ""

    async def _scores(self, engine: Engine, asked: list[int], openings: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """P of each label when the final channel's body goes on as `openings`; they add up to 1.

        Labels share a beginning and then part: one request at each parting, exact for labels of any number of tokens.
        """
        if len(openings) == 1:
            return dict.fromkeys(openings, 1.0)
        shared = _shared(list(openings.values()))
        asked = [*asked, *next(iter(openings.values()))[:shared]]
        branches: dict[int, dict[str, Sequence[int]]] = {}
        for name, rest in openings.items():
            branches.setdefault(rest[shared], {})[name] = rest[shared:]
        out = await engine.generate(Request(asked, 1, score=tuple(branches)))
        weights = _softmax([out.logprobs[token] for token in branches])
        below = await asyncio.gather(*[self._scores(engine, asked, branch) for branch in branches.values()])
        return {name: weight * p for weight, scores in zip(weights, below, strict=True) for name, p in scores.items()}


def reason_judges(job: Job, policies: Sequence[Policy], spec: EngineSpec) -> list[Reason]:
    """The job's reason judge for each policy."""
    judges = [
        Reason(
            policy=policy,
            model=dict(spec.identity()),
            vocabulary_source=spec.vocabulary_source,
            effort=job.model.effort,
            sampling=job.model.sampling,
            budget=job.budget,
            windows=job.windows,
            request_s=job.limits.request_s,
        )
        for policy in policies
    ]
    return [replace(judge, key=digest(judge.identity())) for judge in judges]


def content_ids(text: str, windows: Windows, vocab: Vocabulary) -> list[int] | None:
    """A content's ids, or None where it is longer than the windows allow (known without encoding all of it where a
    text has more bytes than that many tokens can hold)."""
    most = most_tokens(windows.tokens, windows.overlap, windows.max)
    if len(text) > most * vocab.longest_token:
        return None
    ids = vocab.encode(text)
    return ids if len(ids) <= most else None


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all have in common."""
    return next((i for i, tokens in enumerate(zip(*sequences)) if len(set(tokens)) > 1), min(map(len, sequences)))  # noqa: B905


def _softmax(logprobs: Sequence[float]) -> list[float]:
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return [weight / sum(weights) for weight in weights]
