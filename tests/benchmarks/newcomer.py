"""A newcomer follows docs/getting-started.md over real tweets, as CSV and as Parquet.

Each command of the page is run in an empty folder and timed, behind the installation; then how long
it takes from saving a policy to new verdicts on ten rows.

    python -m benchmarks.newcomer [TWEETS.parquet]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from support.documents import blocks, commands
from support.project import ROOT

from moderay.config.job import Model
from moderay.tasks.embed import embedded_job
from moderay.tasks.workbench.rows import data_rows
from moderay.tasks.workbench.trial import Trial
from moderay.tasks.workbench.workbench import opened

PAGE = ROOT / "docs/getting-started.md"
TWEETS = ROOT.parent / "shared/data/tweets/part-000.parquet"
ROWS = 300
# What the page does before and for its own file, and what only a human can do.
PREPARED = ("export ", "moderay --version", "mkdir", "python -c", "cd ")
SAVES = 5


def followed(folder: Path, file: str) -> Iterator[tuple[str, float, int]]:
    """Each command of the page over a file, its seconds, and its exit status."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    scripts = [block.text for block in blocks(PAGE, "python")]
    (folder / "open.py").write_text("\n".join(scripts))
    lines = [
        command.text.replace("posts.csv", file)
        for command in commands(PAGE)
        if not command.text.startswith(PREPARED)
    ]
    at = next(number for number, line in enumerate(lines) if line.startswith("moderay labels"))
    for line in [*lines[:at], "python open.py", *lines[at:]]:
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder,
            env=environment,
            text=True,
            errors="replace",  # the page looks into a file, which may be no text
            capture_output=True,
            check=False,
        )
        yield line, time.monotonic() - began, done.returncode
        if done.returncode not in (0, 1):
            print(done.stdout, done.stderr, file=sys.stderr)


async def saves(folder: Path) -> list[float]:
    """Seconds from saving the policy to verdicts on ten rows, on a warm engine."""
    policy = folder / "policies/harassment"
    job, [loaded] = embedded_job("content", [policy], Model(source="tiny"), {})
    rows = data_rows(str(folder / "posts.csv"), "content", None, 10, loaded.id)
    text = (policy / "policy.md").read_text()
    seconds = []
    async with opened(job) as bench:
        trial = Trial(bench, policy, rows, golden=False)
        await trial.judge()
        for number in range(SAVES):
            (policy / "policy.md").write_text(f'{text}\n- "Case {number}" is HA0: made up.\n')
            began = time.monotonic()
            assert trial.saved()
            await trial.judge()
            seconds.append(time.monotonic() - began)
            assert not any(state.asking for state in trial.states)
    return seconds


def main() -> None:
    """Print a table for CSV and one for Parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tweets", type=Path, nargs="?", default=TWEETS)
    tweets = pl.read_parquet(parser.parse_args().tweets).head(ROWS)
    posts = tweets.select("id", content="text")
    for kind in ("csv", "parquet"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (posts.write_csv if kind == "csv" else posts.write_parquet)(folder / f"posts.{kind}")
            total = 0.0
            for line, seconds, status in followed(folder, f"posts.{kind}"):
                total += seconds
                print(f"{seconds:6.1f} s  exit {status}  {line[:90]}", flush=True)
            print(f"{total:6.1f} s in all, {kind}")
            if kind == "csv":
                shown = ", ".join(f"{second:.1f}" for second in asyncio.run(saves(folder)))
                print(f"from a save to ten verdicts: {shown} s")


if __name__ == "__main__":
    main()
