"""What glance and reason share: how the safeguard model is asked about one policy.

And what its answer's label is worth.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from moderay.config.job import Effort, Windows
from moderay.config.policy import Policy
from moderay.core.verdicts import Status, Verdict
from moderay.corpus.content import most_tokens, text_windows, windows
from moderay.engines.base import Counted, Question, Request, RequestFailedError
from moderay.engines.harmony.answer import label_openings
from moderay.engines.harmony.prompt import PROMPT_FORMAT, Prompt, instructions, prompt
from moderay.engines.harmony.vocabulary import CHANNEL, MESSAGE, Vocabulary, vocabulary
from moderay.engines.host import EngineHost

P = TypeVar("P")

# Tokens for an answer of one label in JSON, and for a thought that comes before it all the same.
ANSWER_ALONE = 128
# Characters of an output that did not parse that are kept in `detail`.
DETAIL = 200


@dataclass(frozen=True)
class Safeguard:
    """One policy under one model; picklable.

    Attributes:
        policy: What is asked about.
        model: What of the engine can change a verdict.
        vocabulary_source: A local checkpoint whose own vocabulary is used where it brings one; else
            harmony's is.
        effort: How much the model reasons.
        windows: How long content is cut.
        request_s: Deadline of a window, seconds.
        in_words: Whether an endpoint serves it, which takes texts and no token ids.
    """

    policy: Policy
    model: Mapping[str, object]
    vocabulary_source: str | None
    effort: Effort
    windows: Windows
    request_s: float
    in_words: bool = False

    @cached_property
    def vocab(self) -> Vocabulary:
        """The model's tokens."""
        return vocabulary(self.vocabulary_source)

    @cached_property
    def prompt(self) -> Prompt:
        """What stands around a content."""
        return prompt(self.policy, self.effort, self.vocab)

    @cached_property
    def openings(self) -> Mapping[str, list[int]]:
        """By label, the token ids with which an answer of this label begins."""
        return label_openings(self.policy, self.vocab)

    @cached_property
    def parting(self) -> Parting:
        """Where these part."""
        return parting(self.openings)

    @cached_property
    def final_header(self) -> list[int]:
        """The token ids that open the final channel."""
        control = self.vocab.control
        return [control[CHANNEL], *self.vocab.encode("final"), control[MESSAGE]]

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt, with the label in an open final channel behind it."""
        answer = max(map(len, self.openings.values())) + len(self.final_header) + 8
        return len(self.prompt.prefix) + self.windows.tokens + len(self.prompt.suffix) + answer

    def identity(self) -> dict[str, object]:
        """Everything here that can change a verdict."""
        return {
            "policy": self.instructions,
            "labels": {name: label.violates for name, label in self.policy.labels.items()},
            "answer": self.policy.answer,
            "model": dict(self.model),
            "prompt_format": PROMPT_FORMAT,
            "effort": self.effort,
            "windows": self.windows.model_dump(),
        }

    def prompts(self, ids: Sequence[int]) -> list[list[int]]:
        """The token ids of each window of a content, as an engine takes them."""
        return [
            self.prompt.render(piece)
            for piece in windows(ids, self.windows.tokens, self.windows.overlap)
        ]

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The windows of a content as an endpoint takes them."""
        return text_windows(ids, self.windows.tokens, self.windows.overlap, self.vocab.decode)

    @cached_property
    def instructions(self) -> str:
        """What the model is asked to do: the policy's text and its form of answer."""
        return instructions(self.policy)

    def question(
        self,
        content: str,
        max_tokens: int = ANSWER_ALONE,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Question:
        """What an endpoint is asked about a window."""
        return Question(self.instructions, content, self.effort, max_tokens, temperature, top_p)

    def forced(self, question: Question, thought: str = "") -> Question:
        """The same, to be answered at once with a label, after the reasoning so far."""
        return replace(
            question, max_tokens=ANSWER_ALONE, thought=thought, labels=self.policy.label_names
        )

    async def over_windows(
        self, host: EngineHost, row: str, pieces: Sequence[P], ask: Ask[P]
    ) -> Verdict:
        """The verdict on a content: that of the window with the highest P(violates).

        A window that could not be judged gives the row its status.

        Args:
            host: Of the engine.
            row: The content's hash, by which the host knows it.
            pieces: What `prompts` or `texts` gives.
            ask: Judges one piece, from the engine, the piece and its number.
        """
        if len(pieces) == 1:  # as nearly all are: a task would only cost
            verdict = await self._in_time(host, row, lambda engine: ask(engine, pieces[0], 0))
            return verdict._replace(
                windows=1,
                prompt_tokens=verdict.prompt_tokens or 0,
                output_tokens=verdict.output_tokens or 0,
                forced=bool(verdict.forced) if verdict.status is Status.OK else None,
            )

        async def window(number: int, piece: P) -> Verdict:
            return await self._in_time(host, row, lambda engine: ask(engine, piece, number))

        verdicts = await asyncio.gather(*[window(i, piece) for i, piece in enumerate(pieces)])
        worst = max(verdicts, key=self._weight)
        judged = worst.status is Status.OK
        return worst._replace(
            windows=len(verdicts),
            prompt_tokens=sum(verdict.prompt_tokens or 0 for verdict in verdicts),
            output_tokens=sum(verdict.output_tokens or 0 for verdict in verdicts),
            forced=any(verdict.forced for verdict in verdicts) if judged else None,
        )

    async def _in_time(
        self, host: EngineHost, row: str, judge: Callable[[Counted], Awaitable[Verdict]]
    ) -> Verdict:
        """A window's verdict, or why it has none."""
        try:
            return await host.run(row, judge, self.request_s)
        except TimeoutError:
            return Verdict(Status.TIMEOUT, detail=f"no answer within {self.request_s:g} s")
        except RequestFailedError as error:
            return Verdict(Status.ENGINE_ERROR, detail=str(error))

    def _weight(self, verdict: Verdict) -> float:
        """Of a window among others: P(violates), or what the label says where there is no P.

        Above all what is not known.
        """
        if verdict.status is not Status.OK:
            return 2.0
        if verdict.scores is None:
            return float(self.policy.labels[verdict.answer or ""].violates)
        return self.probability(verdict.scores)

    def probability(self, scores: Sequence[float]) -> float:
        """P(violates), from P of each label in the policy's order."""
        return self.policy.rule.probability(scores)

    async def scores(self, engine: Counted, prompt: list[int]) -> list[float] | None:
        """P of each label, when the final channel that a prompt ends in goes on with one of them.

        Args:
            engine: Asked once for each token at which labels part.
            prompt: Token ids, an open final channel at their end.

        Returns:
            In the policy's order, adding up to 1; None where the engine gives no number.
        """
        by_label = await _scores(engine, prompt, self.parting)
        if not all(map(math.isfinite, by_label.values())):
            return None
        return [by_label[name] for name in self.policy.label_names]


Ask = Callable[[Counted, P, int], Awaitable[Verdict]]


@dataclass(frozen=True)
class Parting:
    """Where labels part: they share a beginning, and then go on with different tokens.

    Attributes:
        shared: Token ids that all of them begin with.
        branches: By next token id, the only label that goes on with it, or where those part that
            do; they begin with that token.
    """

    shared: tuple[int, ...]
    branches: Mapping[int, str | Parting]


def parting(openings: Mapping[str, Sequence[int]]) -> Parting:
    """Of labels, two at least, by the token ids that open an answer of each."""
    shared = _shared(list(openings.values()))
    branches: dict[int, dict[str, Sequence[int]]] = {}
    for name, ids in openings.items():
        branches.setdefault(ids[shared], {})[name] = ids[shared:]
    below = {
        token: next(iter(branch)) if len(branch) == 1 else parting(branch)
        for token, branch in branches.items()
    }
    return Parting(tuple(next(iter(openings.values()))[:shared]), below)


async def _scores(engine: Counted, prompt: list[int], part: Parting) -> dict[str, float]:
    """P by label: one request at each parting, exact for labels of any number of tokens."""
    if part.shared:
        prompt = [*prompt, *part.shared]
    out = await engine.generate(Request(prompt, 1, score=tuple(part.branches)))
    weights = _softmax([out.logprobs[token] for token in part.branches])
    by_label: dict[str, float] = {}
    deeper: list[tuple[float, Parting]] = []
    for weight, branch in zip(weights, part.branches.values(), strict=True):
        if isinstance(branch, Parting):
            deeper.append((weight, branch))
        else:
            by_label[branch] = weight
    if deeper:
        below = await asyncio.gather(*[_scores(engine, prompt, branch) for _, branch in deeper])
        for (weight, _), scores in zip(deeper, below, strict=True):
            by_label |= {name: weight * p for name, p in scores.items()}
    return by_label


def content_ids(text: str, windows: Windows, vocab: Vocabulary) -> list[int] | None:
    """A content's token ids, or None where it is longer than the windows allow.

    That is known without encoding all of it where a text has more characters than that many tokens
    can hold.
    """
    most = most_tokens(windows.tokens, windows.overlap, windows.max)
    if len(text) > most * vocab.longest_token:
        return None
    ids = vocab.encode(text)
    return ids if len(ids) <= most else None


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all have in common."""
    return next(
        (i for i, tokens in enumerate(zip(*sequences, strict=False)) if len(set(tokens)) > 1),
        min(map(len, sequences)),
    )


def _softmax(logprobs: Sequence[float]) -> list[float]:
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return [weight / sum(weights) for weight in weights]
