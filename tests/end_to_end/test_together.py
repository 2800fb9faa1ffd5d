"""Units that travel together, and small shards that are read and published together, where one of
them goes wrong.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels, manifest_of

from moderay import run
from moderay.labels.shard_writer import Publication, publish
from moderay.pipeline import flow
from moderay.pipeline.messages.units import UnitDone, UnitRead, units_read
from moderay.pipeline.stages import publish_tasks
from moderay.pipeline.stages.judge_actor import Judge
from moderay.pipeline.stages.read_task import read_task

SHARDS = 60


def shards(folder: Path, count: int, rows: int = 3) -> list[str]:
    (folder / "in").mkdir()
    names = [f"{number:03}.parquet" for number in range(count)]
    for name in names:
        table = pa.table({"text": [f"a quiet day {name} {row}" for row in range(rows)]})
        pq.write_table(table, folder / "in" / name)
    return names


@pytest.mark.slow
def test_small_shards_are_read_together_and_one_that_cannot_be_read_fails_alone(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    names = shards(tmp_path, SHARDS)
    read = tmp_path / "read.txt"

    def noting(batch: pa.Table, **rest: Any) -> Iterator[pa.Table]:
        for block in read_task(batch, **rest):
            with read.open("a") as file:
                file.write(f"{len(units_read(block))}\n")
            if units_read(block)[0].source.shard == names[0]:
                (tmp_path / "in" / names[1]).write_bytes(b"no Parquet any more")
            yield block

    with monkeypatch.context() as planted:
        planted.setattr(flow, "read_task", noting)
        outcome = run(job())
    assert outcome.exit_status == 1 and len(manifest_of(tmp_path / "out")["failed"]) == 1
    assert sorted(labels(tmp_path / "out")) == [name for name in names if name != names[1]]
    blocks = list(map(int, read.read_text().split()))
    assert sum(blocks) == SHARDS and max(blocks) > 5 and len(blocks) < SHARDS


@pytest.mark.slow
def test_units_that_a_lost_actor_had_saved_are_not_judged_again(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    shards(tmp_path, 1, 2000)
    lost, saved = tmp_path / "lost", tmp_path / "saved.txt"

    class Dying(Judge):
        def _saved(self, unit: UnitRead, judged: pa.Table) -> UnitDone:
            done = super()._saved(unit, judged)
            with saved.open("a") as file:
                file.write(f"{unit.rows[0]}\n")
            # At least: threads save side by side, and may write their lines before either counts.
            if len(saved.read_text().split()) >= 40 and not lost.exists():
                lost.touch()
                os._exit(1)
            return done

    with monkeypatch.context() as planted:
        planted.setattr(flow, "Judge", Dying)
        outcome = run(job(unit={"rows": 4}))
    assert lost.exists() and manifest_of(tmp_path / "out")["runs"][-1]["actors"] == 2
    assert outcome.exit_status == 0 and labels(tmp_path / "out")["000.parquet"].num_rows == 2000
    units = saved.read_text().split()
    assert len(units) == len(set(units)) >= 495
    # Its tokens are counted, although who asked for them is gone.
    counts = manifest_of(tmp_path / "out")["counts"]["spam"]
    assert (counts["ok"], counts["duplicates"], counts["reused"]) == (2000, 0, 0)


@pytest.mark.slow
def test_reader_that_dies_of_one_shard_is_survived_by_the_others_in_the_next_run(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    names = shards(tmp_path, SHARDS)

    def dying(batch: pa.Table, **rest: Any) -> Iterator[pa.Table]:
        for block in read_task(batch, **rest):
            if any(unit.source.shard == names[3] for unit in units_read(block)):
                os._exit(1)
            yield block

    with monkeypatch.context() as planted:
        planted.setattr(flow, "read_task", dying)
        assert run(job()).exit_status == 1
        failed = manifest_of(tmp_path / "out")["failed"]
        assert names[3] in failed and len(failed) < SHARDS / 2
        assert run(job()).exit_status == 1
        assert list(manifest_of(tmp_path / "out")["failed"]) == [names[3]]
    assert run(job()).exit_status == 0 and sorted(labels(tmp_path / "out")) == names


@pytest.mark.slow
def test_publishing_that_dies_of_one_shard_fails_it_alone(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    names = shards(tmp_path, SHARDS)

    def dying(work: Publication, *rest: Any) -> Any:
        if work.shard.name == names[40]:
            os._exit(1)
        return publish(work, *rest)

    with monkeypatch.context() as planted:
        planted.setattr(publish_tasks, "publish", dying)
        outcome = run(job())
    assert outcome.exit_status == 1 and outcome.judged == 3 * SHARDS
    assert list(manifest_of(tmp_path / "out")["failed"]) == [names[40]]
    assert sorted(labels(tmp_path / "out")) == [name for name in names if name != names[40]]
    assert manifest_of(tmp_path / "out")["shards"] == SHARDS - 1
    assert run(job()).exit_status == 0 and sorted(labels(tmp_path / "out")) == names
