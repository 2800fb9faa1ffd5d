"""The ways to P and what `make gpu` reports, without an engine; and the rehearsal with one."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks import gpu, gpu_engine, p_ways
from benchmarks.gpu_engine import HEADER, Found, Started, Trial
from benchmarks.gpu_plan import SCALES, Plan
from benchmarks.p_ways import Answered, Prompt, Ways
from support.project import environment

from moderay.engines.harmony.vocabulary import (
    CHANNEL,
    END,
    MESSAGE,
    START,
    vocabulary,
)

LABELS = [7, 9]
# What the model below says: a thought of 3, an opened final channel, the label, and an end.
OUTPUT = [1, 2, 3, *HEADER, 9, 4]
PLACE = 3 + len(HEADER)


def place(tokens: list[int]) -> int | None:
    return PLACE if len(tokens) > PLACE else None


PROMPT = Prompt([100, 101], LABELS, HEADER, None, 8, place, 64)
FIXED = Prompt([100, 101], LABELS, HEADER, 3, 2, place)


class Model:
    """Stands for an `AsyncLLM`: it always says the same, and P of the second label is 3/4."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], Any]] = []

    async def reset_prefix_cache(self) -> None:
        """It has none."""

    async def generate(
        self, prompt: dict[str, list[int]], params: Any, _: str
    ) -> AsyncIterator[Any]:
        ids = prompt["prompt_token_ids"]
        self.asked.append((ids, params))
        said = OUTPUT[len(ids) - len(PROMPT.ids) :][: params.max_tokens]
        ends = [place for place, token in enumerate(said) if token in params.stop_token_ids]
        said = said[: ends[0] + 1] if ends else said
        steps = None
        if params.logprob_token_ids:
            step = {
                label: SimpleNamespace(logprob=math.log(p))
                for label, p in zip(LABELS, (0.25, 0.75), strict=True)
            }
            steps = [step] * len(said)
            if params.extra_args and p_ways.AFTER in params.extra_args:
                after = params.extra_args[p_ways.AFTER]
                steps = [step] if said[PLACE - len(after) : PLACE] == after else []
        out = SimpleNamespace(token_ids=said, logprobs=steps)
        yield SimpleNamespace(outputs=[out], kv_transfer_params=None)


def answered(way: str, prompt: Prompt, after: list[int]) -> tuple[Answered, Model]:
    model = Model()
    return asyncio.run(Ways(model, stop=[4]).answer(way, prompt, 0, after)), model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "requests"), [("A", 2), ("B", 1), ("C", 2), ("D", 1)], ids=["A", "B", "C", "D"]
)
@pytest.mark.parametrize("prompt", [PROMPT, FIXED], ids=["own answer", "set lengths"])
def test_every_way_gives_the_same_p_and_text(way: str, requests: int, prompt: Prompt) -> None:
    answer, model = answered(way, prompt, HEADER[-2:])
    assert answer.p == pytest.approx([0.25, 0.75])
    assert answer.tokens == OUTPUT and answer.requests == requests == len(model.asked)


def test_bare_engine_is_asked_once_and_for_no_p() -> None:
    answer, model = answered("bare", FIXED, [])
    [(_, params)] = model.asked
    assert answer.p is None and params.logprob_token_ids is None and params.ignore_eos


def test_way_that_watches_for_what_never_comes_asks_a_second_time() -> None:
    answer, model = answered("D", PROMPT, [55])
    assert answer.p == pytest.approx([0.25, 0.75]) and answer.requests == 2
    assert model.asked[1][0] == [*PROMPT.ids, *OUTPUT[:PLACE]]


def test_what_stands_before_a_label_is_learnt_and_an_output_without_one_has_nothing() -> None:
    outputs = [Answered(OUTPUT), Answered(OUTPUT[:3])]
    assert p_ways.before_labels([PROMPT, PROMPT], outputs, 2) == [HEADER[-2:], [-1]]


def test_furthest_p_counts_only_where_the_text_is_the_same() -> None:
    one = [Answered([1], [0.4, 0.6]), Answered([2], [0.0, 1.0])]
    other = [Answered([1], [0.5, 0.5]), Answered([3], [1.0, 0.0])]
    assert p_ways.furthest(one, other) == (pytest.approx(0.1), 0.5)
    assert math.isnan(p_ways.furthest(one[1:], other[1:])[0])


def test_scheduler_of_way_d_hands_on_the_labels_step_alone() -> None:
    from benchmarks import p_classes  # late: vLLM takes seconds, and each process collects all

    def request(output: list[int], after: list[int] | None) -> Any:
        args = None if after is None else {p_ways.AFTER: after}
        return SimpleNamespace(
            sampling_params=SimpleNamespace(extra_args=args), output_token_ids=output
        )

    requests = {
        "due": request([5, 6], [5, 6]),
        "not yet": request([5], [5, 6]),
        "scored as usual": request([1], None),
    }
    lists = SimpleNamespace(slice_request=lambda index, count: (index, count))
    places = {name: index for index, name in enumerate([*requests, "gone"])}
    output = SimpleNamespace(logprobs=lists, req_id_to_index=places)
    kept = p_classes.with_label_steps_only(requests, output).logprobs
    given = {name: kept.slice_request(index, 1) for name, index in places.items()}
    assert given == {
        "due": (0, 1),
        "not yet": None,
        "scored as usual": (2, 1),
        "gone": (3, 1),
    }


def test_random_experts_are_filled_and_nothing_else_is() -> None:
    import torch
    from benchmarks import p_classes

    experts = torch.nn.Module()
    for name, kind in (("w13_weight", torch.uint8), ("w13_weight_scale", torch.uint8)):
        filled = torch.nn.Parameter(torch.zeros(64, dtype=kind), requires_grad=False)
        experts.register_parameter(name, filled)
    experts.register_parameter("norm", torch.nn.Parameter(torch.ones(4)))
    extension = p_classes.RandomExperts()
    extension.model_runner = SimpleNamespace(model=experts)
    assert extension.fill_experts() == 128
    assert len(experts.w13_weight.unique()) > 8
    assert experts.w13_weight_scale.unique().tolist() == [p_classes.SCALE]
    assert experts.norm.tolist() == [1, 1, 1, 1]


def test_header_of_random_prompts_is_harmonys_own() -> None:
    vocab = vocabulary()
    control = vocab.control
    assert [
        control[END],
        control[START],
        *vocab.encode("assistant"),
        control[CHANNEL],
        *vocab.encode("final"),
        control[MESSAGE],
    ] == HEADER


def test_random_prompts_share_what_they_should_and_have_no_control_tokens() -> None:
    trial = Trial(name="x", ways=("bare",), rows=3, shared=5, own=4, thought=2, rest=3)
    small = gpu_engine.random_prompts(trial, 1024, seed=0)
    assert all(0 <= max([*prompt.ids, *prompt.header]) < 1024 for prompt in small)
    prompts = gpu_engine.random_prompts(trial, 201_088, seed=0)
    assert len({tuple(prompt.ids[:5]) for prompt in prompts}) == 1
    assert len({tuple(prompt.ids) for prompt in prompts}) == 3
    assert all(max(prompt.ids) < 199_998 for prompt in prompts)
    assert {prompt.max_tokens for prompt in prompts} == {2 + len(HEADER) + 3}


def test_report_sets_tokens_beside_the_published_figure_and_says_what_is_missing() -> None:
    def found(trial: str, way: str, seconds: float, **more: Any) -> Found:
        counts = {"rows": 10, "prompt_tokens": 2000, "output_tokens": 100, "one_request": 1.0}
        return Found(trial=trial, way=way, round=0, seconds=seconds, **{**counts, **more})

    passes = [
        found("warm-up", "bare", 9),
        found("published", "bare", 0.1),
        found("ways to P", "bare", 1),
        found("ways to P", "A", 2, one_request=0.0),
        found("ways to P", "B", 4, p_differs=1e-7, same=0.5),
    ]
    started = Started(seconds=60, runner="V2", settings={"max_num_seqs": 1024})
    part = gpu.table("default engine", passes, started, "the rest of it: the time was over")
    lines = {case.name: case.figures for case in part.cases}
    assert list(lines) == ["published, bare", "ways to P, bare", "ways to P, A", "ways to P, B"]
    assert lines["published, bare"]["tokens/s"].value == 21_000
    assert lines["published, bare"]["of published"].value == 21_000 / gpu.PUBLISHED
    assert lines["ways to P, B"]["ratio to bare"].value == 0.25
    assert lines["ways to P, B"]["max |dP|"].value == 1e-7
    assert part.settings["max_num_seqs"] == "1024"
    assert part.left_out == ("the rest of it: the time was over",)


def test_stages_stay_within_the_models_lengths(tmp_path: Path) -> None:
    for model in SCALES:
        plan = Plan(tmp_path / model, model, tmp_path / "job.yaml")
        for stage in (*plan.on_gpu(), *plan.rehearsal()):
            for trial in stage.asked.trials:
                if trial.job is None:
                    out = trial.thought + len(HEADER) + trial.rest
                    assert trial.shared + trial.own + out <= stage.asked.max_model_len
                    assert trial.rows and trial.thought >= 0
    assert SCALES["20b"].published == (2000, 100)


def test_rehearsal_asks_in_every_way_that_a_gpu_is_asked_in(tmp_path: Path) -> None:
    plan = Plan(tmp_path, "small", tmp_path / "job.yaml")
    gpu_ways, cpu_ways = (
        {way for stage in stages for trial in stage.asked.trials for way in trial.ways}
        for stages in (plan.on_gpu(), plan.rehearsal())
    )
    assert gpu_ways == cpu_ways >= {"bare", "A", "B", "C", "D"}


@pytest.mark.long
def test_gpu_benchmark_rehearsed_on_the_cpu_reports_every_way(tmp_path: Path) -> None:
    """Small shapes of the same model; the rest of the script is what a GPU runs."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--model", "small", "--out", str(out)]
    subprocess.run(command, check=True, env=environment(), timeout=590)
    report = gpu.GpuReport.model_validate_json(out.read_text())
    assert [part.left_out for part in report.parts] == [()] * len(report.parts)
    ways = {(one.trial, one.way) for one in report.passes}
    assert {("ways to P", way) for way in ("bare", "A", "B", "C")} <= ways
    assert {("ways that watch", way) for way in ("bare", "A", "D")} <= ways
    exact = {one.way: one for one in report.passes if one.trial == "tiny"}
    for way in exact.keys() - {"A"}:
        # C gives the header that the others generate: where these write another, texts differ.
        assert exact[way].same is not None and exact[way].same > 0.9
        assert exact[way].p_differs is not None and exact[way].p_differs < 1e-5
    assert exact["B"].one_request == exact["D"].one_request == 1
    [pipeline] = [part for part in report.parts if part.part == "gpu: pipeline"]
    assert all("rows/s" in case.figures for case in pipeline.cases)
