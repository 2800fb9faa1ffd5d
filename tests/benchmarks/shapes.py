"""How the ratio to the bare engine holds where the work is another: one thing varied at a time.

Policies of 680 and 5,000 of tiny's tokens, one and eight of them, contents of 25 and 2,000 tokens,
and a model of 100 million random parameters, whose answers do not parse. The bare engine answers
the same prompts without P; where nothing parses it generates to the end of the budget, as the
pipeline does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import speed, workload
from benchmarks.measured import Deadline, Outcome
from benchmarks.records import Case, Part, figure, finish
from benchmarks.speed import BARE, OURS, Measured, Terms
from benchmarks.workload import Workload

COLUMNS = ("rows/s", "ratio to bare", "tokens in", "tokens out", "tokens/s", "requests")


def variants(base: Workload) -> dict[str, Workload]:
    """The base case and its neighbours, each with rows for about the same work."""
    fewer = max(50, base.rows // 8)
    return {
        "base: one policy of 680 tokens, contents of 25, tiny": base,
        "policy of 5,000 tokens": replace(base, policy_tokens=5000),
        "8 policies": replace(base, policies=8, rows=fewer),
        "contents of 2,000 tokens": replace(base, content_tokens=2000, rows=fewer),
        "100M random parameters": replace(base, model="100m", budget=32, rows=fewer),
    }


def line(name: str, load: Workload, measured: Measured) -> Case:
    """One workload's line."""
    made = speed.case(name, measured[OURS], measured)
    results = [outcome.result for outcome in measured[OURS] if outcome.result]
    if not results:
        return made
    more = {
        "tokens in": figure(result["tokens_in"] for result in results),
        "requests": figure(result["requests"] for result in results),
        "tokens/s": figure(
            result["rate"] * (result["tokens_in"] + result["tokens_out"]) for result in results
        ),
    }
    kept = {name: value for name, value in made.figures.items() if name in COLUMNS}
    return Case(name=name, figures={**kept, **more}, note=f"{load.rows} rows")


def varied(loads: Mapping[str, Workload], terms: Terms, deadline: Deadline) -> Part:
    """Every workload once, then every one once more: moderay and the bare engine in turn."""
    contenders = {OURS: speed.ours(), BARE: speed.bare("async")}
    turned = dict(reversed(contenders.items()))
    found: dict[str, dict[str, list[Outcome]]] = {
        name: {who: [] for who in contenders} for name in loads
    }
    longest = 0.0
    for round_ in range(terms.rounds):
        for name, load in loads.items():
            if not deadline.allows(longest):
                break
            print(name, flush=True)
            before = deadline.spent
            with tempfile.TemporaryDirectory(prefix="moderay-shapes-") as folder:
                job = workload.write(Path(folder) / "work", load)
                order = turned if round_ % 2 else contenders
                measured, _ = speed.contest(job, order, replace(terms, rounds=1), deadline)
            for who, outcomes in measured.items():
                found[name][who] += outcomes
            longest = max(longest, deadline.spent - before)
    cases = [line(name, load, found[name]) for name, load in loads.items() if found[name][OURS]]
    left_out = [f"{name}, the time was over" for name in loads if not found[name][OURS]]
    return Part(
        part="shapes",
        title="Other policies, contents and models",
        settings={"rounds at most": terms.rounds},
        columns=COLUMNS,
        cases=tuple(cases),
        notes=(
            "tokens and requests are those of a row under all policies",
            "policies are counted in tiny's tokens: 680 of them are 480 of harmony's",
            *speed.NOTES[:1],
        ),
        left_out=tuple(left_out),
        seconds=deadline.spent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser, rounds=2)
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    base = Workload(rows=max(100, round(options.rows * options.size)))
    deadline = Deadline(options.seconds)
    finish(varied(variants(base), speed.terms_of(options), deadline), options.json)


if __name__ == "__main__":
    main()
