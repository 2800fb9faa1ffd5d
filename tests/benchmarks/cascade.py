"""`make bench`, second part: what a cascade saves, with the real tiny model on the demo corpus, and
what agrees with reason alone.

Screens and bands are calibrated on another corpus of the same kind, as yesterday's labels would be.
"""

from __future__ import annotations

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


def line(folder: Path, name: str, output: str) -> None:
    manifest = manifest_of(folder / output)
    usage, rows = manifest["runs"][-1]["usage"], manifest["rows"]
    here, plain = verdicts(folder / output), verdicts(folder / "plain")
    known = [(a, b) for a, b in zip(here, plain, strict=True) if b is not None]
    agreement = sum(a == b for a, b in known) / len(known)
    counts = manifest["counts"].values()
    settled = {
        judge: sum(c["settled"].get(judge, 0) for c in counts) / sum(c["ok"] for c in counts)
        for judge in ("screen", "glance", "reason")
    }
    computed = usage["prompt_tokens"] - usage["cached_tokens"]
    print(
        f"{name}: per row {usage['requests'] / rows:.2f} requests, {computed / rows:.0f} prompt "
        f"tokens computed ({usage['cached_tokens'] / rows:.0f} cached), "
        f"{usage['output_tokens'] / rows:.1f} output tokens; agreement with reason alone "
        f"{agreement:.4f}; "
        + ", ".join(f"{judge} settles {share:.0%}" for judge, share in settled.items() if share),
        flush=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="moderay-bench-") as name:
        folder = Path(name)
        demo.write(folder / "today", seed=1)
        for day in range(4):  # 4,800 rows: some 600 violations of each policy
            demo.write(folder / "yesterday" / f"day={day}", seed=2 + day)
        moderay("run", job(folder, "yesterday/*", "labels", REASON))
        for policy in POLICIES:
            for judge in ("screen", "glance"):
                options = (
                    "--policy",
                    policy,
                    "--judge",
                    judge,
                    "--from",
                    folder / "labels",
                    "--out",
                    folder / f"{judge}-{policy}",
                )
                moderay("calibrate", folder / "labels.yaml", *options)
        for number, (title, cascade) in enumerate(CASCADES.items()):
            output = f"cascade{number}" if number else "plain"
            moderay("run", job(folder, "today", output, cascade))
            line(folder, title, output)
    print("goal: at most a fifth of the output tokens of reason alone, at an agreement of 0.99")


if __name__ == "__main__":
    main()
