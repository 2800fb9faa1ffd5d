"""What `make gpu` asks of which engine: the 20b's shapes on a GPU, `tiny` where it is rehearsed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import workload
from benchmarks.gpu_engine import HEADER, Asked, Trial
from benchmarks.p_ways import CLASSES

V1 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
# To P, beside the bare engine.
EVERY = ("A", "B", "C", "D", "G")


@dataclass(frozen=True)
class Scale:
    """How much is asked.

    Attributes:
        rows: Prompts of each pass.
        published: Tokens in and out of the published figure.
        shared: Tokens of the policy.
        own: Tokens of each content.
        thought: Tokens of the analysis.
        rest: Tokens of the answer.
        efforts: Tokens of the analysis that are taken for each effort: random weights think as long
            as they are let.
        at_once: Requests in flight, beside twice the batch.
        steps: Values of max_num_batched_tokens that are tried beside the profile's.
        rounds: Of the ways to P.
        job_rows: Of moderay's job, and of the check of P.
    """

    rows: int
    published: tuple[int, int]
    shared: int
    own: int
    thought: int
    rest: int
    efforts: Mapping[str, int]
    at_once: tuple[int, ...]
    steps: tuple[int, ...]
    rounds: int
    job_rows: int


SCALES = {
    "20b": Scale(
        rows=768,
        published=(2000, 100),
        shared=600,
        own=400,
        thought=40,
        rest=40,
        efforts={"low": 40, "medium": 200, "high": 800},
        at_once=(128, 256, 512),
        steps=(4096, 8192, 32768),
        rounds=2,
        job_rows=768,
    ),
    "small": Scale(
        rows=12,
        published=(60, 8),
        shared=64,
        own=16,
        thought=4,
        rest=4,
        efforts={"low": 2, "high": 8},
        at_once=(4,),
        steps=(),
        rounds=1,
        job_rows=6,
    ),
}


@dataclass(frozen=True)
class Stage:
    """One engine and what it is asked.

    Attributes:
        name: Of the table.
        asked: The engine and its trials.
        env: Of its process.
    """

    name: str
    asked: Asked
    env: Mapping[str, str] = field(default_factory=dict)


class Plan:
    """The engines of `make gpu`, and what each is asked."""

    def __init__(self, folder: Path, model: str, exact: Path) -> None:
        """`folder`: where the model's config is put; `exact`: a job of `tiny`."""
        self._scale, self._exact = SCALES[model], exact
        self._source = str(workload.random_model(folder / model, model))
        self._fill = "quantization_config" in workload.MODELS[model]

    def rehearsal(self) -> list[Stage]:
        """Everything on one engine of `tiny`: a CPU has one runner, and a start takes long."""
        trials = (*default_trials(self._scale), self._watching(), self._checked(EVERY))
        settings = {"dtype": "float32", **CLASSES}
        return [Stage("default engine", self._asked("tiny", 0, 4096, settings, trials, fill=True))]

    def on_gpu(self) -> list[Stage]:
        """The most important first."""
        return [
            Stage("default engine", self._random(default_trials(self._scale))),
            Stage("ways to P, V1 runner", self._random([self._watching()], **CLASSES), V1),
            Stage("P in bfloat16, V1 runner", self._tiny(EVERY, "bfloat16", **CLASSES), V1),
            Stage("P in bfloat16, default runner", self._tiny(("A", "B", "C"), "bfloat16")),
            *self._other_steps(),
            # Not every attention of a GPU takes it.
            Stage("P in float32, V1 runner", self._tiny(EVERY, "float32", **CLASSES), V1),
        ]

    def _other_steps(self) -> Iterator[Stage]:
        for tokens in self._scale.steps:
            trials = [_case(self._scale, "bare", ("bare",))]
            asked = self._random(trials, max_num_batched_tokens=tokens)
            yield Stage(f"{tokens} tokens a step", asked)

    def _watching(self) -> Trial:
        """The ways that need classes of their own in the engine, beside A."""
        ways = tuple(way for way in ("bare", "A", *EVERY) if way not in "BC")
        ways = tuple(dict.fromkeys(ways))
        return _case(self._scale, "ways that watch", ways, rounds=self._scale.rounds)

    def _checked(self, ways: tuple[str, ...]) -> Trial:
        return Trial(name="tiny", ways=ways, job=str(self._exact), temperature=0.0)

    def _random(self, trials: Iterable[Trial], **settings: Any) -> Asked:
        scale = self._scale
        length = max(scale.shared + scale.own, scale.published[0])
        length += max(max(scale.efforts.values()), scale.thought) + len(HEADER) + scale.rest
        settings = {"load_format": "dummy", **settings}
        return self._asked(self._source, 1, length, settings, tuple(trials), self._fill)

    def _tiny(self, ways: tuple[str, ...], dtype: str, **settings: Any) -> Asked:
        settings = {"dtype": dtype, "enforce_eager": True, **settings}
        return self._asked("tiny", 1, 4096, settings, (self._checked(ways),), fill=False)

    def _asked(
        self,
        source: str,
        gpus: int,
        length: int,
        settings: dict[str, Any],
        trials: tuple[Trial, ...],
        fill: bool,
    ) -> Asked:
        return Asked(
            source=source,
            gpus=gpus,
            max_model_len=length,
            settings=settings,
            fill=fill,
            trials=trials,
        )


def default_trials(scale: Scale) -> Iterator[Trial]:
    """On the engine as the profile has it; the first pass warms it up and counts nowhere."""
    yield _case(scale, "warm-up", ("bare",), rows=max(8, scale.rows // 8))
    into, out = scale.published
    yield Trial(
        name="published",
        ways=("bare",),
        rows=scale.rows,
        own=into,
        thought=out - len(HEADER),
        seeded=False,
    )
    yield _case(scale, "ways to P", ("bare", "A", "B", "C"), rounds=scale.rounds)
    for effort, tokens in scale.efforts.items():
        yield _case(scale, f"effort {effort}", ("bare",), thought=tokens)
    for at_once in scale.at_once:
        yield _case(scale, f"{at_once} at once", ("bare",), at_once=at_once)


def _case(scale: Scale, name: str, ways: tuple[str, ...], **other: Any) -> Trial:
    shape = {
        "rows": scale.rows,
        "shared": scale.shared,
        "own": scale.own,
        "thought": scale.thought,
        "rest": scale.rest,
    }
    return Trial(name=name, ways=ways, **{**shape, **other})
