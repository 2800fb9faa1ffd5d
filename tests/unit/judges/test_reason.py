"""P with the answer is what a second request gives, and is asked for where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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

    def ask(case: Case, notes: bool, **output: Any) -> tuple[Verdict, int]:
        folder = tmp_path / "policy"
        folder.mkdir(exist_ok=True)
        (folder / "policy.md").write_text(POLICY.format(answer=case.form, third=case.third))
        script = {"default": {"reasoning": "I think.", "p": 0.7, **case.answer}, "notes": notes}
        sections = {
            "policies": [str(folder)],
            "cascade": [{"reason": {"budget": 40}}],
            "output": {"path": "out", **output},
            "model": {"source": "scripted:script.yaml", "sampling": {"temperature": 0}},
        }
        found, policies = load_job(str(job(script, **sections)))
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


def apart(verdict: Verdict) -> Verdict:
    """What holds whoever asks for the rationale."""
    return verdict._replace(rationale=None, forced=None, output_tokens=None)


# Of an answer in a form of its own the script knows no P for the form that is given.
OWN_FORM = ("constrained", "rationale first")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (name, label)
        for name in CASES
        for label in ("SP0", "SP2")
        if label == "SP0" or name not in OWN_FORM
    ],
)
def test_a_label_is_the_same_without_a_rationale_and_those_of_flagged_rows_stay(
    name: str, label: str, asked: Callable[..., tuple[Verdict, int]]
) -> None:
    case = CASES[name]
    answer = {key: text.replace("SP0", label) for key, text in case.answer.items()}
    case = case._replace(answer=answer)
    full, _ = asked(case, notes=False)
    flagged, _ = asked(case, notes=False, rationale="flagged")
    never, _ = asked(case, notes=False, rationale="none")
    assert apart(full) == apart(flagged) == apart(never) and full.scores is not None
    violates = sum(full.scores[1:]) >= 0.5
    assert never.rationale is None
    if not full.forced:
        assert flagged.rationale == (full.rationale if violates else None)


def test_a_threshold_lowered_later_finds_the_rationales_that_were_kept_for_it(
    asked: Callable[..., tuple[Verdict, int]],
) -> None:
    case = CASES["rationale"]._replace(answer={"answer": said("SP0"), "p": 0.7})  # P(violates) 0.3
    kept = {"rationale": "flagged", "rationale_from": 0.25}
    (lower, more), (without, requests) = (
        asked(case, False, **kept),
        asked(case, False, rationale="flagged"),
    )
    assert (lower.rationale, without.rationale) == ("Why.", None)
    assert more == requests + 1


def test_a_script_says_how_its_engine_comes_to_p(job: Callable[..., Path]) -> None:
    ways = []
    for notes in (True, False):
        found, _ = load_job(str(job({"notes": notes})))
        host = EngineHost(engine_spec(found, gpus=0), lambda _, way: ways.append(way))
        asyncio.run(host.run("row", lambda engine: asyncio.sleep(0), 1))
    assert ways == [WITH_THE_ANSWER, SECOND_REQUEST]
