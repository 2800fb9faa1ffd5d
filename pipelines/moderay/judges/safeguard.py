"""What glance and reason share: how the safeguard model is asked about one policy.

And what its answer's label is worth.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

from moderay.config.job import Effort, Windows
from moderay.config.policy import Policy
from moderay.core.verdicts import Status, Verdict
from moderay.corpus.content import most_tokens, text_windows, windows
from moderay.engines.base import Counted, Question, Request, RequestFailedError
from moderay.engines.harmony.answer import label_openings
from moderay.engines.harmony.prompt import PROMPT_FORMAT, Prompt, instructions, prompt
from moderay.engines.harmony.scores import softmax
from moderay.engines.harmony.vocabulary import CHANNEL, MESSAGE, Vocabulary, vocabulary
from moderay.engines.host import EngineHost

P = TypeVar("P")

# Tokens for an answer of one label in JSON, and for a thought that comes before it all the same.
ANSWER_ALONE = 128
# Characters of an output that did not parse that are kept in `detail`.
DETAIL = 200


class Parting(NamedTuple):
    """Where labels part in the body of a final channel.

    Attributes:
        shared: Token ids that all answers begin with.
        branches: By the id that comes next, the labels that go on with it, and with what.
    """

    shared: list[int]
    branches: Mapping[int, Mapping[str, Sequence[int]]]


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
    def final_header(self) -> list[int]:
        """The token ids that open the final channel."""
        control = self.vocab.control
        return [control[CHANNEL], *self.vocab.encode("final"), control[MESSAGE]]

    @cached_property
    def parting(self) -> Parting:
        """Where the labels of an answer part first."""
        return _parting(self.openings)

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

    def likeliest(self, scores: Sequence[float]) -> str:
        """The label that a model writes which takes the likeliest token each time.

        Args:
            scores: P of each label, in the policy's order.
        """
        by_label = dict(zip(self.policy.label_names, scores, strict=True))
        left: Mapping[str, Sequence[int]] = self.openings
        while len(left) > 1:
            branches = _parting(left).branches
            left = max(branches.values(), key=lambda names: sum(by_label[name] for name in names))
        return next(iter(left))

    def probability(self, scores: Sequence[float]) -> float:
        """P(violates), from P of each label in the policy's order."""
        return self.policy.rule.probability(scores)

    async def scores(
        self, engine: Counted, prompt: list[int], known: Mapping[int, float] | None = None
    ) -> list[float] | None:
        """P of each label, when the final channel that a prompt ends in goes on with one of them.

        Args:
            engine: Asked once for each token at which labels part.
            prompt: Token ids, an open final channel at their end.
            known: What the engine would say of the first such token, if that is known.

        Returns:
            In the policy's order, adding up to 1; None where the engine gives no number.
        """
        by_label = await _scores(engine, prompt, self.parting, known)
        if not all(map(math.isfinite, by_label.values())):
            return None
        return [by_label[name] for name in self.policy.label_names]


Ask = Callable[[Counted, P, int], Awaitable[Verdict]]


async def _scores(
    engine: Counted,
    prompt: list[int],
    parting: Parting,
    known: Mapping[int, float] | None = None,
) -> dict[str, float]:
    """P by label.

    Labels share a beginning and then part: one request at each parting, exact for labels of any
    number of tokens.
    """
    branches = parting.branches
    prompt = [*prompt, *parting.shared]
    if known is None:
        known = (await engine.generate(Request(prompt, 1, score=tuple(branches)))).logprobs
    weights = softmax([known[token] for token in branches])
    if all(len(labels) == 1 for labels in branches.values()):  # they part once and for all
        return {
            name: p for p, labels in zip(weights, branches.values(), strict=True) for name in labels
        }
    below = await asyncio.gather(*[_below(engine, prompt, labels) for labels in branches.values()])
    return {
        name: weight * p
        for weight, scores in zip(weights, below, strict=True)
        for name, p in scores.items()
    }


async def _below(
    engine: Counted, prompt: list[int], openings: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """P by label, of those that go on with the same token."""
    if len(openings) == 1:
        return dict.fromkeys(openings, 1.0)
    return await _scores(engine, prompt, _parting(openings))


def _parting(openings: Mapping[str, Sequence[int]]) -> Parting:
    """Where two labels or more part first."""
    sequences = list(openings.values())
    shared = _shared(sequences)
    branches: dict[int, dict[str, Sequence[int]]] = {}
    for name, rest in openings.items():
        branches.setdefault(rest[shared], {})[name] = rest[shared:]
    return Parting(list(sequences[0][:shared]), branches)


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
