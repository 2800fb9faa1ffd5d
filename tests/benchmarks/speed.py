"""`make bench`: rows/s of the pipeline beside a bare `AsyncLLM` over the same rows.

The same prompts, engine arguments, threads and temperature 0, in rounds whose order alternates,
each measurement in a process of its own. The bare engine runs twice: with the one request that
reasons and answers, and with a second, scored one for P, which the pipeline gives for every row.
Rows/s are those of the steady state, from 20% to 80% of the rows; CPU is that of the processes
concerned in the same time. With `--peers`, as in `make bench-full`, others stand beside them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import peers, workload
from benchmarks.measured import Deadline, Outcome, measure, module
from benchmarks.records import Case, Figure, Part, figure, finish, number, ratios
from benchmarks.workload import Workload

BARE, BARE_P, OURS, FLAGGED = "AsyncLLM", "AsyncLLM with P", "moderay", "moderay, flagged"
COLUMNS = (
    "rows/s",
    "ratio to bare",
    "to bare with P",
    "tokens out",
    "engine ms",
    "other ms",
    "threads",
)
# From a job and the number of the round to the command that measures.
Contender = Callable[[Path, int], Sequence[str]]


@dataclass(frozen=True)
class Terms:
    """What is the same for all who take part.

    Attributes:
        rounds: Each measures everyone once.
        threads: Of every engine; None: as the machine and Ray have it.
        hung_s: A measurement is ended after so many seconds.
    """

    rounds: int
    threads: int | None
    hung_s: float


Measured = Mapping[str, list[Outcome]]


def ours(rationale: str = "all") -> Contender:
    """The pipeline, into an output of its own each time."""

    def command(job: Path, number: int) -> Sequence[str]:
        name = f"out-{rationale}-{number}"
        return module("ours", workload.output(job, name, rationale))

    return command


def bare(way: str, gpus: int = 0) -> Contender:
    return lambda job, _: module("bare", way, job, "--gpus", gpus)


def own() -> dict[str, Contender]:
    """Those of `make bench`."""
    return {OURS: ours(), FLAGGED: ours("flagged"), BARE: bare("async"), BARE_P: bare("p")}


def contest(
    job: Path, contenders: Mapping[str, Contender], terms: Terms, deadline: Deadline
) -> tuple[dict[str, list[Outcome]], int]:
    """Everyone in each round, in alternating order, and how many rounds were begun in time.

    Who hung once is not waited for again. A round is begun where there is time for another like the
    longest so far.
    """
    measured: dict[str, list[Outcome]] = {name: [] for name in contenders}
    longest, begun = 0.0, 0
    for round_ in range(terms.rounds):
        if not deadline.allows(longest):
            break
        begun += 1
        before = deadline.spent
        names = list(contenders) if round_ % 2 == 0 else list(contenders)[::-1]
        for name in names:
            if deadline.left <= 0 or any(outcome.hung for outcome in measured[name]):
                continue
            left = min(terms.hung_s, max(deadline.left, 1))
            outcome = measure(contenders[name](job, round_), left, terms.threads)
            if outcome.hung and deadline.left <= 0:
                outcome = replace(outcome, hung=False, wrong="ended when the time was over")
            measured[name].append(outcome)
            rate = outcome.result.get("rate")
            said = outcome.wrong if rate is None else f"{number(rate)} rows/s"
            print(f"round {round_ + 1}, {name}: {said} ({outcome.seconds:.0f} s)", flush=True)
        longest = max(longest, deadline.spent - before)
    return measured, begun


def case(name: str, outcomes: Sequence[Outcome], measured: Measured) -> Case:
    """One contender's row of the table, with its ratios to the two bare engines."""
    good = [outcome for outcome in outcomes if outcome.result]
    if not good:
        return Case(name=name, note=outcomes[-1].wrong if outcomes else "no time was left")
    rates = [outcome.result["rate"] for outcome in good]
    figures = {
        "rows/s": figure(rates),
        "tokens out": figure(outcome.result["tokens_out"] for outcome in good[:1]),
        **_cpu(good),
    }
    for column, other in (("ratio to bare", BARE), ("to bare with P", BARE_P)):
        pairs = [
            (one.result["rate"], two.result["rate"])
            for one, two in zip(outcomes, measured.get(other, ()), strict=False)
            if one.result and two.result
        ]
        if pairs and name != other:
            figures[column] = ratios(*map(list, zip(*pairs, strict=True)))
    if good[0].threads is not None:
        figures["threads"] = Figure(value=good[0].threads)
    return Case(name=name, figures=figures)


def _cpu(good: Sequence[Outcome]) -> dict[str, Figure]:
    """Milliseconds of CPU for a row in the steady state: the engine's process, and all others."""
    engine, others = [], []
    for outcome in good:
        begin, end, rate = (outcome.result[name] for name in ("begin", "end", "rate"))
        used = outcome.cpu(begin, end)
        engine.append(1000 * used[0] / (rate * (end - begin)))
        others.append(1000 * used[1] / (rate * (end - begin)))
    return {"engine ms": figure(engine), "other ms": figure(others)}


def tokens_note(measured: Measured) -> tuple[str, ...]:
    """What not generating unread rationales could give at most: the ratio of tokens."""
    both = [measured.get(name, []) for name in (BARE, FLAGGED)]
    results = [[outcome.result for outcome in one if outcome.result] for one in both]
    if not all(results):
        return ()
    plain, flagged = (one[0]["tokens_out"] for one in results)
    return (
        f"with rationale: flagged {number(flagged)} tokens a row are generated instead of "
        f"{number(plain)}: an ideal ratio of {number(plain / flagged)}",
    )


def parsed_note(measured: Measured) -> tuple[str, ...]:
    shares = [o.result["parsed"] for o in measured.get(BARE_P, ()) if o.result]
    return (f"{shares[0]:.1%} of the bare engine's answers parse",) if shares else ()


def side_by_side(
    load: Workload, contenders: Mapping[str, Contender], terms: Terms, deadline: Deadline
) -> Part:
    """Everyone over one workload."""
    with tempfile.TemporaryDirectory(prefix="moderay-speed-") as folder:
        job = workload.write(Path(folder) / "work", load)
        measured, begun = contest(job, contenders, terms, deadline)
    left_out = (f"{terms.rounds - begun} of {terms.rounds} rounds, the time was over",)
    return Part(
        part="speed",
        title="Side by side with the bare engine",
        settings={"rows": load.rows, "rounds": begun},
        columns=COLUMNS,
        cases=tuple(case(name, outcomes, measured) for name, outcomes in measured.items()),
        notes=(*tokens_note(measured), *parsed_note(measured), *NOTES),
        left_out=left_out if begun < terms.rounds else (),
        seconds=deadline.spent,
    )


NOTES = (
    "temperature 0; in brackets the lowest and the highest round",
    "ms: of CPU for each row, of the engine's process and of all others",
)


def add_options(parser: argparse.ArgumentParser, rounds: int = 5) -> None:
    """What every part takes; `rounds`: by default."""
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--seconds", type=float, default=3600, help="after which nothing is begun")
    parser.add_argument("--size", type=float, default=1.0, help="share of the usual rows")
    parser.add_argument("--rounds", type=int, default=rounds, help="at most")
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument(
        "--hung", type=float, default=600, help="seconds after which a measurement is ended"
    )


def terms_of(options: argparse.Namespace) -> Terms:
    return Terms(options.rounds, options.threads, options.hung)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument(
        "--peers", action="store_true", help="LLM.generate, ray.data.llm and Daft too"
    )
    parser.add_argument("--beside", nargs="*", help="only these")
    options = parser.parse_args()
    deadline = Deadline(options.seconds)
    contenders, missing = own(), tuple[str, ...]()
    if options.peers:
        found, missing = peers.contenders()
        contenders |= {"LLM.generate": bare("llm"), **found}
    if options.beside:
        contenders = {name: contenders[name] for name in options.beside}
    load = Workload(rows=max(100, round(options.rows * options.size)))
    part = side_by_side(load, contenders, terms_of(options), deadline)
    finish(part.model_copy(update={"left_out": (*part.left_out, *missing)}), options.json)


if __name__ == "__main__":
    main()
