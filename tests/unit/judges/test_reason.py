"""P with the answer is what a second request gives, and is asked for where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from moderay.config.job_file import load_job
from moderay.core.verdicts import Status, Verdict
from moderay.engines.base import SECOND_REQUEST, WITH_THE_ANSWER
from moderay.engines.from_job import engine_spec
from moderay.engines.host import EngineHost
from moderay.judges.build import cascades

POLICY = """---
id: spam
title: Spam
version: 1
threshold: 0.5
answer: {answer}
labels:
  SP0: {{violates: false}}
  SP2: {{violates: true}}
  {third}: {{violates: true}}
---
# Spam
Say whether it is.
"""


class Case(NamedTuple):
    """What is answered, to which policy, and the requests it takes with notes and without."""

    answer: dict[str, str]
    requests: tuple[int, int]
    form: str = "rationale"
    third: str = "SP4"


def said(label: str) -> str:
    return f'{{"label": "{label}", "rationale": "Why."}}'


@pytest.fixture
def asked(tmp_path: Path, job: Callable[..., Path]) -> Callable[..., tuple[Verdict, int]]:
    """The verdict on a content, and how many requests it took."""

    def ask(case: Case, notes: bool) -> tuple[Verdict, int]:
        folder = tmp_path / "policy"
        folder.mkdir(exist_ok=True)
        (folder / "policy.md").write_text(POLICY.format(answer=case.form, third=case.third))
        script = {"default": {"reasoning": "I think.", "p": 0.7, **case.answer}, "notes": notes}
        found, policies = load_job(
            str(job(script, policies=[str(folder)], cascade=[{"reason": {"budget": 40}}]))
        )
        judge = cascades(found, policies, spec := engine_spec(found, gpus=0))[0][0].last

        async def verdict() -> tuple[Verdict, int]:
            host = EngineHost(spec)
            try:
                made = await judge.judge(host, judge.safeguard.vocab.encode("hello"), "hash")
            finally:
                host.close()
            return made, host.usage.figures()["requests"]

        return asyncio.run(verdict())

    return ask


THOUGHT = "<|channel|>analysis<|message|>I think.<|end|><|start|>assistant<|channel|>final"
CASES = {
    "rationale": Case({"answer": said("SP0")}, requests=(1, 2)),
    "label alone": Case({"answer": "SP0"}, form="label", requests=(1, 2)),
    # SP2 and SP20 part behind the token at which both part from SP0, and are asked for there.
    "parting late": Case({"answer": said("SP20")}, third="SP20", requests=(2, 3)),
    "constrained": Case(
        {"output": f"{THOUGHT} <|constrain|>json<|message|>{said('SP0')}<|return|>"},
        requests=(1, 2),
    ),
    "rationale first": Case({"answer": '{"rationale": "Why.", "label": "SP0"}'}, requests=(2, 2)),
    "cut off": Case({"reasoning": "I think. " * 400, "answer": said("SP0")}, requests=(2, 2)),
    "no answer": Case({"output": "<|channel|>analysis<|message|>never ends"}, requests=(2, 2)),
    "two answers": Case(
        {
            "output": f"{THOUGHT}<|message|>{said('SP0')}<|end|><|start|>assistant<|channel|>final"
            f"<|message|>{said('SP2')}<|return|>"
        },
        requests=(2, 2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways_to_p_give_the_same_verdict(
    name: str, asked: Callable[..., tuple[Verdict, int]]
) -> None:
    case = CASES[name]
    with_notes, requests = asked(case, notes=True)
    without, more = asked(case, notes=False)
    assert with_notes == without and without.status is Status.OK
    assert without.scores is not None and sum(without.scores) == pytest.approx(1)
    assert (requests, more) == case.requests


def test_a_script_says_how_its_engine_comes_to_p(job: Callable[..., Path]) -> None:
    ways = []
    for notes in (True, False):
        found, _ = load_job(str(job({"notes": notes})))
        host = EngineHost(engine_spec(found, gpus=0), lambda _, way: ways.append(way))
        asyncio.run(host.run("row", lambda engine: asyncio.sleep(0), 1))
    assert ways == [WITH_THE_ANSWER, SECOND_REQUEST]
