"""`make bench-full`: every part of the benchmarks of speed, into BENCHMARKS.md, .json and .svg.

Each part is a module that stops at its deadline with what it has, and is ended a while later if it
does not. What a part does not use of its time is the later ones'. `--size 0.1` takes a tenth of the
rows, `--only speed shapes` some parts; those that are not run stay as they were. `--again` measures
side by side once more, for the headline figures of a second run beside those of the first.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Machine, this_machine
from benchmarks.measured import Deadline, end_below, environment, module
from benchmarks.records import Part, Record, markdown
from moderay.engines.vllm.engine import gpu_here

HERE = Path(__file__).parent
# Seconds that a part gets beyond its own deadline, before it is ended.
GRACE = 60


@dataclass(frozen=True)
class Task:
    """A part that is run.

    Attributes:
        name: As `--only` takes it.
        module: Of the benchmarks; it takes `speed.add_options`.
        share: Of the time, beside the others'.
        more: Further arguments.
    """

    name: str
    module: str
    share: float
    more: tuple[str, ...] = ()

    def command(self, size: float, seconds: float, file: Path) -> list[str]:
        """With a share of the usual rows and so many seconds, the figures into a file."""
        usual = ("--size", size, "--seconds", f"{seconds:.0f}", "--json", file)
        return module(self.module, *usual, *self.more)


TASKS = (
    Task("speed", "speed", 24, ("--peers", "--rounds", "5")),
    Task("turn", "in_turn", 8),
    Task("broken", "peers", 5, ("--hung", "120")),
    Task("shapes", "shapes", 10),
    Task("plumbing", "plumbing", 3),
    Task("cascade", "cascade", 8),
    Task("start", "start", 4),
    Task("scale", "scale", 4, ("--units", "0")),
    Task("recovery", "recovery", 4),
)


class Report(Record):
    """BENCHMARKS.json.

    Attributes:
        machine: Where and when the last part was measured.
        minutes: That were allowed for all parts.
        size: Share of the usual rows in all parts.
        parts: In the order of `TASKS`.
        again: Side by side, measured once more.
    """

    machine: Machine
    minutes: float
    size: float
    parts: tuple[Part, ...] = ()
    again: Part | None = None


def run_task(task: Task, size: float, seconds: float, folder: Path) -> Part:
    """One part, which is ended if it is not through a while after its time."""
    file = folder / f"{task.name}.json"
    if not (HERE / f"{task.module}.py").is_file():
        return nothing(task, "this version has no such part")
    print(f"== {task.name}: at most {seconds:.0f} s", flush=True)
    began = Deadline(seconds)
    child = subprocess.Popen(task.command(size, seconds, file), env=environment())
    try:
        child.wait(seconds + GRACE)
    except subprocess.TimeoutExpired:
        end_below(child.pid)
        child.wait()
        return nothing(task, f"ended after {began.spent:.0f} s without a result")
    if not file.is_file():
        return nothing(task, f"ended with status {child.returncode} and no result")
    return Part.model_validate_json(file.read_text())


def nothing(task: Task, why: str) -> Part:
    """A part without figures."""
    return Part(part=task.name, title=task.name, columns=(), cases=(), left_out=(why,))


def text_of(report: Report) -> str:
    """BENCHMARKS.md."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench-full`; how to read the figures: [README](README.md). They are in "
        "[BENCHMARKS.json](BENCHMARKS.json) as well.",
        "",
        *[f"- {line}" for line in report.machine.lines],
        f"- at most {report.minutes:g} minutes, {report.size:g} times the usual rows",
        "",
        "![Side by side, other shapes, larger corpora](BENCHMARKS.svg)",
        "",
    ]
    parts = [*report.parts, *([report.again] if report.again else [])]
    return "\n".join(lines) + "\n" + "\n".join(markdown(part) for part in parts)


def plot(report: Report, file: Path) -> None:
    """A panel for each of three parts: rows/s with their spread, ratios, and growth."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    panels = (("speed", "rows/s"), ("shapes", "ratio to bare"), ("scale", "seconds"))
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.6), layout="constrained")
    for axis, (name, column) in zip(axes, panels, strict=True):
        part = next((part for part in report.parts if part.part == name), None)
        cases = [case for case in part.cases if column in case.figures] if part else []
        values = [case.figures[column] for case in cases]
        below = [one.value - min(one.rounds, default=one.value) for one in values]
        above = [max(one.rounds, default=one.value) - one.value for one in values]
        places = range(len(cases))
        axis.barh(places, [one.value for one in values], xerr=[below, above], capsize=3)
        axis.set_yticks(places, [case.name for case in cases], fontsize=7)
        axis.invert_yaxis()
        axis.set_xlabel(column)
        if name == "shapes":
            axis.axvline(1.0, color="black", linewidth=0.8)
        if name == "scale" and values:
            axis.set_xscale("log")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def write(report: Report, out: Path) -> None:
    """All three files."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "BENCHMARKS.json").write_text(report.model_dump_json(indent=1) + "\n")
    (out / "BENCHMARKS.md").write_text(text_of(report))
    plot(report, out / "BENCHMARKS.svg")


def with_part(report: Report, part: Part) -> Report:
    """The report with this part instead of an earlier one, in the order of the tasks."""
    kept = {one.part: one for one in report.parts} | {part.part: part}
    order = [task.name for task in TASKS]
    parts = sorted(kept.values(), key=lambda one: order.index(one.part))
    return report.model_copy(update={"parts": tuple(parts)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--size", type=float, default=1.0, help="share of the usual rows")
    parser.add_argument("--only", nargs="*", choices=[task.name for task in TASKS])
    parser.add_argument("--again", action="store_true", help="side by side, once more")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    gpu = gpu_here()
    machine = this_machine(*((gpu.name, gpu.memory / 2**30) if gpu else ()))
    report = Report(machine=machine, minutes=options.minutes, size=options.size)
    earlier = options.out / "BENCHMARKS.json"
    if (options.only or options.again) and earlier.is_file():
        before = Report.model_validate_json(earlier.read_text())
        kept = {name: getattr(before, name) for name in ("minutes", "size", "parts", "again")}
        report = report.model_copy(update=kept)
    wanted = ["speed"] if options.again else options.only
    tasks = [task for task in TASKS if not wanted or task.name in wanted]
    deadline = Deadline(60 * options.minutes - GRACE)
    with tempfile.TemporaryDirectory(prefix="moderay-full-") as name:
        while tasks:
            task, share = tasks[0], tasks[0].share / sum(task.share for task in tasks)
            tasks = tasks[1:]
            part = run_task(task, options.size, max(1, deadline.left * share), Path(name))
            part = part.model_copy(update={"part": task.name})
            if options.again:
                again = part.model_copy(update={"title": f"{part.title}, once more"})
                report = report.model_copy(update={"again": again})
            else:
                report = with_part(report, part)
            write(report, options.out)
    print(f"{options.out / 'BENCHMARKS.md'}: {deadline.spent / 60:.0f} minutes")


if __name__ == "__main__":
    main()
