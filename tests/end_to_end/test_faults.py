"""Runs in which something dies, hangs or talks rubbish: what is lost, and when a run ends."""

import datetime
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels, manifest_of

from moderay import run

ANSWER = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}


def test_run_whose_engine_always_dies_ends_with_one_sentence(job, corpus: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("run", job({"default": {"fail": "dead"}}))
    assert (
        result.returncode == 3
        and "10 times in a row" in result.stderr
        and "Traceback" not in result.stderr
    )


@pytest.mark.long
def test_actors_that_die_again_and_again_end_the_run(job, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "in/a.parquet")
    result = cli("run", job({"default": {"fail": "exit"}}))
    assert (
        result.returncode == 3
        and "engine actors were lost one after the other" in result.stderr
        and "Traceback" not in result.stderr
    ), result.stderr
    assert last_run(tmp_path)["status"] == "stopped" and last_run(tmp_path)["actors"] > 10


@pytest.mark.slow
def test_second_driver_is_refused_and_takes_over_once_the_first_is_killed(
    job, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    file = slow(job, tmp_path, 1000)
    first = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((tmp_path / "out/_moderay/leases").glob("*.beat")):
        time.sleep(0.05)
    result = cli("run", file, "--quiet")
    assert (
        result.returncode == 3
        and f"is being written by process {first.pid} on " in result.stderr
        and len(result.stderr.splitlines()) == 1
    ), result.stderr
    first.kill()
    first.wait()
    assert cli("run", file).returncode == 0
    assert sum(len(table) for table in labels(tmp_path / "out").values()) == 1000
    assert [run["status"] for run in manifest_of(tmp_path / "out")["runs"]] == [
        "killed",
        "finished",
    ]


@pytest.mark.slow
def test_driver_whose_output_was_taken_over_ends_and_publishes_nothing_more(
    job, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    file = slow(job, tmp_path, 20_000)
    driver = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((tmp_path / "out/_moderay/units").rglob("*.arrow")):
        time.sleep(0.05)
    (tmp_path / "out/_moderay/leases/0.json").unlink()  # as a driver does that takes over
    _, result = driver.communicate(timeout=120)
    assert (
        driver.returncode == 3
        and "was taken over by another driver" in result
        and "Traceback" not in result
    ), result
    assert labels(tmp_path / "out") == {} and last_run(tmp_path)["status"] == "running"


def slow(job, tmp_path: Path, rows: int = 4000, **sections: Any) -> Path:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    for shard in range(2):
        pq.write_table(
            pa.table({"text": [f"row {shard} {i}" for i in range(rows // 2)]}),
            tmp_path / f"in/{shard}.parquet",
        )
    return job({"default": ANSWER, "delay": {"mean_s": 0.5}}, **{"unit": {"rows": 50}, **sections})  # type: ignore[no-any-return]


def last_run(tmp_path: Path) -> dict[str, Any]:
    run: dict[str, Any] = manifest_of(tmp_path / "out")["runs"][-1]
    return run


def test_model_that_answers_rubbish_stops_the_run_early(job, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table({"text": [f"row {i}" for i in range(20_000)]}), tmp_path / "in/a.parquet"
    )
    result = cli(
        "run",
        job(
            {"default": {"output": "<|channel|>final<|message|>what?<|return|>"}},
            unit={"rows": 100},
        ),
    )
    assert (
        result.returncode == 1
        and "under spam 100% failed, did not parse or were forced" in result.stderr
        and "Traceback" not in result.stderr
    )
    assert last_run(tmp_path)["status"] == "stopped" and last_run(tmp_path)["judged"] < 4000


@pytest.mark.slow
def test_run_in_which_nothing_comes_back_says_what_it_waits_for(job, corpus: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("run", job({"default": {"fail": "hang"}}, limits={"stall_s": 30}))
    assert result.returncode == 3 and "nothing was saved for 30 s" in result.stderr, result.stderr
    assert (
        re.search(
            r"in judging: .*\w\.parquet rows \d+-\d+ in process \d+ on \S+ for \d+ s",
            result.stderr,
        )
        and "Traceback" not in result.stderr
    ), result.stderr


@pytest.mark.slow
def test_sigterm_saves_what_is_complete_and_the_next_run_goes_on(job, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    file = slow(job, tmp_path)
    command = [sys.executable, "-m", "moderay", "run", str(file)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while (
        not list((tmp_path / "out/_moderay/units").rglob("*.arrow")) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, result = driver.communicate(timeout=60)
    assert (
        driver.returncode == 3 and "stopped by SIGTERM" in result and "Traceback" not in result
    ), result
    first = last_run(tmp_path)
    assert first["status"] == "stopped" and 0 < first["judged"] < 4000
    assert cli("run", file).returncode == 0
    assert last_run(tmp_path)["judged"] <= 4000 - first["judged"]
    assert sum(len(table) for table in labels(tmp_path / "out").values()) == 4000


@pytest.mark.slow
def test_run_stops_on_time(job, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    until = datetime.datetime.now() + datetime.timedelta(seconds=12)
    result = cli("run", slow(job, tmp_path, 40_000, limits={"until": until.isoformat()}))
    assert (
        result.returncode == 3
        and "limits.until" in result.stderr
        and "Traceback" not in result.stderr
    )


@pytest.mark.slow
def test_bytes_read_and_not_yet_judged_stay_under_their_limit(job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    for shard in range(4):
        pq.write_table(
            pa.table({"text": [f"{i} " * 200 for i in range(400)]}),
            tmp_path / f"in/{shard}.parquet",
        )
    unit, model = (
        {"rows": 20, "bytes": "64KiB"},
        {"source": "scripted:script.yaml", "engine": {"max_num_seqs": 64}},
    )
    outcome = run(job({"default": ANSWER, "delay": {"mean_s": 0.3}}, unit=unit, model=model))
    limit = (math.ceil(8 * 64 / 20) + 2 + 2) * 2**16
    assert outcome.judged == 1600 and 0 < outcome.manifest.last_run.most_bytes_ahead <= limit
