"""The scripted engine: an answer that is not always the same, as often as the script says."""

import asyncio

import pytest
from pydantic import ValidationError
from scipy.stats import binom

from moderay.config.policy import Policy
from moderay.engines import checkpoint
from moderay.engines.base import Request
from moderay.engines.harmony.prompt import prompt
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.scripted import Script, ScriptedEngine, ScriptedSpec

VOCAB = vocabulary(str(checkpoint.TINY_FOLDER))
FLIP = {"share": 0.2, "answer": "SP0", "reasoning": "It tells."}
RULE = {"content": "doubt", "answer": "SP4", "reasoning": "It sells.", "flip": FLIP}
PROMPT = prompt(Policy(id="p", text="x"), "low", VOCAB).render(VOCAB.encode("a doubt"))


def said(temperature: float, seeds: range) -> list[str]:
    """What an engine answers, under each seed."""
    engine = ScriptedEngine(ScriptedSpec(Script.model_validate({"rules": [RULE]})))

    async def answers() -> list[str]:
        outs = [await engine.generate(Request(PROMPT, 99, temperature, 1, s)) for s in seeds]
        return [VOCAB.decode(out.tokens) for out in outs]

    return asyncio.run(answers())


def test_answer_flips_as_often_as_the_script_says_and_the_same_seeds_alike() -> None:
    seeds = range(1000)
    answers = said(1.0, seeds)
    flipped = sum("It tells." in answer and "SP0" in answer for answer in answers)
    assert sum("It sells." in answer and "SP4" in answer for answer in answers) == 1000 - flipped
    assert binom.cdf(flipped, 1000, 0.2) > 0.001 and binom.sf(flipped, 1000, 0.2) > 0.001
    assert answers == said(1.0, seeds)


def test_answer_does_not_flip_where_nothing_is_drawn() -> None:
    assert {"It tells." in answer for answer in said(0.0, range(50))} == {False}


def test_flip_that_cannot_be_told_from_the_answer_is_refused() -> None:
    alike = {**RULE, "flip": {**FLIP, "reasoning": "It sells."}}
    with pytest.raises(ValidationError, match=r"flip.reasoning: the same"):
        Script.model_validate({"rules": [alike]})
