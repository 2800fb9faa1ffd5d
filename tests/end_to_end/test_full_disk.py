"""Whole runs on disks that are really full, or read-only: each mounted for its run alone."""

from __future__ import annotations

import os
import random
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]


def _may_mount() -> bool:
    try:
        command = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not _may_mount(), reason="this user may not mount a file system"),
]


@pytest.fixture
def large(tmp_path: Path) -> int:
    """Four shards of 300 kB that no codec makes smaller; their rows in all."""
    (tmp_path / "in").mkdir()
    chosen = random.Random(7)
    for shard in range(4):
        texts = ["".join(chosen.choices(string.printable, k=10_000)) for _ in range(30)]
        pq.write_table(pa.table({"text": texts}), tmp_path / f"in/{shard}.parquet")
    return 120


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Run a script in which `run` is a run of the job, on mounts that nobody else sees.

    Ray has a folder of its own, whose sockets need short paths, on the machine's disk.
    """
    ray = tempfile.mkdtemp(prefix="mr-")

    def call(script: str) -> str:
        lines = [
            f'run() {{ {sys.executable} -m moderay run {tmp_path}/job.yaml; echo "exit $?"; }}',
            f"cd {tmp_path}",
            script,
        ]
        done = subprocess.run(
            [*UNSHARE, "sh", "-c", "\n".join(lines)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"RAY_TMPDIR": ray, "RAY_ADDRESS": "local"},
            timeout=300,
        )
        assert "Traceback" not in done.stdout and "does not answer" not in done.stdout, done.stdout
        return done.stdout

    yield call
    shutil.rmtree(ray, ignore_errors=True)


def test_run_on_a_disk_that_is_full_says_so_and_goes_on_when_there_is_room(
    large: int, job: Callable[..., Path], shell: Callable[..., str], tmp_path: Path
) -> None:
    job(unit={"rows": 10})
    (tmp_path / "out").mkdir()
    shown = shell(
        """
        mount -t tmpfs -o size=900k tmpfs out
        run
        ls out/_moderay/tmp
        mount -o remount,size=100M out
        run
        cp -r out kept
        """
    )
    full, _, rest = shown.partition("exit 3\n")
    assert f"{tmp_path}/out/_moderay/tmp on " in full and "the disk is full: " in full, shown
    assert " of 0.9 MB are free, and 0.3 MB more are needed; make room" in full, shown
    assert "exit 0" in rest and not rest.startswith("0"), shown
    assert sum(len(table) for table in labels(tmp_path / "kept").values()) == large


def test_scratch_disk_that_is_full_is_named_and_not_the_output(
    large: int, job: Callable[..., Path], shell: Callable[..., str], tmp_path: Path
) -> None:
    job(unit={"rows": 10})
    (tmp_path / "scratch").mkdir()
    shown = shell(
        """
        mount -t tmpfs -o size=100k tmpfs scratch
        TMPDIR=$PWD/scratch run
        run
        """
    )
    full, _, rest = shown.partition("exit 3\n")
    assert f"{tmp_path}/scratch/moderay-" in full and "the disk is full: " in full, shown
    assert "or have TMPDIR name another disk" in full and "exit 0" in rest, shown
    assert sum(len(table) for table in labels(tmp_path / "out").values()) == large


def test_output_that_is_read_only_is_the_persons_to_mend(
    large: int, job: Callable[..., Path], shell: Callable[..., str], tmp_path: Path
) -> None:
    job(unit={"rows": 10})
    (tmp_path / "out").mkdir()
    shown = shell(
        """
        mount -t tmpfs -o ro tmpfs out
        run
        """
    )
    assert "is read-only: mount it so that it can be written" in shown and "exit 2" in shown, shown
