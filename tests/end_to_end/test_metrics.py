"""Dials and events of a real run: what the metrics agent exports, what alert rules name, what
stands in the logs.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.outputs import manifest_of
from support.project import ROOT
from support.prometheus import prometheus
from support.scripted import SCRIPT, write_job

pytestmark = pytest.mark.slow

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
    asked: dict[str, list[dict[str, Any]]]
    rules: list[dict[str, Any]]


HAS_PROMETHEUS = shutil.which("prometheus") is not None
DASHBOARD = ROOT / "infra/grafana/moderay.json"


def queries() -> list[str]:
    """Of the dashboard's panels, as Grafana sends them."""
    targets = [
        target
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    filled = {"$__rate_interval": "15s", "$__range": "1h", "$cluster": ".*"}
    return [
        re.sub(r"\$\w+", lambda variable: filled[variable[0]], target["expr"]) for target in targets
    ]


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
        # So that the run lasts: on a busy machine the agent takes seconds over an answer.
        "delay": {"mean_s": 0.8},
    }  # type: ignore[misc]
    model = {"source": "scripted:script.yaml", "engine": {"max_num_seqs": 16}}
    write_job(folder, script, name="dialled", model=model, unit={"rows": 10})
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
    begun = time.time()
    asked: dict[str, list[dict[str, Any]]] = {}
    rules: list[dict[str, Any]] = []
    with ExitStack() as stack:
        stack.callback(cluster.shutdown)
        server = None
        if HAS_PROMETHEUS:
            alerts = ROOT / "infra/alerts.yaml"
            server = stack.enter_context(prometheus(folder, port, alerts))
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
        for _ in range(10):  # what a process says last is exported after its end
            time.sleep(0.5)
            seen |= {str(sample[:2]): sample for sample in _scraped(port)}
        if server is not None:
            asked = {query: server.series(query, begun, time.time()) for query in queries()}
            rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
        logs = [
            file.read_text(errors="replace")
            for file in Path(cluster.head_node.get_logs_dir_path()).glob("worker-*.err")
        ]
    entry = manifest_of(folder / "out")["runs"][-1]
    progress = (folder / "progress.jsonl").read_text()
    lines = [json.loads(line) for log in logs for line in log.splitlines() if line.startswith("{")]
    yield Ran(
        list(seen.values()),
        entry,
        [json.loads(line) for line in progress.splitlines()],
        lines,
        "".join(logs) + progress,
        asked,
        rules,
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
    named = metrics_of(rule["expr"] for rule in rules)
    assert named and named <= {name for name, _, _ in ran.samples} | recorded


def metrics_of(expressions: Iterable[str]) -> set[str]:
    return set(re.findall(r"\b(?:ray_)?moderay[a-z0-9_:]*", " ".join(expressions)))


def test_every_metric_that_a_panel_names_was_exported_by_a_run(ran: Ran) -> None:
    for query in queries():
        named = metrics_of([query])
        assert named and named <= {name for name, _, _ in ran.samples}, query


@pytest.mark.skipif(not HAS_PROMETHEUS, reason="Prometheus is not installed: make packages does")
def test_every_query_of_a_panel_gives_a_series_of_a_run_and_every_rule_is_one(ran: Ran) -> None:
    assert len(ran.asked) >= 20
    empty = [
        query
        for query, series in ran.asked.items()
        if not any(value != "NaN" for one in series for _, value in one["values"])
    ]
    assert empty == []
    assert len(ran.rules) > 10
    assert {rule["name"]: rule["health"] for rule in ran.rules if rule["health"] != "ok"} == {}


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
    died = [line["reason"] for line in ran.workers if line["event"] == "engine died"]
    assert died == ["scripted death"] * 3
    events = [line["event"] for line in ran.driver]
    messages = [event for event in events if event not in ("stage", "progress")]
    assert messages == ["note", "run started", "shard published", "run ended"]
    assert {"stage", "progress"} <= set(events)
    assert "secret content" not in ran.text and "deadly" not in ran.text
