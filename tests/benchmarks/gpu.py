"""`make gpu`: what this engine and moderay do on the GPU of this machine, in ten minutes.

A gpt-oss of the 20b's shapes with random weights: nothing is fetched. Each engine is a process of
its own and ends at its deadline; what is left of the time decides what is still begun, the most
important first, and what was not is told. `--model small` is the rehearsal, on a CPU as well.

1. tokens/s over prompts of 2,000 tokens and answers of 100, beside the published figure of an H100;
   bare, A, B and C to P; the lengths of each effort; fewer requests in flight.
2. moderay's job beside the bare engine.
3. vLLM's V1 runner: bare, A, D, and G where this version has it.
4. P of each way beside A's, with `tiny`, on both runners.
5. other limits of the profile.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import speed, workload
from benchmarks.gpu_engine import HEADER, Asked, Found, Started, Trial, read
from benchmarks.machine import Machine, this_machine
from benchmarks.measured import Deadline, measure, module
from benchmarks.p_classes import CLASSES, HAS_NOTING
from benchmarks.records import Case, Figure, Part, Record, figure, ratios, show
from benchmarks.workload import Workload
from moderay.engines.vllm.engine import gpu_here
from moderay.engines.vllm.gpu_profiles import Gpu, profiles

# Tokens/s, in and out, of gpt-oss-20b on one H100 with vLLM, 2,000 tokens in and 100 out.
PUBLISHED = 33_150.0
V1 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}


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
        job_rows=16,
    ),
}


class GpuReport(Record):
    """gpu.json.

    Attributes:
        machine: Where and when.
        model: Whose shapes.
        engines: Those that started, by what they measured.
        parts: The tables.
        passes: Everything that the tables are made of.
        seconds: In all.
    """

    machine: Machine
    model: str
    engines: dict[str, Started]
    parts: tuple[Part, ...]
    passes: tuple[Found, ...]
    seconds: float


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


def stages(folder: Path, model: str, gpus: int, exact: Path) -> list[Stage]:
    """Engines 1, 3, 4 and 5 of the module's list; `exact`: a job of `tiny`."""
    scale = SCALES[model]
    source = str(workload.random_model(folder / model, model))
    length = max(scale.shared + scale.own, scale.published[0])
    length += max(max(scale.efforts.values()), scale.thought) + len(HEADER) + scale.rest

    def engine(trials: Sequence[Trial], **settings: Any) -> Asked:
        return Asked(
            source=source,
            gpus=gpus,
            max_model_len=length,
            settings={"load_format": "dummy", **settings},
            fill="quantization_config" in workload.MODELS[model],
            trials=tuple(trials),
        )

    def tiny(ways: tuple[str, ...], dtype: str, **settings: Any) -> Asked:
        trial = Trial(name="tiny", ways=ways, job=str(exact), temperature=0.0)
        return Asked(
            source="tiny",
            gpus=gpus,
            max_model_len=4096,
            settings={"dtype": dtype, "enforce_eager": True, **settings},
            fill=False,
            trials=(trial,),
        )

    seen = ("bare", "A", "D", *(("G",) if HAS_NOTING else ()))
    ways = _case(scale, "ways to P", seen, rounds=scale.rounds)
    v1 = Stage("ways to P, V1 runner", engine([ways], **CLASSES), V1)
    default = Stage("default engine", engine(list(default_trials(scale))))
    every = ("A", "B", "C", *seen[2:])
    exact32 = Stage("P in float32, V1 runner", tiny(every, "float32", **CLASSES), V1)
    if gpus:  # a CPU has the one runner, and not every attention of a GPU takes float32
        others = [
            Stage("P in bfloat16, V1 runner", tiny(every, "bfloat16", **CLASSES), V1),
            Stage("P in bfloat16, default runner", tiny(("A", "B", "C"), "bfloat16")),
        ]
    else:
        others = []
    first = [default, v1, *others, exact32]
    bare = _case(scale, "bare", ("bare",))
    return first + [
        Stage(f"{tokens} tokens a step", engine([bare], max_num_batched_tokens=tokens))
        for tokens in scale.steps
    ]


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


WAY_COLUMNS = (
    "rows/s",
    "tokens/s",
    "ratio to bare",
    "of published",
    "one request",
    "max |dP|",
    "same text",
)


def table(stage: str, found: Sequence[Found], started: Started | None, wrong: str) -> Part:
    """What one engine did, a line for each trial and way."""
    groups: dict[tuple[str, str], list[Found]] = {}
    for one in found:
        if one.trial != "warm-up":
            groups.setdefault((one.trial, one.way), []).append(one)
    cases = []
    for (trial, way), passes in groups.items():
        figures = {
            "rows/s": figure(one.rows_s for one in passes),
            "tokens/s": figure(one.tokens_s for one in passes),
            "one request": figure(one.one_request for one in passes),
        }
        bare = groups.get((trial, "bare"), [])
        if bare and way != "bare":
            both = min(len(passes), len(bare))
            figures["ratio to bare"] = ratios(
                [one.rows_s for one in passes[:both]], [one.rows_s for one in bare[:both]]
            )
        for column, name in (("max |dP|", "p_differs"), ("same text", "same")):
            values = [value for one in passes if (value := getattr(one, name)) is not None]
            if values:
                figures[column] = Figure(value=max(values) if name == "p_differs" else min(values))
        if trial == "published":
            figures["of published"] = Figure(value=figures["tokens/s"].value / PUBLISHED)
        cases.append(Case(name=f"{trial}, {way}", figures=figures))
    settings: dict[str, float | str] = {}
    if started is not None:
        settings = {"runner": started.runner, "start, s": started.seconds}
        settings |= {name: str(value) for name, value in started.settings.items()}
    notes = []
    if any(one.trial == "published" for one in found):
        notes.append(f"published: {PUBLISHED:,.0f} tokens/s, in and out, of one H100")
    return Part(
        part=f"gpu: {stage}",
        title=stage,
        settings=settings,
        columns=tuple(c for c in WAY_COLUMNS if any(c in case.figures for case in cases)),
        cases=tuple(cases),
        notes=tuple(notes),
        left_out=(wrong,) if wrong else (),
    )


def run_stage(
    stage: Stage, folder: Path, deadline: Deadline
) -> tuple[Part, Started | None, list[Found]]:
    """One engine in a process of its own, until it is done or the time is over."""
    name = stage.name.replace(" ", "-").replace(",", "")
    asked, found = folder / f"{name}.json", folder / f"{name}.jsonl"
    asked.write_text(stage.asked.model_dump_json())
    outcome = measure(module("gpu_engine", asked, found), max(deadline.left, 1), env=stage.env)
    started, passes = read(found)
    wrong = outcome.wrong
    if outcome.hung:
        wrong = f"the rest of it: the time was over after {outcome.seconds:.0f} s"
    return table(stage.name, passes, started, wrong), started, passes


def pipeline(folder: Path, model: str, gpus: int, deadline: Deadline) -> Part:
    """moderay's job beside the bare engine, one round."""
    scale = SCALES[model]
    load = Workload(
        rows=scale.job_rows,
        policy_tokens=max(300, scale.shared),
        content_tokens=scale.own,
        model=model,
        budget=scale.thought,
    )
    job = workload.write(folder / "job", load)
    contenders = {speed.OURS: speed.ours(), speed.BARE: speed.bare("async", gpus)}
    terms = speed.Terms(rounds=1, threads=None, hung_s=max(deadline.left, 1))
    measured, _ = speed.contest(job, contenders, terms, deadline)
    return Part(
        part="gpu: pipeline",
        title="moderay beside the bare engine",
        settings={"rows": load.rows, "model": model},
        columns=speed.COLUMNS,
        cases=tuple(speed.case(name, outcomes, measured) for name, outcomes in measured.items()),
        notes=(
            "random weights: no answer parses, so that moderay opens the final channel of each",
        ),
    )


def profile(gpu: Gpu) -> Part:
    """The numbers that the engines were started with, and where each comes from."""
    chosen = profiles().of(gpu)
    settings = chosen.settings("20b")
    cases = [
        Case(name=name, figures={"value": Figure(value=value)}, note=settings.source(name))
        for name, value in settings.model_dump(exclude={"measured"}, exclude_none=True).items()
    ]
    title = f"Profile {chosen.gpu}, for 20b"
    return Part(part="gpu: profile", title=title, columns=("value",), cases=tuple(cases))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(SCALES), default="20b")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    deadline = Deadline(60 * options.minutes)
    gpu = gpu_here()
    if gpu is None and options.model != "small":
        parser.error(
            "this machine has no GPU that vLLM can use: --model small rehearses on its CPU"
        )
    machine = this_machine(*((gpu.name, gpu.memory / 2**30) if gpu else ()))
    report = GpuReport(
        machine=machine,
        model=options.model,
        engines={},
        parts=(profile(gpu),) if gpu else (),
        passes=(),
        seconds=0,
    )
    with tempfile.TemporaryDirectory(prefix="moderay-gpu-") as name:
        folder = Path(name)
        exact = workload.write(folder / "exact", Workload(rows=SCALES[options.model].job_rows))
        first, *others = stages(folder, options.model, int(gpu is not None), exact)
        for what in (first, None, *others):
            report = _with(report, what, folder, options.model, int(gpu is not None), deadline)
            options.out.write_text(report.model_dump_json(indent=1) + "\n")
    print(f"{options.out}: {report.seconds:.0f} s, {len(report.passes)} passes")


def _with(
    report: GpuReport, stage: Stage | None, folder: Path, model: str, gpus: int, deadline: Deadline
) -> GpuReport:
    """The report with one table more; `stage` None: moderay's job."""
    if stage is None:
        part, started, found = pipeline(folder, model, gpus, deadline), None, list[Found]()
    else:
        part, started, found = run_stage(stage, folder, deadline)
    show(part)
    engines = {} if started is None or stage is None else {stage.name: started}
    return report.model_copy(
        update={
            "engines": {**report.engines, **engines},
            "parts": (*report.parts, part),
            "passes": (*report.passes, *found),
            "seconds": deadline.spent,
        }
    )


if __name__ == "__main__":
    main()
