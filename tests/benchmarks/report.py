"""What the report of a large output costs: seconds, memory above the start, and bytes of the page.

The output is written as runs write theirs, without a model: `--rows` rows in `--shards` files under
three policies, with contents of a few hundred characters. The report is made in a process of its
own, twice: without and with contents.

python -m benchmarks.report --rows 1000000 --shards 100
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.label_folders import policy_record
from support.project import ROOT

from moderay.config.policy import Policy, load_policy
from moderay.core.storage import size_and_version
from moderay.core.verdicts import VERDICT, label_fields
from moderay.labels.decisions import decide, flagged
from moderay.labels.layout import Layout, marker_name
from moderay.labels.manifest_record import Manifest, RunRecord, Selection
from moderay.labels.manifest_store import append_manifest
from moderay.labels.records import ShardMarker, WrittenFile
from moderay.labels.shard_tally import ShardTally

POLICIES = tuple(load_policy(ROOT / "policies" / name) for name in ("spam", "hate", "violence"))
MOST_BYTES = 5_000_000
_MEASURED = """
import json, resource, sys, time
import moderay, pyarrow, polars
from moderay.tasks.report.report import write_report
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
made = write_report(sys.argv[1], {}, contents=sys.argv[2] == "True")
seconds = time.perf_counter() - began
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, (after - before) / 1024, made.size, made.samples]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "labels"
        write_output(output, options.rows, options.shards)
        print(f"{options.rows:,} rows in {options.shards:,} files, {len(POLICIES)} policies")
        for contents in (False, True):
            command = [sys.executable, "-c", _MEASURED, str(output), str(contents)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, megabytes, size, samples = json.loads(done.stdout)
            told = "with contents" if contents else "without contents"
            print(
                f"report {told}: {seconds:.2f} s, {megabytes:.0f} MiB more memory, "
                f"{size:,} bytes, {samples} samples"
            )
            assert size <= MOST_BYTES, f"{size:,} bytes, at most {MOST_BYTES:,} are allowed"


def write_output(folder: Path, rows: int, shards: int) -> None:
    """Label files, markers and a manifest."""
    layout = Layout(str(folder))
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    for number in range(shards):
        size = rows * (number + 1) // shards - rows * number // shards
        _write_shard(layout, f"part-{number:05d}.parquet", size, drawn)
    manifest = Manifest(
        name="a million rows",
        complete=True,
        input_shards=shards,
        cascade_key="",
        selection=Selection(content="text", where=None, sample=None),
        policies={policy.id: policy_record(policy, {}) for policy in POLICIES},
        runs=(RunRecord(run=0, status="finished"),),
    )
    append_manifest(layout, lambda _: manifest)


def _write_shard(layout: Layout, name: str, rows: int, drawn: np.random.Generator) -> None:
    hashes = [drawn.bytes(16).hex() for _ in range(rows)]
    columns = [_decisions(policy, rows, drawn) for policy in POLICIES]
    texts = pa.array([f"{key} " * 10 for key in hashes])
    schema = pa.schema([("text", pa.string()), *label_fields([each.rule for each in POLICIES])])
    table = pa.Table.from_arrays(
        [texts, pa.array(range(rows), pa.int64()), pa.array(hashes), flagged(columns), *columns],
        schema=schema,
    )
    path = Path(layout.label(name))
    pq.write_table(table, path)
    stamp = size_and_version(layout.fs, str(path))
    assert stamp is not None
    tally = ShardTally([each.rule for each in POLICIES], None)
    tally.add(table)
    counts = tally.counts
    marker = ShardMarker(
        shard=name,
        identity=(name, 1, "v"),
        source=f"/in/{name}",
        input_rows=rows,
        rows=rows,
        label_file=WrittenFile(size=stamp[0], version=stamp[1], digest="0" * 32),
        flagged=counts.flagged,
        policies=counts.policies,
        histograms={each: profile.histogram() for each, profile in tally.profiles.items()},
        flagged_without_p={
            each: profile.flagged_without_p for each, profile in tally.profiles.items()
        },
        chosen={each: profile.chosen() for each, profile in tally.profiles.items()},
        judges={},
        thresholds={},
        run=0,
    )
    layout.write(layout.marker(name, marker_name(marker, "0" * 16, "0" * 16)), marker.to_json())


def _decisions(policy: Policy, rows: int, drawn: np.random.Generator) -> pa.StructArray:
    """Verdicts of which most are nearly sure, a few failed."""
    p = drawn.beta(0.2, 2.0, rows).astype(np.float32)
    labels = len(policy.rule.labels)
    violating = np.array(policy.rule.violating)
    scores = np.where(
        violating, p[:, None] / violating.sum(), (1 - p[:, None]) / (~violating).sum()
    )
    failed = drawn.random(rows) < 0.001
    status = np.where(failed, "timeout", "ok")
    # Those that failed have no scores: their list is null.
    ends = np.arange(rows + 1, dtype=np.int32) * labels
    lists = pa.ListArray.from_arrays(
        pa.array(ends), pa.array(scores.astype(np.float32).ravel()), mask=pa.array(failed)
    )
    known = {
        "status": pa.array(status),
        "scores": lists.cast(VERDICT.field("scores").type),
        "rationale": pa.array(["It does what the policy names."] * rows),
        "reasoning": pa.array(["First the text, then the policy. " * 8] * rows),
        "decided_by": pa.array(["reason"] * rows),
        "origin": pa.array(["judged"] * rows),
    }
    fields = [known.get(field.name, pa.nulls(rows, field.type)) for field in VERDICT]
    return decide(pa.StructArray.from_arrays(fields, fields=list(VERDICT)), policy.rule)


if __name__ == "__main__":
    main()
