"""The `reason` judge: the safeguard with its reasoning, within a budget; P from the label's own
probabilities.

Two requests a window. The first reasons freely and answers. The second asks for the probability of
each label at the point where the answer gives it: the first's prompt and reasoning are in the
prefix cache, so it costs one short prefill, and the long request needs no log-probabilities, which
an engine would otherwise hand over at every token. Where the first ran out of budget or did not
parse, the second opens the final channel itself: `forced`.

An endpoint is asked in words, and reads the label's probability off the answer, where it gives any:
one request a window. A second one forces an answer: it is constrained to JSON with a label, which
the first is not, since servers differ in whether a constraint leaves room for the reasoning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from moderay.config.job import Sampling
from moderay.config.policy import Policy
from moderay.core.hashing import digest, number
from moderay.core.verdicts import Origin, Status, Verdict
from moderay.engines.base import Counted, Reply, Request, RequestFailedError
from moderay.engines.harmony.answer import (
    label_scores,
    messages,
    parse,
    read_answer,
    read_label,
    reasoning,
)
from moderay.engines.harmony.vocabulary import CHANNEL, END, MESSAGE, START
from moderay.engines.host import EngineHost
from moderay.judges.safeguard import DETAIL, Safeguard

# Tokens an answer may take after the reasoning: the final header and a label, or two sentences in
# JSON.
ANSWER_TOKENS = {"label": 48, "rationale": 224}


@dataclass(frozen=True)
class Reason:
    """One policy's reason judge; picklable. `budget`: tokens of reasoning."""

    safeguard: Safeguard
    sampling: Sampling
    budget: int
    name = "reason"

    @property
    def policy(self) -> Policy:
        return self.safeguard.policy

    @property
    def max_tokens(self) -> int:
        return self.budget + ANSWER_TOKENS[self.policy.answer]

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return self.safeguard.max_model_len + self.max_tokens

    def identity(self) -> dict[str, object]:
        """Everything that can change this judge's verdict."""
        return {
            "judge": self.name,
            **self.safeguard.identity(),
            "sampling": self.sampling.model_dump(),
            "budget": self.budget,
        }

    @cached_property
    def key(self) -> str:
        return digest(self.identity())

    def settles(self, verdict: Verdict) -> bool:
        """It is the last: whatever it says stands."""
        return True

    async def judge(self, host: EngineHost, ids: Sequence[int], row: str) -> Verdict:
        """The verdict on a content given as token ids; `row` is its hash, from which it is seeded
        too.
        """
        safeguard = self.safeguard
        if safeguard.in_words:
            return await safeguard.over_windows(
                host,
                row,
                safeguard.texts(ids),
                lambda engine, text, _: self._ask_in_words(engine, text),
            )
        return await safeguard.over_windows(
            host,
            row,
            safeguard.prompts(ids),
            lambda engine, asked, window: self._ask(
                engine, asked, number(f"{row}:{self.key}:{window}")
            ),
        )

    async def _ask(self, engine: Counted, asked: list[int], seed: int) -> Verdict:
        sampling, vocab = self.sampling, self.safeguard.vocab
        out = await engine.generate(
            Request(asked, self.max_tokens, sampling.temperature, sampling.top_p, seed)
        )
        answer = parse(out.tokens, self.policy, vocab)
        opened = out.tokens[: answer.final] if answer else self._opened(out.tokens)
        scores = await self.safeguard.scores(engine, [*asked, *opened])
        if scores is None:
            return Verdict(Status.UNPARSED, detail=vocab.decode(out.tokens)[:DETAIL])
        return Verdict(
            Status.OK,
            scores=scores,
            rationale=answer.rationale if answer else None,
            reasoning=answer.reasoning if answer else self._thought(opened),
            answer=answer.label if answer else self.policy.label_names[scores.index(max(scores))],
            decided_by=self.name,
            origin=Origin.JUDGED,
            forced=answer is None,
            prompt_tokens=len(asked),
            output_tokens=len(out.tokens),
        )

    async def _ask_in_words(self, endpoint: Counted, text: str) -> Verdict:
        sampling, safeguard = self.sampling, self.safeguard
        question = safeguard.question(text, self.max_tokens, sampling.temperature, sampling.top_p)
        try:
            said = last = await endpoint.respond(question)
        except RequestFailedError:
            # Of an output that is not harmony vLLM's server says that the request was bad. One that
            # is bad fails again.
            said = last = Reply("", None)
        found = (
            read_answer(said.answer, self.policy)
            if said.answer is not None and said.whole
            else None
        )
        label, rationale = found or (None, None)
        thought = said.reasoning
        if found is None:
            thought = self._within_budget(said.reasoning)
            last = await endpoint.respond(safeguard.forced(question, thought))
            if last.answer is None and last.reasoning:
                # Nothing keeps a server's model from thinking again, above all where it had not
                # thought yet. That is over now as well.
                thought = self._within_budget("\n".join(filter(None, (thought, last.reasoning))))
                last = await endpoint.respond(safeguard.forced(question, thought))
            label = None if last.answer is None else read_label(last.answer, self.policy)
        if label is None:
            return Verdict(
                Status.UNPARSED, detail=(last.answer or said.answer or said.reasoning)[:DETAIL]
            )
        return Verdict(
            Status.OK,
            scores=label_scores(last.tokens, label, self.policy),
            rationale=rationale,
            reasoning=thought,
            answer=label,
            decided_by=self.name,
            origin=Origin.JUDGED,
            forced=found is None,
            prompt_tokens=said.prompt_tokens or last.prompt_tokens,
            output_tokens=said.output_tokens or last.output_tokens,
        )

    def _within_budget(self, thought: str) -> str:
        """A reasoning as far as the budget goes, without a character that is cut there."""
        vocab = self.safeguard.vocab
        ids = vocab.encode(thought)
        return (
            thought
            if len(ids) <= self.budget
            else vocab.decode(ids[: self.budget]).rstrip("\ufffd")
        )

    def _opened(self, tokens: Sequence[int]) -> list[int]:
        """The first analysis as far as the budget goes, closed, and the final channel opened behind
        it.
        """
        vocab, header = self.safeguard.vocab, self.safeguard.final_header
        found = messages(tokens, vocab) or messages(tokens[: self._first_end(tokens)], vocab) or []
        if not found or found[0].channel != "analysis":
            return header
        first = found[0]
        thought = tokens[: min(first.end, first.start + self.budget)]
        return [
            *thought,
            vocab.control[END],
            vocab.control[START],
            *vocab.encode("assistant"),
            *header,
        ]

    def _first_end(self, tokens: Sequence[int]) -> int:
        """Where the first message ends, in an output whose later part is broken."""
        stops = {
            id_
            for name, id_ in self.safeguard.vocab.control.items()
            if name not in (CHANNEL, MESSAGE)
        }
        return next((i for i, token in enumerate(tokens) if token in stops), len(tokens))

    def _thought(self, opened: Sequence[int]) -> str:
        found = messages(opened, self.safeguard.vocab)
        return reasoning(opened, found, self.safeguard.vocab) if found else ""
