"""An engine that is shared by units: its time, its queue, and the rows that kill it."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.project import ROOT

from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.core.errors import UserError
from moderay.corpus.content import texts
from moderay.engines.base import (
    SECOND_REQUEST,
    Completion,
    Counted,
    EngineDeadError,
    Request,
    Usage,
)
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.host import EngineHost
from moderay.engines.scripted import Script, ScriptedEngine, ScriptedSpec
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.tasks.embedded_job import job_cascades


def test_engine_time_is_starting_idle_or_working_and_adds_up() -> None:
    class Slow:
        probability_by = SECOND_REQUEST

        async def generate(self, request: Request) -> Completion:
            await asyncio.sleep(0.2)
            if not request.prompt:
                raise EngineDeadError("dead")
            return Completion([1, 2], {}, cached=3)

        def close(self) -> None: ...

    async def work() -> Usage:
        usage = Usage(seats=2)
        with usage.starting():
            await asyncio.sleep(0.1)
        engine = Counted(Slow(), usage)
        await asyncio.sleep(0.1)
        answers = await asyncio.gather(
            *[engine.generate(Request(prompt, 8)) for prompt in ([1] * 5, [1] * 5, [])],
            return_exceptions=True,
        )
        assert isinstance(answers[2], EngineDeadError)
        await asyncio.sleep(0.1)
        return usage

    began = time.monotonic()
    actual = asyncio.run(work()).figures()
    passed = 1000 * (time.monotonic() - began)
    times = {state: actual[f"engine_{state}_ms"] for state in ("starting", "idle", "working")}
    assert (
        times["starting"] == pytest.approx(100, abs=60)
        and times["idle"] == pytest.approx(200, abs=60)
        and times["working"] == pytest.approx(200, abs=60)
    )
    assert passed - 60 <= sum(times.values()) <= passed
    assert actual["seats_taken_ms"] == pytest.approx(2 * times["working"], abs=2)
    assert actual["seats_taken_ms"] + actual["seats_free_ms"] == pytest.approx(
        2 * sum(times.values()), abs=8
    )
    counts = {
        name: actual[name]
        for name in ("engine_starts", "requests", "prompt_tokens", "cached_tokens", "output_tokens")
    }
    assert counts == {
        "engine_starts": 1,
        "requests": 2,
        "prompt_tokens": 10,
        "cached_tokens": 6,
        "output_tokens": 4,
    }


def test_units_are_admitted_in_order_as_soon_as_the_engine_has_room() -> None:
    async def work() -> list[str]:
        host, messages = EngineHost(ScriptedSpec(Script(), max_num_seqs=4)), list[str]()

        async def unit(name: str, questions: int, answers: asyncio.Event) -> None:
            async with host.admitted(questions) as answered:
                messages.append(f"{name} in")
                await answers.wait()
                answered(questions - 1)  # all but one, which is slow
                await asyncio.sleep(0.05)
            messages.append(f"{name} out")

        first, others = asyncio.Event(), asyncio.Event()
        units = [
            asyncio.create_task(unit(name, 6, first if name == "a" else others)) for name in "abcd"
        ]
        await asyncio.sleep(0.02)
        messages.append("-")
        first.set()
        await asyncio.sleep(0.02)
        others.set()
        await asyncio.gather(*units)
        return messages

    # Eight questions are enough for four seats: c comes in as those of a are answered, before a is
    # out.
    assert asyncio.run(work())[:4] == ["a in", "b in", "-", "c in"]


def test_units_outside_come_in_when_the_row_that_kills_the_engine_is_found() -> None:
    job = Job.model_validate(
        {"input": {"path": "", "content": "text"}, "output": {"path": ""}, "policies": ["spam"]}
    )
    default = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}
    script = Script.model_validate(
        {"default": default, "rules": [{"content": "deadly", "fail": "dead"}]}
    )
    spec = ScriptedSpec(script, max_num_seqs=8)
    cascades = job_cascades(job, [load_policy(ROOT / "policies/spam")])
    contents = ["deadly" if row == 25 else f"row {row}" for row in range(200)]
    tables = [
        prepared(
            pa.table({POSITION: range(i, i + 10)}),
            texts(pa.chunked_array([contents[i : i + 10]])),
            job,
            cascades,
            cascades[0].last.safeguard.vocab,
        )
        for i in range(0, 200, 10)
    ]

    async def work() -> tuple[list[str], int]:
        host, begun, most = EngineHost(spec), 0, 0

        async def unit(table: pa.Table) -> pa.Table:
            nonlocal begun, most
            async with host.admitted(questions(cascades, table)) as answered:
                begun += 1
                most = max(most, begun)
                judged = await judge_unit(host, cascades, table, 0, answered)
                begun -= 1
                return judged

        async with asyncio.timeout(60):
            actual = await asyncio.gather(*[unit(table) for table in tables])
        return [
            verdict["status"] for table in actual for verdict in table.column("spam").to_pylist()
        ], most

    statuses, most = asyncio.run(work())
    assert statuses == ["engine_error" if row == 25 else "ok" for row in range(200)]
    assert 2 <= most < 20  # not all at once


ANSWER = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}


def judged(
    contents: list[str],
    rules: list[dict[str, Any]],
    default: dict[str, Any] = ANSWER,
    seqs: int = 64,
    unit: int = 200,
    spec: type[ScriptedSpec] = ScriptedSpec,
) -> tuple[list[str], int]:
    """Statuses of `contents` under a policy, all units in flight at once, and how often the engine
    was built again.
    """
    job = Job.model_validate(
        {
            "input": {"path": "", "content": "text"},
            "output": {"path": ""},
            "policies": ["spam"],
            "limits": {"request_s": 60},
        }
    )
    hosted = spec(
        Script.model_validate({"default": default, "rules": rules, "delay": {"mean_s": 0.002}}),
        max_num_seqs=seqs,
    )
    cascades = job_cascades(job, [load_policy(ROOT / "policies/spam")])
    vocab = vocabulary(hosted.vocabulary_source)

    async def run() -> tuple[list[str], int]:
        host = EngineHost(hosted)
        tables = [
            prepared(
                pa.table({POSITION: range(i, i + len(part))}),
                texts(pa.chunked_array([part])),
                job,
                cascades,
                vocab,
            )
            for i in range(0, len(contents), unit)
            for part in [contents[i : i + unit]]
        ]
        actual = await asyncio.gather(*[judge_unit(host, cascades, table, 0) for table in tables])
        return [
            verdict["status"] for table in actual for verdict in table.column("spam").to_pylist()
        ], host.restarts

    return asyncio.run(run())


def test_three_poison_rows_in_three_thousand_are_found_and_all_others_judged() -> None:
    contents = [f"poison {i}" if i in (7, 1500, 2999) else f"row {i}" for i in range(3000)]
    statuses, restarts = judged(contents, [{"content": "poison", "fail": "dead"}], seqs=256)
    assert [i for i, status in enumerate(statuses) if status != "ok"] == [7, 1500, 2999]
    assert {statuses[7], statuses[1500], statuses[2999]} == {"engine_error"}
    assert 3 <= restarts <= 9


@given(
    rows=st.integers(1, 60),
    poison=st.sets(st.integers(0, 59), max_size=3),
    seqs=st.sampled_from([1, 4, 64]),
    unit=st.sampled_from([1, 7, 100]),
)
@settings(max_examples=25, deadline=None)
def test_whatever_the_order_only_poison_fails_and_each_costs_three_restarts_at_most(
    rows: int, poison: set[int], seqs: int, unit: int
) -> None:
    statuses, restarts = judged(
        [f"{'poison' if i in poison else 'row'} {i}" for i in range(rows)],
        [{"content": "poison", "fail": "dead"}],
        seqs=seqs,
        unit=unit,
    )
    wrong = {i for i in poison if i < rows}
    assert [status == "engine_error" for status in statuses] == [i in wrong for i in range(rows)]
    assert set(statuses) <= {"ok", "engine_error"}
    assert restarts <= 3 * len(wrong)


def test_an_engine_that_always_dies_is_given_up() -> None:
    with pytest.raises(EngineDeadError, match="10 times in a row"):
        judged([f"row {i}" for i in range(50)], [], {"fail": "dead"})


def test_engine_that_cannot_be_built_at_once_after_a_death_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moderay.engines.host.PAUSE_S", 0.01)
    builds = []

    @dataclass(frozen=True)
    class Occupied(ScriptedSpec):
        async def build(self) -> ScriptedEngine:
            builds.append(1)
            if len(builds) in (2, 3):
                raise UserError("no memory left on the GPU")
            return await super().build()

    statuses, _ = judged(
        [f"row {i}" for i in range(20)], [{"content": "row 7$", "fail": "dead"}], spec=Occupied
    )
    assert statuses == ["engine_error" if i == 7 else "ok" for i in range(20)]
