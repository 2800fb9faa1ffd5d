"""The `reason` judge: the safeguard with its reasoning, within a budget.

P comes from the label's own probabilities.

One request a window, which reasons freely and answers, where the engine says along with the answer
how likely each label was when it came. Else a second one asks for that, at the point where the
answer gives the label: the first's prompt and reasoning are in the prefix cache, so it costs one
short prefill, and the long request needs no log-probabilities, which an engine would otherwise hand
over at every token. Where the first ran out of budget or did not parse, the second opens the final
channel itself: `forced`.

Where a rationale is not wanted for every row (`explain_from`), the first request ends with the
reasoning, the final channel is given, and the second asks for P there. Only where that is high
enough a third one goes on to the rationale, behind the label: nobody reads the others.

An endpoint is asked in words, and reads the label's probability off the answer, where it gives any:
one request a window. A second one forces an answer: it is constrained to JSON with a label, which
the first is not, since servers differ in whether a constraint leaves room for the reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from moderay.config.job import Sampling
from moderay.config.policy import Policy
from moderay.core.hashing import digest, number
from moderay.core.verdicts import Origin, Status, Verdict
from moderay.engines.base import Completion, Counted, Question, Reply, Request, RequestFailedError
from moderay.engines.harmony.answer import (
    Answer,
    messages,
    parse,
    read_answer,
    read_label,
    reasoning,
)
from moderay.engines.harmony.scores import label_scores
from moderay.engines.harmony.vocabulary import CHANNEL, END, MESSAGE, START
from moderay.engines.host import EngineHost
from moderay.judges.safeguard import DETAIL, Safeguard

# Tokens an answer may take after the reasoning: the final header and a label, or two sentences in
# JSON.
ANSWER_TOKENS = {"label": 48, "rationale": 224}
# What a request for the rationale is given of the answer: part of the judge key where it is made.
GIVEN_FORMAT = 1


@dataclass(frozen=True)
class Reason:
    """One policy's reason judge; picklable.

    Attributes:
        safeguard: The model that is asked.
        sampling: How its reasoning is sampled.
        budget: Tokens of reasoning.
        explain_from: P(violates) from which on a rationale is asked for; None: each answer has
            one. Not in its key, but whether there is any.
        repeat: How often it was asked the same before: each time is seeded otherwise. Not in its
            key: the verdicts are of one judge, drawn anew.
        name: What `decided_by` calls it.
    """

    safeguard: Safeguard
    sampling: Sampling
    budget: int
    explain_from: float | None = None
    repeat: int = 0
    name = "reason"

    @property
    def policy(self) -> Policy:
        """What is asked about."""
        return self.safeguard.policy

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest output."""
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
            **({"given": GIVEN_FORMAT} if self.explains_apart else {}),
        }

    @property
    def explains_apart(self) -> bool:
        """Whether a label is asked for without its rationale."""
        return self.explain_from is not None and self.policy.answer == "rationale"

    @cached_property
    def key(self) -> str:
        """Its judge key."""
        return digest(self.identity())

    def settles(self, verdict: Verdict) -> bool:
        """It is the last: whatever it says stands."""
        return True

    def repeated(self, repeat: int) -> Reason:
        """The same judge, with other seeds; 0 are those of a run."""
        return replace(self, repeat=repeat)

    def _seed(self, row: str, window: int) -> int:
        asked = f"{row}:{self.key}:{window}"
        return number(f"{asked}:{self.repeat}" if self.repeat else asked)

    async def judge(self, host: EngineHost, ids: Sequence[int], row: str) -> Verdict:
        """The verdict on a content.

        Args:
            host: Of the engine.
            ids: The content's token ids.
            row: The content's hash, from which its requests are seeded too.
        """
        safeguard = self.safeguard
        if safeguard.in_words:
            return await safeguard.over_windows(
                host,
                row,
                safeguard.texts(ids),
                lambda engine, text, _: self._ask_in_words(engine, text),
            )
        ask = self._ask_in_parts if self.explains_apart else self._ask
        return await safeguard.over_windows(
            host,
            row,
            safeguard.prompts(ids),
            lambda engine, prompt, window: ask(engine, prompt, self._seed(row, window)),
        )

    async def _ask(self, engine: Counted, prompt: list[int], seed: int) -> Verdict:
        out = await engine.generate(self._request(prompt, seed))
        return await self._answered(engine, prompt, out)

    async def _ask_in_parts(self, engine: Counted, prompt: list[int], seed: int) -> Verdict:
        """As `_ask`, without the tokens of a rationale where none is wanted."""
        request = replace(self._request(prompt, seed), score=(), after=())
        end = self.safeguard.vocab.control[END]
        out = await engine.generate(replace(request, stop=(end,)))
        if self._is_thought(out.tokens) and len(out.tokens) <= self.budget:
            verdict = await self._answered(engine, prompt, out)
            if verdict.scores is None:
                return verdict
            label = self.safeguard.likeliest(verdict.scores)
            verdict = verdict._replace(answer=label, forced=False)
            return await self._explained(engine, request, out.tokens, verdict)
        if self._is_thought(out.tokens):  # whether it leaves room for an answer is seen then
            rest = self.max_tokens - len(out.tokens)
            further = replace(request, prompt=[*prompt, *out.tokens], max_tokens=rest)
            answer = await engine.generate(further)
            out = replace(out, tokens=[*out.tokens, *answer.tokens])
        return self._as_wanted(await self._answered(engine, prompt, out))

    def _is_thought(self, tokens: Sequence[int]) -> bool:
        """Whether an output is the reasoning and nothing else, to its end."""
        parts = messages(tokens, self.safeguard.vocab)
        if parts is None or len(parts) != 1:
            return False
        thought = parts[0]
        end = self.safeguard.vocab.control[END]
        return thought.channel == "analysis" and thought.closed and tokens[thought.end] == end

    async def _explained(
        self, engine: Counted, request: Request, thought: list[int], verdict: Verdict
    ) -> Verdict:
        """With the rationale of its label, where one is wanted.

        An answer in another form than is given here is asked for in the model's own.
        """
        if not self._is_explained(verdict):
            return verdict
        label = self.safeguard.openings[verdict.answer or ""]
        tokens = verdict.output_tokens or 0
        for given in ([*self._opened(thought), *label], thought):
            rest = replace(
                request,
                prompt=[*request.prompt, *given],
                max_tokens=ANSWER_TOKENS[self.policy.answer],
            )
            out = await engine.generate(rest)
            tokens += len(out.tokens)
            answer = parse([*given, *out.tokens], self.policy, self.safeguard.vocab)
            if answer is not None and answer.label == verdict.answer:
                return verdict._replace(rationale=answer.rationale, output_tokens=tokens)
        return verdict._replace(output_tokens=tokens)

    def _is_explained(self, verdict: Verdict) -> bool:
        """Whether a rationale is wanted: decided with P as it is stored."""
        if self.explain_from is None:
            return True
        if verdict.scores is None:
            return self.explain_from <= 1 and self.policy.labels[verdict.answer or ""].violates
        rule = self.policy.rule.under(self.explain_from)
        probability = rule.probabilities(np.array([verdict.scores], np.float32))
        return bool(rule.violates(probability)[0])

    def _as_wanted(self, verdict: Verdict) -> Verdict:
        """Without a rationale that came along and is not wanted."""
        if verdict.rationale is None or self._is_explained(verdict):
            return verdict
        return verdict._replace(rationale=None)

    async def _answered(self, engine: Counted, prompt: list[int], out: Completion) -> Verdict:
        """The verdict of an output, whether it has an answer or not."""
        vocab = self.safeguard.vocab
        answer = parse(out.tokens, self.policy, vocab)
        opened = out.tokens[: answer.final] if answer else self._opened(out.tokens)
        known = self._known(out, answer)
        scores = await self.safeguard.scores(engine, [*prompt, *opened], known)
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
            prompt_tokens=len(prompt),
            output_tokens=len(out.tokens),
        )

    def _request(self, prompt: list[int], seed: int) -> Request:
        sampling, parting = self.sampling, self.safeguard.parting
        return Request(
            prompt,
            self.max_tokens,
            sampling.temperature,
            sampling.top_p,
            seed,
            score=tuple(parting.branches),
            after=(self.safeguard.vocab.control[MESSAGE], *parting.shared),
        )

    def _known(self, out: Completion, answer: Answer | None) -> Mapping[int, float] | None:
        """What the engine said of the labels, if that was where the answer gives its own."""
        if answer is None or not out.logprobs:
            return None
        shared = self.safeguard.parting.shared
        place = answer.final + len(shared)
        is_there = out.scored_at == place and out.tokens[answer.final : place] == shared
        return out.logprobs if is_there else None

    async def _ask_in_words(self, endpoint: Counted, text: str) -> Verdict:
        sampling = self.sampling
        question = self.safeguard.question(
            text, self.max_tokens, sampling.temperature, sampling.top_p
        )
        try:
            reply = await endpoint.respond(question)
        except RequestFailedError:
            # Of an output that is not harmony vLLM's server says that the request was bad. One that
            # is bad fails again.
            reply = Reply("", None)
        whole = reply.answer if reply.whole else None
        answer = None if whole is None else read_answer(whole, self.policy)
        if answer is None:
            return await self._forced_in_words(endpoint, question, reply)
        label, rationale = answer
        verdict = Verdict(
            Status.OK,
            scores=label_scores(reply.tokens, label, self.policy),
            rationale=rationale,
            reasoning=reply.reasoning,
            answer=label,
            decided_by=self.name,
            origin=Origin.JUDGED,
            forced=False,
            prompt_tokens=reply.prompt_tokens,
            output_tokens=reply.output_tokens,
        )
        return self._as_wanted(verdict) if self.explains_apart else verdict

    async def _forced_in_words(
        self, endpoint: Counted, question: Question, first: Reply
    ) -> Verdict:
        """The verdict where the first reply has no answer that can be read."""
        safeguard = self.safeguard
        thought = self._within_budget(first.reasoning)
        last = await endpoint.respond(safeguard.forced(question, thought))
        if last.answer is None and last.reasoning:
            # Nothing keeps a server's model from thinking again, above all where it had not
            # thought yet. That is over now as well.
            thought = self._within_budget("\n".join(filter(None, (thought, last.reasoning))))
            last = await endpoint.respond(safeguard.forced(question, thought))
        label = None if last.answer is None else read_label(last.answer, self.policy)
        if label is None:
            output = last.answer or first.answer or first.reasoning
            return Verdict(Status.UNPARSED, detail=output[:DETAIL])
        return Verdict(
            Status.OK,
            scores=label_scores(last.tokens, label, self.policy),
            reasoning=thought,
            answer=label,
            decided_by=self.name,
            origin=Origin.JUDGED,
            forced=True,
            prompt_tokens=first.prompt_tokens or last.prompt_tokens,
            output_tokens=first.output_tokens or last.output_tokens,
        )

    def _within_budget(self, thought: str) -> str:
        """A reasoning as far as the budget goes, without a character that is cut there."""
        vocab = self.safeguard.vocab
        ids = vocab.encode(thought)
        if len(ids) <= self.budget:
            return thought
        return vocab.decode(ids[: self.budget]).rstrip("\ufffd")

    def _opened(self, tokens: Sequence[int]) -> list[int]:
        """The first analysis as far as the budget goes, and the final channel opened behind it."""
        vocab = self.safeguard.vocab
        header = self.safeguard.final_header
        whole = messages(tokens, vocab) or messages(tokens[: self._first_end(tokens)], vocab)
        if not whole or whole[0].channel != "analysis":
            return header
        first = whole[0]
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
        whole = messages(opened, self.safeguard.vocab)
        return reasoning(opened, whole, self.safeguard.vocab) if whole else ""
