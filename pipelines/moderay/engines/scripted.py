"""A scripted engine for tests and simulations: answers, delays and failures from a file; no model.

```yaml
default: {answer: '{"label": "SP0", "rationale": "Nothing."}', reasoning: Looks fine., p: 0.95}
delay: {mean_s: 0.01, sigma: 1.0}        # log-normal; sigma 0 is constant
log: requests.log                        # optional: one byte is added for every answer
rules:                                   # the first whose patterns (regular expressions) are found
  - content: buy now
    policy: "^# Spam"                    # optional: searched in the developer message
    answer: '{"label": "SP4", "rationale": "It sells."}'
    p: 0.9                               # of the answer, against all others together
    glance: 0.6                          # the same without reasoning; by default p
  # control tokens as they are spelled
  - {content: broken, output: "<|channel|>final<|message|>oops"}
  # request (fails alone) | dead (with all the engine works on) | hang | exit (with its process)
  - {content: poison, fail: dead}
  - {content: unlucky, fail: request, while: bad-luck}   # holds as long as this file exists
```
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from moderay.core.hashing import digest
from moderay.engines import checkpoint
from moderay.engines.base import Completion, EngineDeadError, Request, RequestFailedError
from moderay.engines.harmony.vocabulary import (
    CHANNEL,
    END,
    MESSAGE,
    RETURN,
    START,
    Vocabulary,
    vocabulary,
)


class Rule(BaseModel):
    """What is answered where `content` (and `policy`, where given) is found."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    content: str = ""
    policy: str = ""
    answer: str = ""
    reasoning: str = ""
    p: float = Field(default=0.9, gt=0, lt=1)
    glance: float | None = Field(default=None, gt=0, lt=1)
    output: str | None = None
    fail: Literal["request", "dead", "hang", "exit"] | None = None
    during: str | None = Field(default=None, alias="while")


class Delay(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    mean_s: float = 0.0
    sigma: float = 0.0


class Script(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    default: Rule = Rule()
    delay: Delay = Delay()
    log: str | None = None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class ScriptedSpec:
    """`file`: the script, read on the driver so that workers need no file."""

    script: Script
    max_num_seqs: int = 256
    gpus: int = 0
    vocabulary_source: str | None = checkpoint.TINY

    @classmethod
    def load(cls, file: str | Path, max_num_seqs: int = 256) -> ScriptedSpec:
        return cls(
            Script.model_validate(yaml.safe_load(Path(file).read_text(encoding="utf-8"))),
            max_num_seqs,
        )

    def identity(self) -> Mapping[str, object]:
        return {
            "model": "scripted",
            "script": digest(self.script.model_dump(exclude={"delay", "log"})),
        }

    def here(self) -> ScriptedSpec:
        return self

    async def build(self) -> ScriptedEngine:
        return ScriptedEngine(self)


class ScriptedEngine:
    """Answers as many requests at once as its spec says; the others wait."""

    def __init__(self, spec: ScriptedSpec) -> None:
        self._script = spec.script
        self._vocab: Vocabulary = vocabulary(spec.vocabulary_source)
        self._slots = asyncio.Semaphore(spec.max_num_seqs)
        self._random = random.Random(0)
        self._death = asyncio.Event()
        self._output = functools.cache(self._rendered)
        self._developer = functools.lru_cache(64)(lambda ids: self._vocab.decode(ids))

    async def generate(self, request: Request) -> Completion:
        async with self._slots:
            answer, death = (
                asyncio.ensure_future(self._answer(request)),
                asyncio.ensure_future(self._death.wait()),
            )
            try:
                await asyncio.wait((answer, death), return_when=asyncio.FIRST_COMPLETED)
                if self._death.is_set():
                    raise EngineDeadError("scripted death")
                return await answer
            finally:
                answer.cancel()
                death.cancel()

    async def _answer(self, request: Request) -> Completion:
        rule, final, reasoned = self._rule(request.prompt)
        if rule.fail == "request":
            raise RequestFailedError("scripted failure")
        if rule.fail == "exit":
            os._exit(1)
        if rule.fail == "hang":
            await asyncio.Event().wait()
        await asyncio.sleep(self._delay())
        if rule.fail == "dead":
            self._death.set()
        if self._script.log is not None:
            with open(self._script.log, "ab") as log:
                log.write(b".")
        if request.score:
            return Completion(
                [request.score[0]],
                self._logprobs(
                    rule.answer,
                    rule.p if reasoned or rule.glance is None else rule.glance,
                    final,
                    request.score,
                ),
            )
        return Completion(self._output(rule)[: request.max_tokens], {})

    def close(self) -> None:
        pass

    def _delay(self) -> float:
        delay = self._script.delay
        if delay.sigma == 0 or delay.mean_s == 0:
            return delay.mean_s
        return self._random.lognormvariate(math.log(delay.mean_s) - delay.sigma**2 / 2, delay.sigma)

    def _rule(self, prompt: list[int]) -> tuple[Rule, list[int], bool]:
        """The rule for a prompt; of a request for scores the body of its final channel so far, and
        whether there is a reasoning before it.
        """
        control = self._vocab.control
        starts = [i for i, token in enumerate(prompt) if token == control[MESSAGE]]
        ends = [i for i, token in enumerate(prompt) if token == control[END]]
        final = (
            prompt[starts[-1] + 1 :]
            if len(starts) > 3 or prompt[ends[-1] :].count(control[CHANNEL])
            else []
        )
        reasoned = len(starts) > 4
        if not self._script.rules:
            return self._script.default, final, reasoned
        content = self._vocab.decode(prompt[starts[2] + 1 : ends[2]])
        policy = self._developer(tuple(prompt[starts[1] + 1 : ends[1]]))
        for rule in self._script.rules:
            holds = rule.during is None or Path(rule.during).exists()
            if (
                holds
                and re.search(rule.content, content)
                and re.search(rule.policy, policy, re.MULTILINE)
            ):
                return rule, final, reasoned
        return self._script.default, final, reasoned

    def _rendered(self, rule: Rule) -> list[int]:
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

    def _logprobs(
        self, answer: str, p: float, final: list[int], asked: tuple[int, ...]
    ) -> dict[int, float]:
        """`p` for the token with which the answer goes on, the rest shared by the others."""
        body = [*self._vocab.encode(answer), self._vocab.control[RETURN]]
        following: Any = (
            body[len(final)] if body[: len(final)] == final and len(final) < len(body) else None
        )
        if following not in asked:
            return dict.fromkeys(asked, -math.log(len(asked)))
        other = math.log((1 - p) / max(1, len(asked) - 1))
        return {token: math.log(p) if token == following else other for token in asked}
