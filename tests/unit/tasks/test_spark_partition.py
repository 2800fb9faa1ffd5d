"""What a task of Spark does with its rows, without Spark: it gives batches and takes batches."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from support.project import ROOT, environment
from support.scripted import SCRIPT

from moderay.tasks.embedded_job import embedded_job
from moderay.tasks.spark import engine as engines
from moderay.tasks.spark.engine import engine_of_this_process
from moderay.tasks.spark.gpus import Claim
from moderay.tasks.spark.partition import label_partition, units
from moderay.tasks.spark.recipe import Recipe, recipe

POLICIES = [str(ROOT / "policies" / name) for name in ("spam", "harassment")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The executor's own; the engine that a test has left ends with it."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path},/nowhere")
    yield tmp_path
    if engines._current is not None:
        engines._current.end()


def made(folder: Path, script: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    """The recipe for a column of texts, whose engine writes a byte for each answer."""
    (folder / "script.yaml").write_text(
        yaml.safe_dump({**SCRIPT, "log": str(folder / "log"), **(script or {})})
    )
    job, policies = embedded_job("text", POLICIES, f"scripted:{folder}/script.yaml", settings)
    return recipe(job, policies, ["n", "text"])


def batches(texts: list[str | None], size: int) -> Iterator[pa.RecordBatch]:
    """As Spark gives them, with columns called by numbers."""
    table = pa.table({"0": range(len(texts)), "1": pa.array(texts, pa.string())})
    yield from table.to_batches(size)


def answers(folder: Path) -> int:
    log = folder / "log"
    return log.stat().st_size if log.exists() else 0


def test_contents_that_come_again_in_a_partition_are_asked_once(folder: Path) -> None:
    texts = ["hello", "claim your prize", None, "failing one", "hello"] * 40
    rows = pa.Table.from_batches(
        label_partition(batches(texts, 64), made(folder, unit={"rows": 7}))
    )
    assert rows.column("n").to_pylist() == list(range(200))
    assert rows.column("text").to_pylist() == texts
    spam = rows.column("spam").to_pylist()
    assert [verdict["label"] for verdict in spam[:5]] == ["SP0", "SP4", None, None, "SP0"]
    assert {v["status"] for v in spam[3::5]} == {"engine_error"}
    assert [v["trace"]["origin"] for v in spam[:5]] == ["judged", "judged", None, None, "duplicate"]
    assert {v["trace"]["origin"] for v in spam[5::5]} == {"duplicate"}
    once = answers(folder)
    list(label_partition(batches(texts[:4], 64), made(folder, unit={"rows": 7})))
    assert answers(folder) == 2 * once > 0


def test_rule_that_holds_for_one_copy_only_settles_that_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = folder / "spam"
    policy.mkdir()
    (policy / "policy.md").write_bytes(Path(POLICIES[0], "policy.md").read_bytes())
    rule = {"id": "trusted", "label": "SP0", "where": "n < 3"}
    (policy / "rules.yaml").write_text(yaml.safe_dump({"rules": [rule]}))
    monkeypatch.setitem(globals(), "POLICIES", [str(policy)])
    cascade = [{"rules": {}}, {"reason": {}}]
    texts = ["claim your prize"] * 6
    wanted = made(folder, unit={"rows": 1}, cascade=cascade)
    rows = pa.Table.from_batches(label_partition(batches(texts, 6), wanted))
    spam = rows.column("spam").to_pylist()
    assert [verdict["label"] for verdict in spam] == ["SP0"] * 3 + ["SP4"] * 3
    origins = [verdict["trace"]["origin"] for verdict in spam]
    assert origins == ["judged"] * 4 + ["duplicate"] * 2


def test_no_more_is_read_than_keeps_the_engine_full(folder: Path) -> None:
    read = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for batch in batches([f"hello {n}" for n in range(4000)], 10):
            read += len(batch)
            yield batch

    model_of_two = made(folder, unit={"rows": 5})
    job = model_of_two.job
    few = {"source": job.model.source, "engine": {"max_num_seqs": 2}}
    job, policies = embedded_job("text", POLICIES, few, {"unit": {"rows": 5}})
    labelled = label_partition(counted(), recipe(job, policies, ["n", "text"]))
    next(labelled)
    assert read <= 30
    labelled.close()  # as a `limit` does
    assert read <= 30
    engine = engines._current
    assert engine is not None and engine.work()  # it is there for the next task


def test_units_are_bounded_by_rows_and_by_bytes() -> None:
    table = pa.table({"text": ["x" * 1000] * 100})
    assert [len(unit) for unit in units(table, 30, 10**9)] == [30, 30, 30, 10]
    assert max(unit.nbytes for unit in units(table, 100, 10_000)) <= 10_000
    assert [len(unit) for unit in units(table.slice(0, 3), 100, 1)] == [1, 1, 1]


def test_worker_keeps_its_engine_and_another_kind_takes_its_place(folder: Path) -> None:
    spec = made(folder).on_cpu
    first = engine_of_this_process(spec, ())
    assert engine_of_this_process(made(folder).on_cpu, ()) is first
    other = engine_of_this_process(made(folder, {"notes": True}).on_cpu, ())
    assert other is not first and not first.work() and other.work()


HOLDER = """
import sys, time
from moderay.tasks.spark.engine import engine_of_this_process
from moderay.tasks.spark.task import local_folder
from moderay.engines.scripted import ScriptedSpec
engine = engine_of_this_process(ScriptedSpec.load(sys.argv[1], 4), ("7",))
print("holds", flush=True)
sys.stdin.readline()
engine.rest()
print("rests", flush=True)
time.sleep(60)
"""


def test_gpu_of_an_idle_worker_goes_to_the_one_that_waits_for_it(folder: Path) -> None:
    made(folder)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder / "script.yaml")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        waiting = multiprocessing.get_context("fork").Process(target=Claim, args=(["7"],))
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive()  # while a task is at work there
        holder.stdin.write("\n")
        holder.stdin.flush()
        waiting.join(10)
        assert waiting.exitcode == 0
        holder.kill()


def test_worker_that_is_killed_takes_what_its_engine_has_started_along(folder: Path) -> None:
    code = """
import multiprocessing, sys, time
from moderay.engines.scripted import ScriptedSpec
from moderay.tasks.spark.engine import ProcessEngine
if __name__ == "__main__":
    engine = ProcessEngine(ScriptedSpec.load(sys.argv[1], 4), ("3",))
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    engine.submit(engine.start()).result()
    print(child.pid, flush=True)
    time.sleep(60)
"""
    made(folder)
    script = folder / "worker.py"
    script.write_text(code)
    with subprocess.Popen(
        [sys.executable, str(script), str(folder / "script.yaml")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        worker.kill()
        claim = Claim(["3"])  # free when the child is gone, and not before
        status = Path(f"/proc/{child}/status")
        assert not status.exists() or "zombie" in status.read_text()
        claim.release()


def test_task_without_rows_asks_no_engine(folder: Path) -> None:
    assert list(label_partition(iter([]), made(folder))) == []
    assert answers(folder) == 0
