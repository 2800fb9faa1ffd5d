from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderay.config.job_file import load_job
from moderay.engines.from_job import engine_spec
from moderay.judges.build import cascades
from moderay.judges.reason import Reason
from moderay.labels.manifest_record import Manifest
from moderay.pipeline.estimate import (
    Cost,
    EarlierRuns,
    Forecast,
    JudgeProfile,
    answer_requests,
    answer_tokens,
    earlier_runs,
    engine_cost,
    judge_cost,
    known_rate,
    settled_on_engine,
    settled_share,
)
from moderay.pipeline.sample import SampleCounts

# 100 contents, 10 of them with three windows; 10 were settled before and are audited.
COUNTS = SampleCounts(
    settled={"reused": 5, "rules": 3}, contents=100, audited=10, windows=120, tokens=24_000
)
GLANCE = JudgeProfile("glance", settles=0.75, prefix_tokens=1000, requests=1, output_tokens=1)
REASON = JudgeProfile("reason", settles=1.0, prefix_tokens=1000, requests=2, output_tokens=300)


def test_one_request_costs_prefix_and_windows_of_which_the_prefix_is_cached() -> None:
    assert judge_cost(GLANCE, COUNTS, contents=100) == Cost(
        requests=120, prompt_tokens=120 * 1000 + 24_000, cached_tokens=120_000, output_tokens=120
    )


def test_second_request_repeats_prompt_and_answer_from_the_cache() -> None:
    prompt = 120 * 1000 + 24_000
    answer = 120 * 300
    assert judge_cost(REASON, COUNTS, contents=100) == Cost(
        requests=240,
        prompt_tokens=2 * prompt + answer,
        cached_tokens=120_000 + prompt + answer,
        output_tokens=answer,
    )


def test_each_judge_is_asked_what_the_one_before_leaves_and_the_last_the_audited_too() -> None:
    assert settled_on_engine([GLANCE, REASON], COUNTS) == {"glance": 75, "reason": 25}
    # Of the 10 audited, a quarter is among the 25 already.
    expected = judge_cost(GLANCE, COUNTS, 100) + judge_cost(REASON, COUNTS, 25 + 7.5)
    assert engine_cost([GLANCE, REASON], COUNTS) == expected


def test_judge_alone_is_the_last_and_is_not_asked_twice_for_the_audited() -> None:
    assert engine_cost([REASON], COUNTS) == judge_cost(REASON, COUNTS, 100)
    assert settled_on_engine([REASON], COUNTS) == {"reason": 100}


def test_judge_of_which_nothing_is_known_settles_nothing_and_costs_all() -> None:
    unknown = JudgeProfile("glance", 0.0, 1000, 1, 1)
    assert settled_on_engine([unknown, REASON], COUNTS) == {"reason": 100}
    expected = judge_cost(unknown, COUNTS, 100) + judge_cost(REASON, COUNTS, 100)
    assert engine_cost([unknown, REASON], COUNTS) == expected


def test_nothing_left_costs_nothing() -> None:
    nothing = SampleCounts({}, 0, 0, 0, 0)
    assert engine_cost([GLANCE, REASON], nothing) == Cost()
    assert settled_on_engine([GLANCE, REASON], nothing) == {}


@given(
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.integers(0, 2000),
    st.integers(1, 2),
    st.integers(1, 500),
)
def test_cache_never_holds_more_than_the_prompts(
    contents: int, settles: float, prefix: int, requests: int, output: int
) -> None:
    counts = SampleCounts({}, contents, 0, 2 * contents, 150 * contents)
    first = JudgeProfile("glance", settles, prefix, 1, 1)
    last = JudgeProfile("reason", 1.0, prefix, requests, output)
    cost = engine_cost([first, last], counts)
    assert 0 <= cost.cached_tokens <= cost.prompt_tokens
    assert cost.requests >= 2 * contents
    assert sum(settled_on_engine([first, last], counts).values()) == pytest.approx(contents, abs=1)


def test_cost_of_a_part_is_scaled_to_the_whole() -> None:
    assert Cost(1, 20, 10, 3).scaled(2.5) == Cost(2, 50, 25, 8)
    assert Cost(1, 2, 3, 4) + Cost(10, 20, 30, 40) == Cost(11, 22, 33, 44)


def test_gpu_hours_are_tokens_by_the_rate_or_not_known() -> None:
    def hours(rate: float | None) -> float | None:
        cost = Cost(1, prompt_tokens=7_000_000, cached_tokens=5, output_tokens=200_000)
        return Forecast(1, 1, 1, 1, {}, cost, (), rate).gpu_hours

    assert hours(1000.0) == 2.0 and hours(None) is None


EARLIER = EarlierRuns(
    settled={"spam": {"rules": 50, "glance": 300, "reason": 100}},
    output_tokens={"spam": 25_000},
    tokens_per_s=None,
)
SILENT = EarlierRuns({}, {}, None)
RATED = EarlierRuns({}, {}, 800.0)


def test_shares_and_lengths_come_from_the_first_output_that_knows() -> None:
    assert settled_share("spam", "glance", ["glance", "reason"], [SILENT, EARLIER]) == 0.75
    assert answer_tokens("spam", "reason", [SILENT, EARLIER]) == 250
    assert known_rate([SILENT, EARLIER, RATED]) == 800.0
    for known in (
        settled_share("hate", "glance", ["glance"], [EARLIER]),
        settled_share("spam", "screen", ["screen"], [EARLIER]),
        answer_tokens("hate", "reason", [EARLIER]),
        known_rate([SILENT]),
    ):
        assert known is None


@pytest.mark.parametrize(
    ("ways", "output", "requests"),
    [
        ((), {}, 2),
        (("with the answer",), {}, 1),
        (("by a second request: why", "with the answer"), {}, 2),
        (("with the answer",), {"rationale": "flagged"}, 2),
    ],
)
def test_p_with_the_answer_takes_no_request_of_its_own(
    ways: tuple[str, ...], output: dict[str, str], requests: int, job: Callable[..., Path]
) -> None:
    found, policies = load_job(str(job(output={"path": "out", **output})))
    reason = cascades(found, policies, engine_spec(found, gpus=0))[0][0].last
    assert isinstance(reason, Reason)
    assert answer_requests(reason, [SILENT, EarlierRuns({}, {}, None, ways)]) == requests


def run(number: int, tokens_per_s: dict[str, float], hardware: dict[str, int]) -> dict[str, Any]:
    rates = {name: {"rows_per_s": 1.0, "tokens_per_s": rate} for name, rate in tokens_per_s.items()}
    return {"run": number, "status": "finished", "rates": rates, "hardware": hardware}


def test_manifest_shows_what_judges_settled_and_the_rate_of_the_last_run_that_judged() -> None:
    manifest = Manifest.model_validate(
        {
            "name": "a",
            "complete": True,
            "cascade_key": "",
            "selection": {"content": "text", "where": None, "sample": None},
            "policies": {},
            "judges": {
                "spam": {
                    "rules": {"settled": 5, "share": 0.2},
                    "reason": {"settled": 20, "share": 0.8},
                }
            },
            "counts": {"spam": {"ok": 25, "output_tokens": 4000}},
            "runs": [
                run(0, {"a": 9.0}, {"gpus": 0, "engines": 1}),
                run(1, {"a": 300.0, "b": 500.0}, {"gpus": 4, "engines": 2})
                | {"probability_by": ["with the answer"]},
                run(2, {}, {"gpus": 4, "engines": 2}),
                {"run": 3, "status": "killed"},
            ],
        }
    )
    assert earlier_runs(manifest) == EarlierRuns(
        settled={"spam": {"rules": 5, "reason": 20}},
        output_tokens={"spam": 4000},
        tokens_per_s=200.0,
        probability_by=("with the answer",),
    )
    nothing = manifest.model_copy(update={"judges": {}, "counts": {}, "runs": ()})
    assert earlier_runs(nothing) == SILENT
