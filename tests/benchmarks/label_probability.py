"""P with the answer beside P by a second request, on `tiny` in float32: each corpus is labelled
both ways by `moderay run` with two engines, and compared row by row. And at temperature 0 the same
with rationales for flagged rows alone.

`python -m benchmarks.label_probability --rows 5000`
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from support.outputs import labels, manifest_of, verdicts_of
from support.project import ROOT

from moderay.engines.tiny.corpus import DEMO, example
from moderay.engines.tiny.demo import TURNS

# The way that `engine.py` takes by itself, and the other.
WAYS: dict[str, tuple[str, ...]] = {
    "with the answer": (),
    "by a second request": (
        "model.engine.scheduler_cls=null",
        "model.engine.logits_processors=null",
    ),
}
# One whose labels part late, beside two of the demo's.
LATE = """---
id: late
title: Spam, with labels that part late
version: 1
threshold: 0.5
labels:
  SP0: {violates: false}
  SP2: {violates: true}
  SP20: {violates: true}
---
"""
# What is the same with rationales for flagged rows alone; and how far P may be off.
SAME = ("status", "violates", "label", "reasoning", "windows")
EXACT = 1e-6
POLICIES = ("spam", "private_data", "late")


class Compared(NamedTuple):
    """Two labellings of the same rows.

    Attributes:
        verdicts: Of them, by what they are.
        different: Verdicts that are not the same, P apart.
        furthest: Difference of a label's P, at most.
        requests: Made for each way, in the order of `WAYS`.
    """

    verdicts: Counter[str]
    different: int
    furthest: float
    requests: tuple[int, ...]


def corpus(folder: Path, rows: int, seed: int = 0) -> None:
    """Four shards of texts of which a tenth are duplicates and a tenth need several windows, and a
    shard of conversations.
    """
    rng = random.Random(seed)
    texts = [f"{example(rng, DEMO, ambiguous=rng.random() < 0.3).text} {i}" for i in range(rows)]
    for i in range(rows):
        if i % 10 == 1:
            texts[i] = texts[i - 1]
        elif i % 10 == 2:
            texts[i] = " ".join(rng.choices(texts, k=6))
    turns = [[{"role": "user", "content": text}] for text in texts[: rows // 5]]
    folder.mkdir()
    for shard in range(4):
        part = texts[rows // 5 :][shard::4]
        pq.write_table(pa.table({"content": part}), folder / f"{shard}.parquet")
    talks = pa.table({"content": pa.array(turns, TURNS)})
    pq.write_table(talks, folder / "talks.parquet")


def write_job(folder: Path, temperature: float) -> Path:
    """A job over folder/in."""
    late = folder / "late"
    late.mkdir(exist_ok=True)
    text = (ROOT / "policies/spam/policy.md").read_text().split("---\n", 2)[2]
    (late / "policy.md").write_text(LATE + text)
    job = {
        "name": "both-ways",
        "input": {"path": "in", "content": "content"},
        "output": {"path": "out", "columns": [], "reasoning": "all"},
        "policies": [str(ROOT / "policies/spam"), str(ROOT / "policies/private_data"), "late"],
        "model": {
            "source": "tiny",
            "dtype": "float32",
            "effort": "low",
            "sampling": {"temperature": temperature},
            "replicas": {"min": 2, "max": 2},
        },
        "windows": {"tokens": 160, "overlap": 16, "max": 8},
        "cascade": [{"reason": {"budget": 64}}],
        "unit": {"rows": 100},
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    return file


def labelled(job: Path, out: Path, way: str) -> int:
    """Labels the corpus one way.

    Returns:
        Requests that were made.

    Raises:
        AssertionError: An engine came to P otherwise.
    """
    sets = [f"--set={one}" for one in (f"output.path={out}", *WAYS[way])]
    subprocess.run(
        [sys.executable, "-m", "moderay", "run", str(job), *sets],
        check=True,
        env=os.environ | {"RAY_ADDRESS": "local"},
        stdout=subprocess.DEVNULL,
    )
    run = manifest_of(out)["runs"][-1]
    assert run["probability_by"] == [way], run["probability_by"]
    return int(run["usage"]["requests"])


def compared(folder: Path, rows: int, temperature: float) -> Compared:
    """The same corpus, labelled both ways."""
    if not (folder / "in").exists():
        corpus(folder / "in", rows)
    job = write_job(folder, temperature)
    outs = [folder / f"out-{temperature:g}-{number}" for number in range(len(WAYS))]
    requests = tuple(labelled(job, out, way) for out, way in zip(outs, WAYS, strict=True))
    verdicts: Counter[str] = Counter()
    different, furthest = 0, 0.0
    tables = [labels(out) for out in outs]
    for name in tables[0]:
        for policy in POLICIES:
            pairs = zip(*(verdicts_of(each[name], policy) for each in tables), strict=True)
            for one, other in pairs:
                verdicts[_kind(one)] += 1
                furthest = max(furthest, _distance(one.pop("scores"), other.pop("scores")))
                one.pop("probability"), other.pop("probability")
                different += one != other
    return Compared(verdicts, different, furthest, requests)


def spared(folder: Path) -> tuple[Counter[str], int]:
    """The corpus of `compared`, labelled with rationales for flagged rows alone as well.

    Returns:
        Verdicts by what became of their rationale; and how many differ in what should be the same.
    """
    job, out = write_job(folder, 0.0), folder / "out-flagged"
    command = [sys.executable, "-m", "moderay", "run", str(job), f"--set=output.path={out}"]
    subprocess.run(
        [*command, "--set=output.rationale=flagged"],
        check=True,
        env=os.environ | {"RAY_ADDRESS": "local"},
        stdout=subprocess.DEVNULL,
    )
    became: Counter[str] = Counter()
    different = 0
    full, less = labels(folder / "out-0-0"), labels(out)
    for name in full:
        for policy in POLICIES:
            for one, other in zip(
                verdicts_of(full[name], policy), verdicts_of(less[name], policy), strict=True
            ):
                same = all(one[field] == other[field] for field in SAME)
                different += not same or _distance(one["scores"], other["scores"]) > EXACT
                became[_rationale(one, other)] += 1
    return became, different


def _rationale(full: dict[str, Any], less: dict[str, Any]) -> str:
    """What became of a rationale."""
    if not full["violates"]:
        return "not asked for" if less["rationale"] is None else "not flagged, with one"
    if full["rationale"] is None:  # it was forced
        return "of a forced answer"
    if less["rationale"] is None:
        return "flagged without one"
    return "the same" if less["rationale"] == full["rationale"] else "another"


def _kind(verdict: dict[str, Any]) -> str:
    if verdict["status"] != "ok":
        return str(verdict["status"])
    return "forced" if verdict["forced"] else "parsed"


def _distance(one: dict[str, float] | None, other: dict[str, float] | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else 1.0
    return max(abs(p - other[label]) for label, p in one.items())


def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000, help="default: %(default)s")
    rows = parser.parse_args(args).rows
    with tempfile.TemporaryDirectory() as folder:
        for temperature in (0.0, 1.0):
            found = compared(Path(folder), rows, temperature)
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.verdicts.items())
            print(
                f"temperature {temperature:g}: {found.verdicts.total():,} verdicts ({kinds}); "
                f"{found.different} differ; P by at most {found.furthest:.1g}; "
                f"{found.requests[0]:,} requests instead of {found.requests[1]:,}",
                flush=True,
            )
        became, different = spared(Path(folder))
        told = ", ".join(f"{count:,} {what}" for what, count in sorted(became.items()))
        print(f"rationale: flagged: {different} verdicts differ; rationales: {told}", flush=True)


if __name__ == "__main__":
    main()
