"""The gate: golden sets are judged before the corpus, on the same engines, and paid for once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from support.gates import cases, write_policy
from support.held import PATIENT
from support.outputs import labels, manifest_of, verdicts_of
from support.project import judging
from support.scripted import SCRIPT, write_job

import moderay
from moderay.core.errors import StoppedError
from moderay.pipeline.control.gatekeeper import is_open, start_gatekeeper
from moderay.pipeline.gate import GateClosedError

# Requests for a content under a policy, of the judge that reasons.
REQUESTS = 2
# From now on the model takes for spam what is subtle.
MENDED = "\nSubtle ones are spam, too.\n"
MENDING = {
    **SCRIPT,
    "rules": [
        {
            "content": "subtle",
            "policy": "Subtle ones",
            "answer": '{"label": "SP4", "rationale": "It is subtle."}',
            "p": 0.9,
        },
        *SCRIPT["rules"],
    ],
}


def write_corpus(folder: Path, texts: list[str], shards: int = 1) -> None:
    (folder / "in").mkdir()
    for number in range(shards):
        own = [f"{text} of {number}" for text in texts]
        pq.write_table(pa.table({"text": own}), folder / f"in/{number}.parquet")


def spent(folder: Path) -> list[int]:
    """Requests of each run."""
    return [run["usage"].get("requests", 0) for run in manifest_of(folder)["runs"]]


def words(text: str) -> list[str]:
    """Lines without what aligns them."""
    return [" ".join(line.split()) for line in text.splitlines()]


def published(folder: Path) -> list[str]:
    """Label files, and units of them."""
    files = [*folder.glob("*.parquet"), *folder.glob("_moderay/units/**/*.arrow")]
    return sorted(str(file.relative_to(folder)) for file in files)


@pytest.mark.slow
def test_gate_fails_is_resumed_without_paying_and_opens_for_a_mended_policy(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    write_corpus(tmp_path, [f"{word} {i}" for i in range(10) for word in ("prize", "calm")], 3)
    write_policy(tmp_path, cases(violating=40, safe=30, missed=12, wrong=1))
    write_policy(tmp_path, cases(violating=20, safe=20), "ads")
    gate = {"golden": {"recall": 0.7, "precision": 0.6}, "ads": {"recall": 0.8}}
    sections = {"policies": ["spam", "ads"], "gate": gate, "unit": {"rows": 5}}
    file = write_job(tmp_path, MENDING, **sections)
    out = tmp_path / "out"

    failed = cli("run", file)
    assert failed.returncode == 1
    closed = "the gate is closed: spam recall 28 of 40 found, lower end 0.534, floor 0.7; no row"
    assert closed in failed.stderr and failed.stderr.count("judging 110 golden cases first") == 1
    assert words(failed.stdout)[-4:] == [
        "spam recall 28 of 40 0.535 to 0.834 0.7 FAILED",
        "spam precision 28 of 29 0.822 to 0.999 0.6 passed",
        "ads recall 20 of 20 0.832 to 1.000 0.8 passed",
        "ads precision 20 of 20 0.832 to 1.000 0.6 passed",
    ]
    assert published(out) == []
    [run] = manifest_of(out)["runs"]
    assert run["status"] == "stopped" and run["stopped"].startswith("the gate is closed")
    assert run["judged"] == 0 and run["new"]["rows"] == 0
    assert [(each["policy"], each["figure"], each["passed"]) for each in run["gate"]] == [
        ("spam", "recall", False),
        ("spam", "precision", True),
        ("ads", "recall", True),
        ("ads", "precision", True),
    ]
    assert spent(out) == [REQUESTS * (70 + 40)]

    again = cli("run", file)
    assert again.returncode == 1 and words(again.stdout)[-4:] == words(failed.stdout)[-4:]
    assert spent(out) == [REQUESTS * 110, 0] and published(out) == []

    write_policy(tmp_path, cases(violating=40, safe=30, missed=12, wrong=1), text=MENDED)
    assert "golden cases 70 judged first: spam 70" in words(cli("plan", file).stdout)
    opened = cli("run", file)
    assert opened.returncode == 0, opened.stderr
    assert "spam recall 40 of 40 0.912 to 1.000 0.7 passed" in words(opened.stdout)
    assert spent(out)[2] == REQUESTS * (70 + 2 * 60)
    assert published(out) == ["0.parquet", "1.parquet", "2.parquet"]
    assert manifest_of(out)["complete"] and manifest_of(out)["rows"] == 60
    verdicts = [verdict for table in labels(out).values() for verdict in verdicts_of(table, "spam")]
    assert sum(verdict["violates"] for verdict in verdicts) == 30

    # A new night: what was judged of golden sets is kept, and the gate is looked at again.
    pq.write_table(pa.table({"text": ["a prize", "a day"]}), tmp_path / "in/3.parquet")
    assert "golden cases 110, all of them judged already" in words(cli("plan", file).stdout)
    assert cli("run", file).returncode == 0 and spent(out)[3] == REQUESTS * 4
    assert [each["passed"] for each in manifest_of(out)["runs"][3]["gate"]] == [True] * 4
    # Another threshold decides anew, without an engine: also on golden sets.
    policy = tmp_path / "spam/policy.md"
    policy.write_text(policy.read_text().replace("threshold: 0.5", "threshold: 0.99"))
    before = labels(out)
    with pytest.raises(GateClosedError, match="spam recall 0 of 40 found"):
        moderay.run(file)
    assert labels(out) == before and spent(out)[4] == 0


@pytest.mark.slow
def test_rows_that_rules_settle_wait_for_the_gate_too(tmp_path: Path) -> None:
    write_corpus(tmp_path, [f"casino {i}" for i in range(40)], 2)
    # Half of the golden set is settled by rules as well.
    casinos = [{"content": f"casino no {i}", "label": "SP4"} for i in range(10)]
    write_policy(tmp_path, [*casinos, *cases(10, 20)])
    rules = "rules: [{id: forbidden, label: SP4, any_of: [casino]}]"
    (tmp_path / "spam/rules.yaml").write_text(rules)
    script = {**SCRIPT, "rules": [{"content": "prize", "fail": "request"}]}
    sections = {"policies": ["spam"], "cascade": ["rules", "reason"], "unit": {"rows": 5}}
    file = write_job(tmp_path, script, gate={"golden": {"recall": 0.6}}, **sections)
    with pytest.raises(GateClosedError) as closed:
        moderay.run(file)
    [figure] = closed.value.figures
    assert (figure.k, figure.n, figure.not_judged) == (10, 20, 10)
    assert published(tmp_path / "out") == []
    outcome = moderay.run(file, ["gate.golden.recall=0.25"])
    assert outcome.exit_status == 0 and outcome.gate[0].passed
    assert published(tmp_path / "out") == ["0.parquet", "1.parquet"]
    assert outcome.manifest.judges["spam"]["rules"].settled == 80


@pytest.fixture
def stuck(tmp_path: Path) -> tuple[Path, Path]:
    """A job, and a file: as long as that exists, a golden case of the second policy hangs."""
    write_corpus(tmp_path, [f"calm {i}" for i in range(20)], 4)
    write_policy(tmp_path, cases(20, 20))
    write_policy(tmp_path, [*cases(20, 20), {"content": "it sticks", "label": "SP4"}], "ads")
    hold = tmp_path / "hold"
    hold.touch()
    rules = [{"content": "sticks", "fail": "hang", "while": str(hold)}, *SCRIPT["rules"]]
    sections = {"policies": ["spam", "ads"], "gate": {"golden": {"recall": 0.5}}}
    return write_job(tmp_path, {**SCRIPT, "rules": rules}, **sections, limits=PATIENT), hold


def once_spam_is_judged(folder: Path, act: Callable[[], object]) -> AbstractContextManager[None]:
    """Do something as soon as the golden set of spam is, while that of ads still hangs."""
    return once(lambda: bool(list(folder.glob("out/_moderay/gate/spam/*.arrow"))), act)


@contextmanager
def once(is_so: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as something is so, in a thread of its own."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.2):
            if is_so():
                act()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


@pytest.mark.slow
def test_run_that_is_stopped_before_the_gate_opens_keeps_what_was_judged(
    stuck: tuple[Path, Path], tmp_path: Path
) -> None:
    file, hold = stuck
    with (
        once_spam_is_judged(tmp_path, lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.raises(StoppedError, match="stopped by SIGINT") as stopped,
    ):
        moderay.run(file, ["limits.grace_s=1"])
    assert stopped.value.exit_status == 3 and published(tmp_path / "out") == []
    assert manifest_of(tmp_path / "out")["runs"][0]["gate"] == []
    # An actor that is still about would go on with what hung, on nobody's account.
    assert psutil.wait_procs(judging(), timeout=60)[1] == []
    hold.unlink()
    outcome = moderay.run(file)
    assert outcome.manifest.complete and spent(tmp_path / "out")[1] == REQUESTS * (41 + 2 * 80)


@pytest.mark.slow
def test_run_that_is_stopped_before_anything_has_come_back_ends_what_hangs(tmp_path: Path) -> None:
    write_corpus(tmp_path, ["calm", "it sticks"])
    hold, answered = tmp_path / "hold", tmp_path / "answered"
    hold.touch()
    rules = [{"content": "sticks", "fail": "hang", "while": str(hold)}]
    file = write_job(tmp_path, {**SCRIPT, "rules": rules, "log": str(answered)})
    with (
        once(answered.exists, lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.raises(StoppedError),
    ):
        moderay.run(file, ["limits.grace_s=1"])
    assert psutil.wait_procs(judging(), timeout=60)[1] == []


@pytest.mark.slow
def test_actor_that_dies_over_golden_cases_begins_them_again(
    stuck: tuple[Path, Path], tmp_path: Path
) -> None:
    file, hold = stuck

    def kill() -> None:
        for process in judging():
            process.kill()
        hold.unlink()

    with once_spam_is_judged(tmp_path, kill):
        outcome = moderay.run(file)
    assert outcome.manifest.complete and outcome.manifest.last_run.actors > 1
    assert [figure.k for figure in outcome.gate] == [20, 20]
    [kept] = (tmp_path / "out/_moderay/gate/ads").iterdir()
    assert kept.name.endswith("-0-0-41.arrow")


def test_who_waits_at_the_gate_holds_no_core_and_survives_its_keepers_death() -> None:
    wait = ray.remote(num_cpus=1)(is_open)

    @ray.remote(num_cpus=1)
    def other() -> str:
        return "had a core"

    gatekeeper = start_gatekeeper()
    waiting = [wait.remote(gatekeeper) for _ in range(4)]
    assert ray.wait(waiting, timeout=3) == ([], waiting)
    # They are more than there are cores.
    assert ray.get(other.remote(), timeout=60) == "had a core"
    gatekeeper.open.remote()
    assert ray.get(waiting, timeout=60) == [True] * 4
    ray.kill(gatekeeper, no_restart=False)
    forgotten = wait.remote(gatekeeper)
    assert ray.wait([forgotten], timeout=3)[0] == []
    gatekeeper.open.remote()
    assert ray.get(forgotten, timeout=60) is True
    stopping = start_gatekeeper()
    stopped = wait.remote(stopping)
    stopping.stop.remote()
    assert ray.get(stopped, timeout=60) is False
    for each in (gatekeeper, stopping):
        ray.kill(each)
