"""A judge asked again is the same judge, and draws anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from moderay.config.job_file import load_job
from moderay.core.hashing import number
from moderay.engines.base import Completion, Request
from moderay.engines.from_job import engine_spec
from moderay.engines.host import EngineHost
from moderay.engines.scripted import Script, ScriptedEngine, ScriptedSpec
from moderay.judges.build import cascades
from moderay.judges.cascade import Cascade
from moderay.tasks.diff.repeats import seeds


class Listening(ScriptedEngine):
    """Notes the seeds of requests that draw."""

    drawn: list[int | None]

    async def generate(self, request: Request) -> Completion:
        if request.temperature > 0:
            self.drawn.append(request.seed)
        return await super().generate(request)


@dataclass(frozen=True)
class ListeningSpec(ScriptedSpec):
    """Of such an engine."""

    drawn: tuple[list[int | None], ...] = ()

    async def build(self) -> ScriptedEngine:
        engine = Listening(self)
        engine.drawn = self.drawn[0]
        return engine


@pytest.fixture
def made(job: Callable[..., Path]) -> Callable[..., Cascade]:
    """The cascade of a job with such sections."""

    def of(**sections: object) -> Cascade:
        found, policies = load_job(str(job(**sections)))
        return cascades(found, policies, engine_spec(found, gpus=0))[0][0]

    return of


def test_repeats_have_the_same_key_and_seeds_of_their_own(made: Callable[..., Cascade]) -> None:
    cascade = made(cascade=[{"glance": {"below": 0.1}}, {"reason": {"budget": 64}}])
    again = cascade.repeated(1)
    assert (again.key, again.keys, again.identity()) == (
        cascade.key,
        cascade.keys,
        cascade.identity(),
    )
    assert again.on_engine[0] == cascade.on_engine[0] and again != cascade
    assert cascade.repeated(0) == again.repeated(0) == cascade
    drawn: list[int | None] = []

    async def ask() -> None:
        host = EngineHost(ListeningSpec(Script(), drawn=(drawn,)))
        for repeat in (0, 1, 2, 1):
            await cascade.repeated(repeat).last.judge(host, [1, 2, 3], "hash")
        host.close()

    asyncio.run(ask())
    # The first is a run's own seed: its verdicts may be taken.
    assert drawn[0] == number(f"hash:{cascade.last.key}:0")
    assert len({*drawn}) == 3 and drawn[1] == drawn[3]


def test_what_makes_repeats_differ_is_known(
    job: Callable[..., Path], made: Callable[..., Cascade]
) -> None:
    greedy = {"source": "tiny", "sampling": {"temperature": 0}}
    served = {"endpoint": "http://127.0.0.1:1/v1", "name": "m"}
    for model, steps, expected in (
        ({"source": "tiny"}, [{"reason": {}}], "sent"),
        (greedy, [{"reason": {}}], "no_effect"),
        (served, [{"reason": {}}], "not_sent"),
        ({**served, "sampling": {"temperature": 0}}, [{"reason": {}}], "no_effect"),
    ):
        sections = {"model": model, "cascade": steps}
        found, _ = load_job(str(job(**sections)))
        assert seeds(found, [made(**sections)]) == expected
