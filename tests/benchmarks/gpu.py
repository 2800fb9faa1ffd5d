"""`make gpu`: what this engine and moderay do on the GPU of this machine, in ten minutes.

A gpt-oss of the 20b's shapes with random weights: nothing is fetched. Each engine is a process of
its own and ends at its deadline; what is left of the time decides what is still begun, the most
important first, and what was not is told. `--model small` is the rehearsal, on a CPU as well.

1. tokens/s over prompts of 2,000 tokens and answers of 100, beside the published figure of an H100;
   bare, A, B and C to P; the lengths of each effort; fewer requests in flight.
2. moderay's job beside the bare engine.
3. vLLM's V1 runner: bare, A, D and G.
4. P of each way beside A's, with `tiny`, on both runners.
5. other limits of the profile.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import speed, workload
from benchmarks.gpu_engine import Found, Started, read
from benchmarks.gpu_plan import SCALES, Plan, Stage
from benchmarks.machine import Machine, this_machine
from benchmarks.measured import Deadline, measure, module
from benchmarks.records import Case, Figure, Part, Record, figure, ratios, show
from benchmarks.workload import Workload
from moderay.engines.vllm.engine import gpu_here
from moderay.engines.vllm.gpu_profiles import Gpu, profiles

# Tokens/s, in and out, of gpt-oss-20b on one H100 with vLLM, 2,000 tokens in and 100 out.
PUBLISHED = 33_150.0
# The policy that asks for the label and nothing else, by its place in `workload.POLICIES`.
LABEL_ALONE = 2


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
        policy_tokens=scale.shared,
        first=LABEL_ALONE,
        content_tokens=scale.own,
        model=model,
        budget=scale.thought,
    )
    job = workload.write(folder / "job", load)
    contenders = {speed.OURS: speed.ours()}
    if gpus:  # an engine of its own is no news where it is rehearsed, and takes long to start
        contenders[speed.BARE] = speed.bare("async", gpus)
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
        exact = workload.write(
            folder / "exact", Workload(rows=SCALES[options.model].job_rows, first=LABEL_ALONE)
        )
        plan = Plan(folder, options.model, exact)
        first, *others = plan.on_gpu() if gpu else plan.rehearsal()
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
