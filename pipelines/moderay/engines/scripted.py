"""A scripted engine for tests and simulations: answers, delays and failures from a file; no model.

```yaml
default: {answer: '{"label": "SP0", "rationale": "Nothing."}', reasoning: Looks fine., p: 0.95}
delay: {mean_s: 0.01, sigma: 1.0}        # log-normal; sigma 0 is constant
notes: true                              # optional: P comes with the answer, as vLLM's on a CPU
log: requests.log                        # optional: one byte is added for every answer
contents: contents.jsonl                 # optional: the content is, as a line of JSON
rules:                                   # the first whose patterns (regular expressions) are found
  - content: buy now
    policy: "^# Spam"                    # optional: searched in the developer message
    answer: '{"label": "SP4", "rationale": "It sells."}'
    p: 0.9                               # of the answer, against all others together
    glance: 0.6                          # the same without reasoning; by default p
  # by content, from lines such as {"content": "...", "answer": "..."} in a file beside this one
  - {policy: "^# Hate", answers: hate.jsonl}
  # control tokens as they are spelled
  - {content: broken, output: "<|channel|>final<|message|>oops"}
  # request (fails alone) | dead (with all the engine works on) | hang | exit (with its process)
  - {content: poison, fail: dead}
  - {content: unlucky, fail: request, while: bad-luck}   # holds as long as this file exists
  # contradicts itself: the other answer for this share of contents and seeds
  - content: doubtful
    answer: '{"label": "SP4", "rationale": "It sells."}'
    reasoning: It sells.
    flip: {share: 0.2, answer: '{"label": "SP0", "rationale": "It tells."}', reasoning: It tells.}
```
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moderay.config import bounded_yaml
from moderay.core.hashing import digest, number
from moderay.engines import checkpoint
from moderay.engines.base import (
    SECOND_REQUEST,
    WITH_THE_ANSWER,
    Completion,
    EngineDeadError,
    Request,
    RequestFailedError,
)
from moderay.engines.harmony.vocabulary import (
    CHANNEL,
    END,
    MESSAGE,
    RETURN,
    START,
    Vocabulary,
    vocabulary,
)
from moderay.engines.slots import Slots

# Seconds between two looks whether a request hangs no longer.
LOOK_S = 0.1
# Beginnings of prompts that are known again: one for each policy and effort.
OPENINGS = 64


class Flip(BaseModel):
    """What a model says that is not always of one mind."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    share: float = Field(gt=0, lt=1)
    """How often, over contents and seeds: chosen by a hash of both. Never at temperature 0."""
    answer: str
    """Body of the final channel."""
    reasoning: str = Field(min_length=1)
    """Body of the analysis channel; another one, since what comes after it follows from it."""


class ScriptedAnswer(BaseModel):
    """What is answered to prompts that match, or how they fail."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    content: str = ""
    """Regular expression, searched in the content."""
    policy: str = ""
    """Regular expression, searched in the developer message; `^` is the start of any line."""
    answer: str = ""
    """Body of the final channel."""
    answers: str | None = None
    """A file with a line of JSON for each content that is answered, which holds it and the answer:
    the others do not match.
    """
    reasoning: str = ""
    """Body of the analysis channel."""
    p: float = Field(default=0.9, gt=0, lt=1)
    """Probability of the answer's next token, against all others together."""
    glance: float | None = Field(default=None, gt=0, lt=1)
    """The same where no reasoning comes before; None: `p`."""
    output: str | None = None
    """The whole output instead, with control tokens as they are spelled."""
    fail: Literal["request", "dead", "hang", "exit"] | None = None
    """Alone, with all the engine works on, never ending, or with the process."""
    during: str | None = Field(default=None, alias="while")
    """A file: this answer holds as long as it exists."""
    flip: Flip | None = None
    """What is answered now and then instead."""

    @model_validator(mode="after")
    def _of_two_minds(self) -> ScriptedAnswer:
        if self.flip is not None and self.flip.reasoning == self.reasoning:
            raise ValueError("flip.reasoning: the same as of the answer, so neither is known by it")
        return self

    def flipped(self, flip: Flip) -> ScriptedAnswer:
        """What it says then."""
        changes = {"answer": flip.answer, "reasoning": flip.reasoning, "flip": None}
        return self.model_copy(update=changes)


class Delay(BaseModel):
    """How long an answer takes, log-normal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean_s: float = 0.0
    """Seconds."""
    sigma: float = 0.0
    """Of the logarithm; 0: always the mean."""


class Script(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    default: ScriptedAnswer = ScriptedAnswer()
    """Where no rule matches."""
    delay: Delay = Delay()
    """Before every answer."""
    notes: bool = False
    """Whether P comes with the answer; else by a second request."""
    log: str | None = None
    """A file that gets one byte for every answer."""
    contents: str | None = None
    """A file that gets the content for every answer, as a line of JSON."""
    rules: tuple[ScriptedAnswer, ...] = ()
    """The first that matches holds."""


@dataclass(frozen=True)
class Situation:
    """Where a prompt stands.

    Attributes:
        answer: What the script has for it.
        final: Ids of the final channel's body so far.
        reasoned: Whether a reasoning comes before.
    """

    answer: ScriptedAnswer
    final: list[int]
    reasoned: bool

    @property
    def p(self) -> float:
        """Probability of the answer's next token."""
        if self.reasoned or self.answer.glance is None:
            return self.answer.p
        return self.answer.glance


@dataclass(frozen=True)
class ScriptedSpec:
    """A scripted engine.

    Attributes:
        script: Read on the driver, so that workers need no file.
        max_num_seqs: Answers at once.
        gpus: None are needed.
        vocabulary_source: The checkpoint whose vocabulary it speaks; None: harmony's.
        answers: By content, of each file that rules name; read on the driver as well.
    """

    script: Script
    max_num_seqs: int = 256
    gpus: int = 0
    vocabulary_source: str | None = checkpoint.TINY
    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls, file: str | Path, max_num_seqs: int = 256) -> ScriptedSpec:
        """The script in a YAML file, and the files beside it that it names."""
        text = Path(file).read_text(encoding="utf-8")
        script = Script.model_validate(bounded_yaml.load(text))
        names = {rule.answers for rule in script.rules if rule.answers is not None}
        tables = {name: _answers(Path(file).parent / name) for name in names}
        return cls(script, max_num_seqs, answers=tables)

    def identity(self) -> Mapping[str, object]:
        """The script, but not how long it takes or where it logs."""
        script = self.script.model_dump(exclude={"delay", "notes", "log", "contents"})
        return {"model": "scripted", "script": digest([script, self.answers])}

    def preload(self) -> None:
        """Nothing that takes long."""

    def here(self) -> ScriptedSpec:
        """Itself: it is the same on every machine."""
        return self

    async def build(self) -> ScriptedEngine:
        """At once."""
        return ScriptedEngine(self)


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


def _answers(file: Path) -> dict[str, str]:
    """By content, what is answered."""
    with file.open(encoding="utf-8") as lines:
        each = map(json.loads, lines)
        return {line["content"]: line["answer"] for line in each}


class ScriptedEngine:
    """Answers as many requests at once as its spec says; the others wait."""

    def __init__(self, spec: ScriptedSpec) -> None:
        """Its delays are those of seed 0."""
        self.probability_by = WITH_THE_ANSWER if spec.script.notes else SECOND_REQUEST
        self._script = spec.script
        self._answers = spec.answers
        self._vocab: Vocabulary = vocabulary(spec.vocabulary_source)
        self._slots = Slots(spec.max_num_seqs)
        self._random = random.Random(0)
        self._is_dead = False
        # What requests wait for that are not answered at once; a death ends it.
        self._pauses: set[asyncio.Future[None]] = set()
        # Prompts' first three messages up to the content, each with where its bodies start and end.
        self._openings: list[tuple[list[int], list[int], list[int]]] = []
        self._output = functools.cache(self._rendered)
        self._developer = functools.lru_cache(OPENINGS)(self._vocab.decode)
        self._encoded = functools.lru_cache(OPENINGS)(self._vocab.encode)

    async def generate(self, request: Request) -> Completion:
        """What the script says, after its delay.

        Raises:
            RequestFailedError: The script says so.
            EngineDeadError: It says so of any request that is answered meanwhile.
        """
        await self._slots.take()
        try:
            self._assert_alive()
            completion = await self._answer(request)
            self._assert_alive()
            return completion
        finally:
            self._slots.give()

    async def _answer(self, request: Request) -> Completion:
        situation = self._situation(request)
        fail = situation.answer.fail
        if fail == "request":
            raise RequestFailedError("scripted failure")
        if fail == "exit":
            os._exit(1)
        if fail == "hang":
            return await self._after_hanging(request, situation.answer)
        await self._pause(self._delay())
        if fail == "dead":
            self._die()
        if self._script.log is not None:
            with open(self._script.log, "ab") as log:
                log.write(b".")
        if self._script.contents is not None:
            line = json.dumps(self._content(request.prompt, *self._bodies(request.prompt))) + "\n"
            with open(self._script.contents, "ab", buffering=0) as contents:
                contents.write(line.encode())
        if request.score and not request.after:
            return Completion([request.score[0]], self._logprobs(situation, request.score))
        tokens = self._until_stop(self._continued(situation.answer, request.prompt), request)
        if not (self._script.notes and request.after):
            return Completion(tokens, {})
        return self._noted(situation, tokens, request)

    def _continued(self, answer: ScriptedAnswer, prompt: list[int]) -> list[int]:
        """What comes behind the part of an output that the prompt holds already."""
        output, (_, ends) = self._output(answer), self._bodies(prompt)
        if len(ends) < 3:
            return output
        done = prompt[ends[2] + 2 + len(self._vocab.encode("assistant")) :]
        return output[len(done) :] if output[: len(done)] == done else output

    def _until_stop(self, tokens: list[int], request: Request) -> list[int]:
        ends = [place + 1 for place, token in enumerate(tokens) if token in request.stop]
        return tokens[: min([request.max_tokens, *ends])]

    def _noted(self, situation: Situation, tokens: list[int], request: Request) -> Completion:
        """An answer with the scores of where it ends in `Request.after` for the last time."""
        after = list(request.after)
        due = [
            place
            for place in range(len(after), len(tokens))
            if tokens[place - len(after) : place] == after
        ]
        if not due:
            return Completion(tokens, {})
        body = replace(situation, final=after[1:], reasoned=True)
        return Completion(tokens, self._logprobs(body, request.score), scored_at=due[-1])

    async def _after_hanging(self, request: Request, answer: ScriptedAnswer) -> Completion:
        """What the script says once the file is gone that made it hang; without one, nothing."""
        if answer.during is None:
            await self._pause(None)
        while Path(str(answer.during)).exists():
            await self._pause(LOOK_S)
        return await self._answer(request)

    async def _pause(self, seconds: float | None) -> None:
        """Let so much time pass, for ever with None.

        Raises:
            EngineDeadError: The engine died meanwhile.
        """
        if seconds == 0:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            pause = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, _end, pause)
            self._pauses.add(pause)
            try:
                await pause
            finally:
                self._pauses.remove(pause)
                if timer is not None:
                    timer.cancel()
        self._assert_alive()

    def _die(self) -> None:
        """With all it works on."""
        self._is_dead = True
        for pause in self._pauses:
            _end(pause)

    def _assert_alive(self) -> None:
        if self._is_dead:
            raise EngineDeadError("scripted death")

    def close(self) -> None:
        """Holds nothing that would have to be closed."""

    def _delay(self) -> float:
        delay = self._script.delay
        if delay.sigma == 0 or delay.mean_s == 0:
            return delay.mean_s
        return self._random.lognormvariate(math.log(delay.mean_s) - delay.sigma**2 / 2, delay.sigma)

    def _situation(self, request: Request) -> Situation:
        control, prompt = self._vocab.control, request.prompt
        starts, ends = self._bodies(prompt)
        final = (
            prompt[starts[-1] + 1 :]
            if len(starts) > 3 or prompt[ends[-1] :].count(control[CHANNEL])
            else []
        )
        answer = self._matching(prompt, starts, ends)
        if answer.flip is not None and self._flips(answer.flip, request, starts, ends):
            answer = answer.flipped(answer.flip)
        return Situation(answer, final=final, reasoned=len(starts) > 4)

    def _flips(self, flip: Flip, request: Request, starts: list[int], ends: list[int]) -> bool:
        """Whether it is of the other mind; of a label that is scored the reasoning before says it.

        Where nothing is drawn, at temperature 0 or without reasoning, it never is.
        """
        prompt = request.prompt
        if request.score and not request.after:
            said = prompt[starts[3] + 1 : ends[3]] if len(starts) > 4 else []
            return self._vocab.decode(said) == flip.reasoning
        drawn = number(f"{self._content(prompt, starts, ends)}:{request.seed}")
        return request.temperature > 0 and drawn < flip.share * 2**63

    def _matching(self, prompt: list[int], starts: list[int], ends: list[int]) -> ScriptedAnswer:
        """The answer for a prompt; `starts`, `ends`: where its messages' bodies do."""
        if not self._script.rules:
            return self._script.default
        content = self._content(prompt, starts, ends)
        policy = self._developer(tuple(prompt[starts[1] + 1 : ends[1]]))
        for rule in self._script.rules:
            holds = rule.during is None or Path(rule.during).exists()
            if (
                holds
                and re.search(rule.content, content)
                and re.search(rule.policy, policy, re.MULTILINE)
            ):
                if rule.answers is None:
                    return rule
                answer = self._answers[rule.answers].get(content)
                if answer is not None:
                    return rule.model_copy(update={"answer": answer})
        return self._script.default

    def _bodies(self, prompt: list[int]) -> tuple[list[int], list[int]]:
        """Where the bodies of its messages start, and where they end.

        What stands before the content is long, and the same in all prompts under a policy.
        """
        for opening, starts, ends in self._openings:
            if prompt[: len(opening)] == opening:
                more_starts, more_ends = self._found(prompt, len(opening))
                return starts + more_starts, ends + more_ends
        starts, ends = self._found(prompt)
        if len(starts) > 2:
            at = starts[2] + 1
            self._openings.append((prompt[:at], starts[:3], [end for end in ends if end < at]))
            del self._openings[:-OPENINGS]
        return starts, ends

    def _found(self, prompt: list[int], behind: int = 0) -> tuple[list[int], list[int]]:
        """As `_bodies`, of messages that start, or end, from a position on."""
        start, end = self._vocab.control[MESSAGE], self._vocab.control[END]
        rest = enumerate(prompt[behind:] if behind else prompt, behind)
        found = [(i, token) for i, token in rest if token in (start, end)]
        return (
            [i for i, token in found if token == start],
            [i for i, token in found if token == end],
        )

    def _content(self, prompt: list[int], starts: list[int], ends: list[int]) -> str:
        return self._vocab.decode(prompt[starts[2] + 1 : ends[2]])

    def _rendered(self, rule: ScriptedAnswer) -> list[int]:
        control, encode = self._vocab.control, self._vocab.encode
        if rule.output is not None:
            spelled = re.split("(" + "|".join(map(re.escape, control)) + ")", rule.output)
            return [
                token
                for part in spelled
                for token in ([control[part]] if part in control else encode(part))
            ]
        analysis = [
            control[CHANNEL],
            *encode("analysis"),
            control[MESSAGE],
            *encode(rule.reasoning),
            control[END],
        ]
        final = [
            control[START],
            *encode("assistant"),
            control[CHANNEL],
            *encode("final"),
            control[MESSAGE],
            *encode(rule.answer),
        ]
        return [*analysis, *final, control[RETURN]]

    def _logprobs(self, situation: Situation, tokens: tuple[int, ...]) -> dict[int, float]:
        """`p` for the token with which the answer goes on, the rest shared by the others."""
        body = [*self._encoded(situation.answer.answer), self._vocab.control[RETURN]]
        done = len(situation.final)
        following = body[done] if body[:done] == situation.final and done < len(body) else None
        if following not in tokens:
            return dict.fromkeys(tokens, -math.log(len(tokens)))
        other = math.log((1 - situation.p) / max(1, len(tokens) - 1))
        return {token: math.log(situation.p) if token == following else other for token in tokens}
