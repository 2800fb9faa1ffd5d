"""What a kill costs: rows judged again after everything was killed at half-way, and the seconds
from the death of a busy engine to the next answer.

The first with scripted engines, whose answers are counted; the second with vLLM and `tiny`. `make
kills` does both at length, with many kills of many kinds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
from pathlib import Path

from benchmarks import chaos, speed
from benchmarks.measured import Deadline, measure, module
from benchmarks.records import Case, Part, figure, finish

REDONE, LOST = "rows", "engine"


def one(what: str, rows: int) -> dict[str, float]:
    """One kill, in this process."""
    if what == LOST:
        lost, start = asyncio.run(chaos.lost_time())
        return {"seconds lost": lost, "of them its start": start}
    with tempfile.TemporaryDirectory(prefix="moderay-recovery-") as folder:
        again, in_flight = chaos.half_way(Path(folder) / "job", rows, 20)
    return {"rows": rows, "rows judged again": again, "in flight at most": in_flight}


COLUMNS = ("rows judged again", "in flight at most", "seconds lost", "of them its start")
TITLES = {REDONE: "all killed at half-way", LOST: "an engine killed"}


def recovered(rows: int, rounds: int, hung_s: float, deadline: Deadline) -> Part:
    """Each kill in each round."""
    found: dict[str, list[dict[str, float]]] = {what: [] for what in TITLES}
    wrong: list[str] = []
    for _ in range(rounds):
        for what, title in TITLES.items():
            if not deadline.allows(0):
                continue
            command = module("recovery", "--one", what, "--rows", rows)
            outcome = measure(command, min(hung_s, max(deadline.left, 1)))
            if outcome.result:
                found[what].append(dict(outcome.result))
            else:
                wrong.append(f"{title}: {outcome.wrong}")
    cases = [
        Case(
            name=TITLES[what],
            figures={
                column: figure(result[column] for result in results)
                for column in COLUMNS
                if column in results[0]
            },
        )
        for what, results in found.items()
        if results
    ]
    return Part(
        part="recovery",
        title="What a kill costs",
        settings={"rows": rows, "rounds at most": rounds},
        columns=COLUMNS,
        cases=tuple(cases),
        notes=("in flight: rows that two engines may work on at once",),
        left_out=tuple(dict.fromkeys(wrong)),
        seconds=deadline.spent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser, rounds=3)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--one", choices=sorted(TITLES), help="internal: one kill in this process")
    options = parser.parse_args()
    if options.one:
        # What the run prints goes elsewhere: the last line is read.
        with contextlib.redirect_stdout(None):
            result = one(options.one, options.rows)
        print(json.dumps(result))
        return
    rows = max(400, round(options.rows * options.size))
    finish(recovered(rows, options.rounds, options.hung, Deadline(options.seconds)), options.json)


if __name__ == "__main__":
    main()
