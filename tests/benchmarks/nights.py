"""Seven nights of jobs/nightly.yaml on the scripted engine, in short for `make test` and in long
for `make bench`: rows are added every night and some of them were there before, a shard changes and
one is deleted, one night is killed and goes on, and from the fifth on more is flagged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from support.project import ROOT

from moderay.core.storage import filesystem

DATES = [f"2026-11-{night:02d}" for night in range(1, 8)]
SHARDS = 4
# Of a night's rows: contents that were there the night before. Rows of the shard that is changed.
AGAIN, CHANGED = 0.05, 50
KILLED, TOUCHED, MORE = DATES[2], DATES[3], DATES[4]
# Answers of the engine to one content: its reasoning and its label.
ANSWERS = 2
# Requests an engine has in flight, and the rows of a unit, on the night that is killed: what may be
# judged twice.
SEQS, UNIT = 32, 100


@dataclass(frozen=True)
class NightResult:
    """What a night cost.

    Attributes:
        summary: Of `run --json`.
        new: Distinct contents that no night before had.
        requested: Contents that the engine was asked for.
    """

    summary: dict[str, Any]
    new: int
    requested: int


class Nights:
    """`folder`: for the script and, unless a URL is given for them, for corpus and labels.
    `shares`: of flagged rows, up to the fourth night and from the fifth on. `storage`: of the job.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        shares: tuple[float, float],
        url: str = "",
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.rows, self.shares = folder, rows, shares
        self.url, self.storage = url or str(folder), storage or {}
        self.fs, self.root = filesystem(self.url, self.storage)
        self.rng = np.random.default_rng(0)
        self.known: set[str] = set()  # contents that labels hold
        self.last: list[str] = []
        self.log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        for name, delay in (("script", 0.0), ("slow", 0.2)):
            script = {
                "default": {
                    "answer": '{"label": "SP0", "rationale": "Nothing."}',
                    "reasoning": "Nothing.",
                    "p": 0.95,
                },
                "rules": [
                    {
                        "content": "prize",
                        "answer": '{"label": "SP4", "rationale": "A prize."}',
                        "reasoning": "A prize.",
                        "p": 0.9,
                    }
                ],
                "log": str(self.log),
                "delay": {"mean_s": delay},
            }
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(script))

    def env(self, date: str) -> dict[str, str]:
        return {"DATE": date, "CORPUS": f"{self.url}/corpus", "LABELS": f"{self.url}/labels"}

    def sets(self, script: str = "script") -> list[str]:
        scripted = [
            f"model.source=scripted:{self.folder}/{script}.yaml",
            f"policies=[{ROOT}/policies/spam]",
        ]
        return [
            *scripted,
            f"unit.rows={min(512, self.rows // SHARDS)}",
            f"storage={json.dumps(self.storage)}",
        ]

    def night(self, date: str, run: Callable[[str], dict[str, Any]]) -> NightResult:
        """Write what comes in on that date, and label it."""
        new, before = self._write(date), self._requested()
        if date == KILLED:
            self._killed(date)
        return NightResult(run(date), new, self._requested() - before)

    def touched(self, run: Callable[[str], dict[str, Any]]) -> NightResult:
        """A shard of a night that is labelled changes, another is deleted, and the night is run
        again.
        """
        first, second = (
            f"{self.root}/corpus/date={TOUCHED}/{number}.parquet" for number in range(2)
        )
        texts = pq.read_table(pa.BufferReader(self.fs.cat_file(first))).column("text").to_pylist()
        part = slice(10, 10 + CHANGED)
        self.known -= {text for text in texts[part] if TOUCHED in text}
        texts[part] = [f"changed {i}" for i in range(CHANGED)]
        self._put(first, texts)
        self.fs.rm_file(second)
        before = self._requested()
        return NightResult(run(TOUCHED), CHANGED, self._requested() - before)

    def _write(self, date: str) -> int:
        share = self.shares[date >= MORE]
        flagged, again = (
            self.rng.random(self.rows) < limit for limit in (share, AGAIN if self.last else 0.0)
        )
        texts = np.array(
            [f"{'your prize' if flag else 'a quiet'} {date} {i}" for i, flag in enumerate(flagged)],
            object,
        )
        if self.last:
            texts[again] = self.rng.choice(self.last, again.sum())
        for number, part in enumerate(np.array_split(texts, SHARDS)):
            self._put(f"{self.root}/corpus/date={date}/{number}.parquet", list(part))
        new = set(texts) - self.known
        self.known, self.last = self.known | new, list(texts)
        return len(new)

    def _put(self, path: str, texts: list[str]) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": texts}), sink)
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(path, sink.getvalue().to_pybytes())

    def _requested(self) -> int:
        return self.log.stat().st_size // ANSWERS

    def _killed(self, date: str) -> None:
        """SIGKILL of the driver once a quarter of the night is saved."""
        options = [
            f"--set={setting}"
            for setting in (
                *self.sets("slow"),
                f"unit.rows={UNIT}",
                f"model.engine.max_num_seqs={SEQS}",
            )
        ]
        command = [
            sys.executable,
            "-m",
            "moderay",
            "run",
            str(ROOT / "jobs/nightly.yaml"),
            *options,
        ]
        driver = subprocess.Popen(
            command,
            env=os.environ | self.env(date),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while self._saved(date) < self.rows / 4:
            time.sleep(0.1)
            assert driver.poll() is None, "the night ended before it was killed"
        driver.kill()
        driver.wait()
        time.sleep(3)  # what a dead driver leaves behind ends by itself

    def _saved(self, date: str) -> int:
        """Rows of units, and of label files."""
        self.fs.invalidate_cache()
        files = self.fs.find(f"{self.root}/labels/date={date}")
        return sum(
            UNIT
            if file.endswith(".arrow")
            else self.rows // SHARDS
            if file.endswith(".parquet")
            else 0
            for file in files
        )


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="moderay-nights-") as name:
        nights = Nights(Path(name), rows, (0.02, 0.03))

        def run(date: str) -> dict[str, Any]:
            options = [f"--set={setting}" for setting in nights.sets()]
            command = [
                sys.executable,
                "-m",
                "moderay",
                "run",
                str(ROOT / "jobs/nightly.yaml"),
                "--json",
                *options,
            ]
            done = subprocess.run(
                command,
                env=os.environ | nights.env(date),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
                text=True,
            )
            return dict(json.loads(done.stdout))

        for date in DATES:
            done = [nights.night(date, run)]
            if date == TOUCHED:
                done.append(nights.touched(run))
            for one in done:
                alarms = "; ".join(one.summary["alarms"]) or "no alarm"
                line = (
                    f"{date}: {one.summary['new']['rows']:,} rows, new contents {one.new:,}, "
                    f"asked for {one.requested:,}"
                )
                print(
                    f"{line}; gone {len(one.summary['gone'])}; "
                    f"{one.summary['seconds']:.0f} s; {alarms}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
