"""Several drivers on one output: parts, drivers that sleep and wake, and what is left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from support.held import ROWS, UNIT, Held, same_labels, wait_for
from support.outputs import labels, manifest_file, manifest_of

from moderay.labels import lease

NAMES = ("a.parquet", "b.parquet", "day=2/c.parquet")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """This process takes a driver for dead after two seconds; wait until it does."""
    monkeypatch.setattr(lease, "RENEW_S", 0.5)
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    return lambda: time.sleep(2.5)


def asleep(driver: subprocess.Popen[str]) -> bool:
    return psutil.Process(driver.pid).status() == psutil.STATUS_STOPPED


def woken(driver: subprocess.Popen[str]) -> str:
    """What a driver that slept says as it ends."""
    driver.send_signal(signal.SIGCONT)
    _, printed = driver.communicate(timeout=120)
    assert driver.returncode == 3, printed
    return printed.strip().splitlines()[-1]


# The driver of a run that stops itself at a point where a signal from outside hardly ever would.
SLEEPER = """
import os, signal, sys
from moderay.{module} import {name} as owner
inner = owner.{function}
def outer(*args):
    owner.{function} = inner
    {first}
    os.kill(os.getpid(), signal.SIGSTOP)
    return {last}
owner.{function} = outer
sys.argv = ["moderay", "run", sys.argv[1]]
from moderay.cli.app import process
process()
"""
POINTS = {
    "after the last marker": {
        "module": "pipeline.stages.publish_tasks",
        "name": "Publisher",
        "function": "finish",
        "first": "result = inner(*args)",
        "last": "result",
    },
    "between its look and its put": {
        "module": "pipeline",
        "name": "manifest",
        "function": "ended",
        "first": "result = inner(*args)",
        "last": "result",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_driver_that_slept_does_not_write_over_the_one_that_took_over(
    tmp_path: Path, cli, impatient, point: str
) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLEEPER.format(**POINTS[point]), str(held.job)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: asleep(sleeper) or sleeper.poll() is not None)
    impatient()
    assert cli("run", held.job).returncode == 0
    manifest, published = manifest_file(held.out), labels(held.out)
    content = manifest.read_bytes()
    assert "was taken over by another driver" in woken(sleeper)
    assert manifest_file(held.out) == manifest and manifest.read_bytes() == content
    assert same_labels(labels(held.out), published)
    held.assert_whole()
    result = cli("verify", held.out)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "nothing to do" in cli("run", held.job).stdout
    runs = manifest_of(held.out)["runs"]
    assert [run["status"] for run in runs] == ["killed", "finished"]
    assert held.asked() == len(NAMES) * ROWS


@pytest.mark.slow
def test_driver_that_slept_while_it_judged_ends_when_it_wakes(
    tmp_path: Path, cli, impatient
) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    sleeper = held.started()
    sleeper.send_signal(signal.SIGSTOP)
    held.hold.unlink()
    impatient()
    result = cli("run", held.job)
    assert result.returncode == 0, result.stderr
    manifest = manifest_file(held.out)
    assert "was taken over by another driver" in woken(sleeper)
    held.assert_whole()
    assert manifest_file(held.out) == manifest and manifest_of(held.out)["complete"]
    assert cli("verify", held.out).returncode == 0
    asked = held.asked()
    assert cli("run", held.job).returncode == 0  # its engines may have saved what they had in work
    assert held.asked() == asked <= len(NAMES) * (ROWS + UNIT) and not held.units()
    assert "nothing to do" in cli("run", held.job).stdout


# A driver whose publishing tasks wait between the label file and its marker, on a Ray of its own:
# what sleeps gives nothing back.
SLOW_PUBLISHER = """
import sys
import ray
paused, go = sys.argv[2:]
def hook():
    import time
    from pathlib import Path
    from moderay.labels import shard_writer
    put = shard_writer.put_file
    def slow(*args):
        stamp = put(*args)
        Path(paused).touch()
        while not Path(go).exists():
            time.sleep(0.05)
        return stamp
    shard_writer.put_file = slow
ray.init(
    "local",
    num_cpus=2,
    include_dashboard=False,
    runtime_env={"worker_process_setup_hook": hook},
    log_to_driver=False,
    logging_level="ERROR",
)
sys.argv = ["moderay", "run", sys.argv[1]]
from moderay.cli.app import process
process()
"""


@pytest.mark.slow
def test_driver_that_slept_between_a_label_file_and_its_marker_leaves_no_contradiction(
    tmp_path: Path, cli, impatient
) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    paused, go = tmp_path / "paused", tmp_path / "go"
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLOW_PUBLISHER, str(held.job), str(paused), str(go)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: paused.exists() or sleeper.poll() is not None)
    assert sleeper.poll() is None, sleeper.communicate()[1]
    sleeper.send_signal(signal.SIGSTOP)
    impatient()
    result = cli("run", held.job)
    assert result.returncode == 0, result.stderr
    manifest, published = manifest_file(held.out), labels(held.out)
    go.touch()
    assert "was taken over by another driver" in woken(sleeper)
    assert manifest_file(held.out) == manifest
    assert same_labels(labels(held.out), published)
    held.assert_whole()
    result = cli("verify", held.out)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    result = cli("run", held.job)
    assert result.returncode == 0, result.stderr
    assert "nothing to do" in cli("run", held.job).stdout


MANY = tuple(f"{number:02}.parquet" for number in range(40))


@pytest.fixture
def part() -> Iterator[Callable[[Held, str], subprocess.Popen[str]]]:
    """Start a driver of a part, with a Ray of its own, as on machines of their own."""
    started: list[subprocess.Popen[str]] = []

    def start(held: Held, number: str) -> subprocess.Popen[str]:
        driver = subprocess.Popen(
            [sys.executable, "-m", "moderay", "run", str(held.job), f"--part={number}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"RAY_ADDRESS": "local"},
        )
        started.append(driver)
        return driver

    yield start
    for driver in started:
        driver.kill()
        driver.communicate()


def assert_end_well(drivers: Sequence[subprocess.Popen[str]]) -> None:
    for driver in drivers:
        printed, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, printed


@pytest.mark.slow
def test_two_parts_at_once_make_the_output_of_one_run(tmp_path: Path, cli, part) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, MANY, unit={"rows": ROWS})
    assert_end_well([part(held, f"{number}/2") for number in (1, 2)])
    held.assert_whole()
    assert held.asked() == len(MANY) * ROWS
    manifest = manifest_of(held.out)
    assert manifest["complete"] and (manifest["shards"], manifest["rows"]) == (40, 2000)
    assert sum(run["new"]["rows"] for run in manifest["runs"]) == 2000
    assert sum(run["judged"] for run in manifest["runs"]) == 2000
    assert {tuple(run["part"]) for run in manifest["runs"] if run["part"]} == {
        (number, 2) for number in range(2)
    }
    result = cli("verify", held.out)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "40 of 40 shards published, 2,000 rows" in cli("status", held.out).stdout
    result = cli("run", held.job, f"--set=output.path={tmp_path}/one")
    assert result.returncode == 0, result.stderr
    assert same_labels(labels(held.out), labels(tmp_path / "one"))
    for number in ("1/4", "2/3", "16/16"):
        assert "nothing to do" in cli("run", held.job, f"--part={number}").stdout


@pytest.mark.slow
def test_what_a_dead_driver_held_is_labelled_by_those_that_finish(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, MANY[:12])
    held.names = sorted(name for name in MANY[:12] if lease.slots_of((0, 2)) & {_slot(name)})
    theirs = list(held.names)
    assert 0 < len(theirs) < 12
    driver = held.started("--part=2/2")
    held.hold.unlink()
    driver.send_signal(signal.SIGSTOP)  # it lives, and does not go on
    result = cli("run", held.job, "--part=1/2")
    assert result.returncode == 0, result.stderr
    assert f"{len(theirs)} shards are left to other runs" in result.stderr, result.stderr
    assert sorted(labels(held.out)) == sorted({*MANY[:12]} - {*theirs})
    assert not manifest_of(held.out)["complete"]
    shown = cli("status", held.out).stdout
    assert f"{12 - len(theirs)} of 12 shards published" in shown and "renewed" in shown
    driver.kill()
    driver.communicate()
    result = cli("run", held.job, "--part=3/5")
    assert result.returncode == 0, result.stderr
    held.names = sorted(MANY[:12])
    held.assert_whole()
    assert manifest_of(held.out)["complete"] and manifest_of(held.out)["rows"] == 12 * ROWS
    assert held.asked() <= 12 * ROWS + len(theirs) * UNIT
    assert "complete" in cli("status", held.out).stdout
    assert cli("verify", held.out).returncode == 0


def _slot(name: str) -> int:
    from moderay.labels.layout import slot

    return slot(name)


@pytest.mark.slow
def test_parts_one_after_the_other_are_one_output_to_its_readers(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, MANY[:6])
    result = cli("run", held.job, "--part=1/3")
    assert result.returncode == 0, result.stderr
    held.assert_whole()  # nobody held the rest
    assert held.asked() == 6 * ROWS
    model = {"source": f"scripted:{tmp_path}/script.yaml"}
    again = Held(tmp_path / "again", MANY[:6], reuse=[str(held.out)], model=model)
    assert cli("run", again.job, "--part=2/2").returncode == 0
    again.assert_whole()
    assert held.asked() == 6 * ROWS  # it took all from the first
    assert (
        cli("filter", again.job, "--keep", "NOT flagged", "--out", tmp_path / "f").returncode == 0
    )
    assert len(labels(tmp_path / "f/kept")) == 6
    shown = cli("trend", held.out, "--json")
    assert shown.returncode == 0 and '"rows":300' in shown.stdout.replace(" ", "")


@pytest.mark.parametrize(
    "text", ["5/4", "x", "1", "1/", "/4", "-1/4", "1/0", "1/1025", "1/4/2", ""]
)
def test_part_that_is_none_is_refused_in_a_sentence(job, corpus: Path, cli, text: str) -> None:  # type: ignore[no-untyped-def]
    result = cli("run", job(), f"--part={text}")
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2 and len(lines) == 1 and "such as 3/10" in lines[0], result.stderr
