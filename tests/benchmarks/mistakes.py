"""How soon a newcomer's mistakes are told: `python -m benchmarks.mistakes`.

Each command is a process of its own, as a person's is. The table has the seconds until it has
ended, its exit status, and how its message begins.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.mistakes import MISTAKES, Mistake, made
from support.project import ROOT
from support.s3_running import s3_server

SHOWN = 90


def told(mistake: Mistake, env: dict[str, str]) -> tuple[float, int, str]:
    """Seconds, exit status and the first line of what is said."""
    with tempfile.TemporaryDirectory() as name, made(mistake, Path(name)):
        began = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-m", "moderay", *shlex.split(mistake.command)],
            cwd=name,
            env=os.environ | env,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - began
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: tiny")]
    return seconds, result.returncode, (lines or [""])[0].replace(name, "<tmp>")


def main() -> None:
    """Print the table."""
    with s3_server() as s3:
        os.environ.update(s3)
        env = {
            "PYTHONPATH": str(ROOT / "pipelines"),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        print("| mistake | seconds | exit status | told |\n|---|---|---|---|")
        for mistake in MISTAKES:
            seconds, status, line = told(mistake, env)
            print(f"| {mistake.name} | {seconds:.1f} | {status} | {line[:SHOWN]} |", flush=True)


if __name__ == "__main__":
    main()
