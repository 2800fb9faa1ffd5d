"""Dials and events of a real run: what the metrics agent exports, what alert rules name, what
stands in the logs.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.project import ROOT, SCRIPT

from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.core import events
from moderay.core.errors import UserError
from moderay.core.storage import patiently
from moderay.corpus.content import texts
from moderay.engines.base import Completion, Counted, EngineDeadError, Request
from moderay.engines.host import EngineHost
from moderay.engines.scripted import Script, ScriptedSpec
from moderay.engines.usage import Usage
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.tasks.embed import job_cascades

Sample = tuple[str, dict[str, str], float]


@dataclass(frozen=True)
class Ran:
    """A run with a metrics port: samples of its dials, its manifest entry, its progress file, and
    what its workers logged.
    """

    samples: list[Sample]
    entry: dict[str, Any]
    driver: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    text: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Some 150 rows, one of which kills its engine, on a Ray that reports every second."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("dials")
    (folder / "in").mkdir()
    texts = [
        "the deadly one",
        "claim your prize",
        "failing",
        None,
        *(f"secret content {i}" for i in range(146)),
    ]
    pq.write_table(pa.table({"text": texts}), folder / "in/a.parquet")
    script = SCRIPT | {
        "rules": [*SCRIPT["rules"], {"content": "deadly", "fail": "dead"}],
        "delay": {"mean_s": 0.2},
    }  # type: ignore[misc]
    (folder / "script.yaml").write_text(yaml.safe_dump(script))
    job = {
        "name": "dialled",
        "input": {"path": "in", "content": "text"},
        "output": {"path": "out"},
        "policies": [str(ROOT / "policies/spam")],
        "model": {"source": "scripted:script.yaml", "engine": {"max_num_seqs": 16}},
        "unit": {"rows": 10},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = {
        "num_cpus": 2,
        "include_dashboard": False,
        "metrics_export_port": port,
        "_system_config": {"metrics_report_interval_ms": 1000},
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        command = [
            sys.executable,
            "-m",
            "moderay",
            "run",
            str(folder / "job.yaml"),
            "--progress",
            str(folder / "progress.jsonl"),
        ]
        driver = subprocess.Popen(
            command,
            env=os.environ | {"RAY_ADDRESS": cluster.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        seen: dict[str, Sample] = {}
        while driver.poll() is None:
            time.sleep(0.5)
            seen |= {str(sample[:2]): sample for sample in _scraped(port)}
        assert driver.returncode == 0, driver.communicate()[1].decode()
        logs = [
            file.read_text(errors="replace")
            for file in Path(cluster.head_node.get_logs_dir_path()).glob("worker-*.err")
        ]
    finally:
        cluster.shutdown()
    entry = json.loads((folder / "out/_moderay/manifest.json").read_text())["runs"][-1]
    progress = (folder / "progress.jsonl").read_text()
    lines = [json.loads(line) for log in logs for line in log.splitlines() if line.startswith("{")]
    yield Ran(
        list(seen.values()),
        entry,
        [json.loads(line) for line in progress.splitlines()],
        lines,
        "".join(logs) + progress,
    )


def _scraped(port: int) -> list[Sample]:
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        return []  # the agent is not there yet
    return [
        (s.name, s.labels, s.value)
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if "moderay" in s.name
    ]


def test_every_metric_that_an_alert_rule_names_was_exported_by_a_run(ran: Ran) -> None:
    groups = yaml.safe_load((ROOT / "infra/alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        assert set(rule) <= {"record", "alert", "expr", "for", "labels", "annotations"} and (
            "record" in rule
        ) != ("alert" in rule)
        assert "record" in rule or {"summary", "description"} <= set(rule["annotations"])
    named = set(
        re.findall(r"\b(?:ray_)?moderay[a-z0-9_:]*", " ".join(rule["expr"] for rule in rules))
    )
    assert named and named <= {name for name, _, _ in ran.samples} | recorded


def test_labels_are_of_bounded_sets_and_figures_those_of_the_manifest(ran: Ran) -> None:
    of_ray = {
        "Component",
        "JobId",
        "NodeAddress",
        "SessionName",
        "Version",
        "WorkerId",
        "NodeId",
        "IsHeadNode",
    }
    of_ray |= {"otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}
    labels: dict[str, set[str]] = {}
    sums: dict[str, float] = {}
    for name, tags, value in ran.samples:
        own = {key: tag for key, tag in tags.items() if key not in of_ray}
        labels.setdefault(name, set()).update(own)
        sums[" ".join([name, *own.values()])] = sums.get(" ".join([name, *own.values()]), 0) + value
    assert labels["ray_moderay_verdicts_total"] == {"policy", "label", "judge", "status"}
    assert set.union(*labels.values()) == {
        "policy",
        "label",
        "judge",
        "status",
        "outcome",
        "source",
        "state",
    }
    usage = ran.entry["usage"]
    assert (
        ran.entry["engine_restarts"] == usage["engine_deaths"] == 3 and usage["engine_starts"] == 4
    )
    # What an actor did last may die with it.
    assert (
        0 < sums["ray_moderay_rows_total"] <= 150
        and 0 < sums["ray_moderay_requests_total"] <= usage["requests"]
    )
    assert (
        0
        < sums["ray_moderay_engine_seconds_total working"]
        <= usage["engine_working_ms"] / 1000 + 2
    )


def test_events_are_json_lines_with_run_shard_and_unit_and_without_contents(ran: Ran) -> None:
    for line in [*ran.driver, *ran.workers]:
        assert (
            line["job"] == "dialled"
            and line["run"] == 0
            and line["event"]
            and line["level"]
            and line["time"]
        )
    ended = [line for line in ran.workers if line["event"] == "unit ended"]
    assert sorted(line["unit"] for line in ended) == [
        [start, start + 10] for start in range(0, 150, 10)
    ]
    assert {line["shard"] for line in ended} == {"a.parquet"}
    assert [line["event"] for line in ran.workers].count("engine died") == 3
    told = [line["event"] for line in ran.driver if line["event"] != "progress"]
    assert told == ["run started", "shard published", "run ended"] and "progress" in {
        line["event"] for line in ran.driver
    }
    assert "secret content" not in ran.text and "deadly" not in ran.text


def test_a_retry_of_storage_and_the_end_of_a_run_are_events(tmp_path: Path) -> None:
    class ThrottledError(Exception):
        response = {"ResponseMetadata": {"HTTPStatusCode": 503}}

    tries = iter([ThrottledError("key=SECRET"), None])

    def call() -> None:
        if (error := next(tries)) is not None:
            raise error

    with (
        pytest.raises(UserError),
        events.of_run("nightly", 7, tmp_path / "events.jsonl"),
        events.about(shard="a", unit=(0, 10)),
    ):
        patiently(object(), call)
        raise UserError("the bucket is gone")
    events.event("not of this run any more")
    retried, stopped = [
        json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()
    ]
    assert (retried["event"], retried["kind"], retried["shard"], retried["unit"]) == (
        "storage retried",
        "ThrottledError",
        "a",
        [0, 10],
    )
    assert (stopped["event"], stopped["level"], stopped["reason"], stopped["run"]) == (
        "run stopped",
        "error",
        "the bucket is gone",
        7,
    )
    assert "SECRET" not in (tmp_path / "events.jsonl").read_text()


def test_engine_time_is_starting_idle_or_working_and_adds_up() -> None:
    class Slow:
        async def generate(self, request: Request) -> Completion:
            await asyncio.sleep(0.2)
            if not request.prompt:
                raise EngineDeadError("dead")
            return Completion([1, 2], {}, cached=3)

        def close(self) -> None: ...

    async def work() -> Usage:
        usage = Usage(seats=2)
        with usage.starting():
            await asyncio.sleep(0.1)
        engine = Counted(Slow(), usage)
        await asyncio.sleep(0.1)
        answers = await asyncio.gather(
            *[engine.generate(Request(prompt, 8)) for prompt in ([1] * 5, [1] * 5, [])],
            return_exceptions=True,
        )
        assert isinstance(answers[2], EngineDeadError)
        await asyncio.sleep(0.1)
        return usage

    began = time.monotonic()
    found = asyncio.run(work()).figures()
    passed = 1000 * (time.monotonic() - began)
    times = {state: found[f"engine_{state}_ms"] for state in ("starting", "idle", "working")}
    assert (
        times["starting"] == pytest.approx(100, abs=60)
        and times["idle"] == pytest.approx(200, abs=60)
        and times["working"] == pytest.approx(200, abs=60)
    )
    assert passed - 60 <= sum(times.values()) <= passed
    assert found["seats_taken_ms"] == pytest.approx(2 * times["working"], abs=2)
    assert found["seats_taken_ms"] + found["seats_free_ms"] == pytest.approx(
        2 * sum(times.values()), abs=8
    )
    counts = {
        name: found[name]
        for name in ("engine_starts", "requests", "prompt_tokens", "cached_tokens", "output_tokens")
    }
    assert counts == {
        "engine_starts": 1,
        "requests": 2,
        "prompt_tokens": 10,
        "cached_tokens": 6,
        "output_tokens": 4,
    }


def test_units_are_admitted_in_order_as_soon_as_the_engine_has_room() -> None:
    async def work() -> list[str]:
        host, told = EngineHost(ScriptedSpec(Script(), max_num_seqs=4)), list[str]()

        async def unit(name: str, questions: int, answers: asyncio.Event) -> None:
            async with host.admitted(questions) as answered:
                told.append(f"{name} in")
                await answers.wait()
                answered(questions - 1)  # all but one, which is slow
                await asyncio.sleep(0.05)
            told.append(f"{name} out")

        first, others = asyncio.Event(), asyncio.Event()
        units = [
            asyncio.create_task(unit(name, 6, first if name == "a" else others)) for name in "abcd"
        ]
        await asyncio.sleep(0.02)
        told.append("-")
        first.set()
        await asyncio.sleep(0.02)
        others.set()
        await asyncio.gather(*units)
        return told

    # Eight questions are enough for four seats: c comes in as those of a are answered, before a is
    # out.
    assert asyncio.run(work())[:4] == ["a in", "b in", "-", "c in"]


def test_units_outside_come_in_when_the_row_that_kills_the_engine_is_found() -> None:
    job = Job.model_validate(
        {"input": {"path": "", "content": "text"}, "output": {"path": ""}, "policies": ["spam"]}
    )
    default = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}
    script = Script.model_validate(
        {"default": default, "rules": [{"content": "deadly", "fail": "dead"}]}
    )
    spec = ScriptedSpec(script, max_num_seqs=8)
    cascades = job_cascades(job, [load_policy(ROOT / "policies/spam")])
    contents = ["deadly" if row == 25 else f"row {row}" for row in range(200)]
    tables = [
        prepared(
            pa.table({POSITION: range(i, i + 10)}),
            texts(pa.chunked_array([contents[i : i + 10]])),
            job,
            cascades,
            cascades[0].last.safeguard.vocab,
        )
        for i in range(0, 200, 10)
    ]

    async def work() -> tuple[list[str], int]:
        host, begun, most = EngineHost(spec), 0, 0

        async def unit(table: pa.Table) -> pa.Table:
            nonlocal begun, most
            async with host.admitted(questions(cascades, table)) as answered:
                begun += 1
                most = max(most, begun)
                judged = await judge_unit(host, cascades, table, 0, answered)
                begun -= 1
                return judged

        async with asyncio.timeout(60):
            found = await asyncio.gather(*[unit(table) for table in tables])
        return [
            verdict["status"] for table in found for verdict in table.column("spam").to_pylist()
        ], most

    statuses, most = asyncio.run(work())
    assert statuses == ["engine_error" if row == 25 else "ok" for row in range(200)]
    assert 2 <= most < 20  # not all at once
