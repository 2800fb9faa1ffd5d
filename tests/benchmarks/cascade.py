"""What a cascade saves, with the real tiny model on the demo corpus, and how far it agrees with
reason alone.

Screens and bands are calibrated on another corpus of the same kind, as yesterday's labels would be.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from support.outputs import manifest_of, verdicts_of
from support.project import ROOT

from benchmarks import speed
from benchmarks.measured import Deadline
from benchmarks.records import Case, Figure, Part, finish
from moderay.engines.tiny import demo

POLICIES = ("spam", "harassment", "private_data")
# The band as calibrated, for each policy.
GLANCES = [{"glance": f"glance-{policy}"} for policy in POLICIES]
SCREENS = [{"screen": f"screen-{policy}"} for policy in POLICIES]
REASON: list[dict[str, Any]] = [{"reason": {"budget": 512}}]
CASCADES = {
    "reason alone": REASON,
    "glance, reason": [*GLANCES, *REASON],
    "screen, glance, reason": [*SCREENS, *GLANCES, *REASON],
}


def job(
    folder: Path, corpus: str, output: str, cascade: list[dict[str, Any]], **sections: Any
) -> Path:
    data = {
        "input": {"path": f"{corpus}/*.parquet", "content": "content"},
        "output": {"path": output, "columns": ["id"]},
        "policies": [str(ROOT / "policies" / policy) for policy in POLICIES],
        "windows": {"tokens": 2048, "overlap": 128, "max": 8},
        "unit": {"rows": 64},
        "limits": {"max_failed": 1},
        "cascade": cascade,
        **sections,
    }
    file = folder / f"{output}.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def moderay(*args: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moderay", *map(str, args)],
        env=os.environ | {"RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    if done.returncode or args[0] == "calibrate":
        print(done.stdout, done.stderr, file=sys.stderr)


def verdicts(folder: Path) -> list[bool | None]:
    """`violates` of every row under every policy."""
    tables = [pq.read_table(file) for file in sorted(folder.glob("*.parquet"))]
    return [
        verdict["violates"]
        for table in tables
        for policy in POLICIES
        for verdict in verdicts_of(table, policy)
    ]


COLUMNS = (
    "requests",
    "prompt tokens",
    "cached",
    "tokens out",
    "share of out",
    "agreement",
    "reason",
)


def line(folder: Path, name: str, output: str) -> Case:
    """One cascade's figures: each a row, but for the last three, which are shares."""
    manifest, plain = manifest_of(folder / output), manifest_of(folder / "plain")
    usage, rows = manifest["runs"][-1]["usage"], manifest["rows"]
    known = [
        (a, b)
        for a, b in zip(verdicts(folder / output), verdicts(folder / "plain"), strict=True)
        if b is not None
    ]
    counts = manifest["counts"].values()
    figures = {
        "requests": usage["requests"] / rows,
        "prompt tokens": (usage["prompt_tokens"] - usage["cached_tokens"]) / rows,
        "cached": usage["cached_tokens"] / rows,
        "tokens out": usage["output_tokens"] / rows,
        "share of out": usage["output_tokens"] / plain["runs"][-1]["usage"]["output_tokens"],
        "agreement": sum(a == b for a, b in known) / len(known),
        "reason": sum(c["settled"].get("reason", 0) for c in counts) / sum(c["ok"] for c in counts),
    }
    return Case(name=name, figures={name: Figure(value=value) for name, value in figures.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser, rounds=1)
    options = parser.parse_args()
    deadline = Deadline(options.seconds)
    cases, left_out = [], []
    with tempfile.TemporaryDirectory(prefix="moderay-cascade-") as name:
        folder = Path(name)
        calibrated(folder, max(1, round(4 * options.size)))
        for number, (title, cascade) in enumerate(CASCADES.items()):
            if deadline.left <= 0:
                left_out.append(f"{title}, the time was over")
                continue
            output = f"cascade{number}" if number else "plain"
            moderay("run", job(folder, "today", output, cascade))
            cases.append(line(folder, title, output))
    part = Part(
        part="cascade",
        title="Tokens that a cascade saves",
        columns=COLUMNS,
        cases=tuple(cases),
        notes=(
            "a row of three policies; prompt tokens are those that were computed",
            "share of out: of the tokens that reason alone generates; goal: at most a fifth of "
            "them at an agreement of 0.99",
            "reason: share of the verdicts that it settled",
        ),
        left_out=tuple(left_out),
        seconds=deadline.spent,
    )
    finish(part, options.json)


def calibrated(folder: Path, days: int) -> None:
    """Today's corpus, and screens and bands from the labels of so many other days.

    Four days are 4,800 rows: some 600 violations of each policy.
    """
    demo.write(folder / "today", seed=1)
    for day in range(days):
        demo.write(folder / "yesterday" / f"day={day}", seed=2 + day)
    moderay("run", job(folder, "yesterday/*", "labels", REASON))
    for policy in POLICIES:
        for judge in ("screen", "glance"):
            asked = ("--policy", policy, "--judge", judge)
            places = ("--from", folder / "labels", "--out", folder / f"{judge}-{policy}")
            moderay("calibrate", folder / "labels.yaml", *asked, *places)


if __name__ == "__main__":
    main()
