"""`model.replicas` as a range: engines come while there is work, and go when there is none for
them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels, manifest_of
from support.ray_nodes import nodes
from support.scripted import SCRIPT


@pytest.mark.slow
def test_engines_grow_to_the_most_while_there_is_work_and_end_before_the_last_row(
    job, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    rows, most = 1_000, 4
    texts = [f"a quiet day {row}" for row in range(rows - 1)] + ["the last one is slow"]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": texts}), tmp_path / "in/a.parquet")
    script = {
        "default": SCRIPT["default"],
        "rules": [{"content": "slow", "fail": "hang"}],
        "delay": {"mean_s": 1.5},
    }
    model = {
        "source": "scripted:script.yaml",
        "engine": {"max_num_seqs": 16},
        "replicas": {"min": 1, "max": most},
    }
    file = job(script, model=model, limits={"request_s": 10})
    seen: list[int] = []
    with nodes() as cluster:
        run = subprocess.Popen(
            [sys.executable, "-m", "moderay", "run", str(file)],
            stderr=subprocess.PIPE,
            text=True,
            env=cluster.env,
        )
        while run.poll() is None:
            seen.append(len(cluster.actors()))
            time.sleep(0.2)
        assert run.stderr is not None and run.returncode == 0, run.stderr.read()
    assert max(seen) == most and seen[-1] < most, seen
    assert manifest_of(tmp_path / "out")["runs"][-1]["actors"] == most
    assert labels(tmp_path / "out")["a.parquet"].num_rows == rows
