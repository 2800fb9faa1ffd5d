"""Input files that change while they are read, claim what is not so, or end their reader."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from support.corpora import put
from support.hostile_parquet import claiming
from support.outputs import labels, manifest_of
from support.scripted import SCRIPT

from moderay import filter as filter_rows
from moderay import run
from moderay.labels.shard_writer import Publication, publish
from moderay.pipeline import flow
from moderay.pipeline.check import check
from moderay.pipeline.messages.units import units_read
from moderay.pipeline.stages import publish_tasks
from moderay.pipeline.stages.read_task import read_task
from moderay.tasks.filter.shard import Sifting, sift

pytestmark = pytest.mark.long

SLOW = {**SCRIPT, "delay": {"mean_s": 0.2, "sigma": 0}}


def write(file: Path, word: str, rows: int = 100) -> None:
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"text": [f"{word} {i:04}" for i in range(rows)]}), file)


def failed(folder: Path) -> dict[str, str]:
    reasons: dict[str, str] = manifest_of(folder / "out")["failed"]
    return reasons


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Something that is done beside what is done in here, at most until its end."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_file_that_is_swapped_while_it_is_read_and_moved_back_is_left_out(
    job, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "in/a.parquet"
    write(file, "a quiet day")
    write(tmp_path / "in/b.parquet", "a quiet day")
    checked = check(job(SLOW))
    file.rename(tmp_path / "away")
    write(file, "claim your prize")

    def moved_back(over: threading.Event) -> None:
        while not list((tmp_path / "out/_moderay/units/").rglob("*.arrow")) and not over.is_set():
            time.sleep(0.01)
        (tmp_path / "away").rename(file)

    with meanwhile(moved_back):
        outcome = run(checked)
    assert outcome.exit_status == 1 and list(labels(tmp_path / "out")) == ["b.parquet"]
    assert failed(tmp_path) == {
        "a.parquet": "changed while it was read: run the same command again"
    }
    assert run(job()).exit_status == 0
    table = labels(tmp_path / "out")["a.parquet"]
    assert table.column("text")[0].as_py() == "a quiet day 0000"
    assert table.column("flagged").to_pylist() == [False] * 100


def test_file_with_other_rows_than_were_counted_is_left_out(job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    put(tmp_path, "a.jsonl", [{"text": f"row {i}"} for i in range(30)])
    put(tmp_path, "b.jsonl.gz", [{"text": f"row {i}"} for i in range(30)])
    write(tmp_path / "in/c.parquet", "a quiet day")
    checked = check(job())
    for name in ("a.jsonl", "b.jsonl.gz"):
        put(tmp_path, name, [{"text": f"other {i}"} for i in range(29)])
    outcome = run(checked)
    assert outcome.exit_status == 1 and list(labels(tmp_path / "out")) == ["c.parquet"]
    assert failed(tmp_path) == dict.fromkeys(
        ("a.jsonl", "b.jsonl.gz"), "changed while it was read: run the same command again"
    )
    assert run(job()).exit_status == 0
    assert len(labels(tmp_path / "out")["a.parquet"]) == 29


def test_file_that_claims_a_trillion_rows_is_left_out_and_named(job, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "in/good.parquet", "a quiet day")
    claiming(tmp_path / "in/a.parquet", 300, 10**12)
    for _ in range(2):
        result = cli("run", job())
        assert result.returncode == 1 and "a.parquet" in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
        assert list(labels(tmp_path / "out")) == ["good.parquet"]
        [reason] = failed(tmp_path).values()
        assert reason.startswith("row group 0 ends after 300 rows, and its footer claims 1,000,")
    for command in ("plan",), ("run", "--limit", "500"):
        result = cli(*command, job())
        assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
        assert "a.parquet cannot be read: row group 0 ends after 300 rows, and" in result.stderr


def test_file_whose_reader_dies_each_time_is_left_out_and_named(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "in/a.parquet", "a quiet day")
    write(tmp_path / "in/good.parquet", "a quiet day")

    def dying(batch: pa.Table, **rest: Any) -> Iterator[pa.Table]:
        for block in read_task(batch, **rest):
            if any(unit.source.shard == "a.parquet" for unit in units_read(block)):
                os._exit(1)
            yield block

    with monkeypatch.context() as planted:
        planted.setattr(flow, "read_task", dying)
        outcome = run(job())
    assert outcome.exit_status == 1 and list(labels(tmp_path / "out")) == ["good.parquet"]
    assert failed(tmp_path) == {"a.parquet": "the process that reads it died 3 times"}
    assert run(job()).exit_status == 0


def test_file_whose_publishing_dies_each_time_is_left_out_and_named(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "in/a.parquet", "a quiet day")
    write(tmp_path / "in/good.parquet", "a quiet day")

    def dying(work: Publication, *rest: Any) -> Any:
        if work.shard.name == "a.parquet":
            os._exit(1)
        return publish(work, *rest)

    with monkeypatch.context() as planted:
        planted.setattr(publish_tasks, "publish", dying)
        outcome = run(job())
    assert outcome.exit_status == 1 and list(labels(tmp_path / "out")) == ["good.parquet"]
    [(name, reason)] = failed(tmp_path).items()
    assert name == "a.parquet" and "died" in reason
    assert run(job()).exit_status == 0


def test_file_whose_filtering_dies_each_time_is_left_out_and_named(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "in/a.parquet", "a quiet day")
    write(tmp_path / "in/good.parquet", "a quiet day")
    assert run(job()).exit_status == 0 and ray.is_initialized()

    def dying(work: Sifting) -> None:
        if work.name == "a.parquet":
            os._exit(1)
        sift(work)

    out = tmp_path / "clean"
    with monkeypatch.context() as planted:
        planted.setattr("moderay.tasks.filter.filter._in_worker", dying)
        result = filter_rows(labels=tmp_path / "out", keep="NOT spam.violates", out=out)
    assert result.exit_status == 1 and "died" in result.card.failed["a.parquet"]
    assert [file.name for file in (out / "kept").iterdir()] == ["good.parquet"]
