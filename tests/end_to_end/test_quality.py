"""The demo's policies under `tiny`: judged, held at a gate, compared, repeated, tuned."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from support.outputs import labels, manifest_of
from support.project import ROOT

from moderay.engines.tiny import demo

pytestmark = pytest.mark.long

Cli = Callable[..., subprocess.CompletedProcess[str]]
FOLDERS = {name: ROOT / "policies" / name for name in demo.POLICIES}
CASES = {
    name: len((folder / "golden.jsonl").read_text().splitlines())
    for name, folder in FOLDERS.items()
}
ROWS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some rows of the demo's texts, with what is right of each."""
    folder = tmp_path_factory.mktemp("quality")
    demo.write(folder / "all")
    table = pq.read_table(folder / "all/part-000.parquet")
    some = table.filter(pc.is_valid(table.column("truth_spam"))).slice(0, 200)
    for name, rows in (("some", some.slice(0, ROWS)), ("more", some)):
        (folder / name).mkdir()
        pq.write_table(rows, folder / name / "rows.parquet")
    return folder


def job(folder: Path, policies: tuple[str, ...], data: str = "some", **sections: object) -> Path:
    file = folder / "job.yaml"
    content = {
        "input": {"path": data, "content": "content"},
        "output": {"path": "labels", "columns": ["id"]},
        "policies": [str(FOLDERS[name]) for name in policies],
        "model": {"source": "tiny"},
        "gold": {name: f"truth_{name}" for name in policies},
        **sections,
    }
    file.write_text(yaml.safe_dump(content))
    return file


def test_golden_sets_are_judged_and_every_case_is_counted(cli: Cli) -> None:
    result = cli("eval", *FOLDERS.values(), "--model", "tiny", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["policies"]
    assert {name: sum(map(sum, each["confusion"])) for name, each in found.items()} == CASES


def test_gate_is_failed_then_passed_without_paying_for_golden_cases_again(
    folder: Path, cli: Cli
) -> None:
    file = job(folder, demo.POLICIES, gate={"golden": {"recall": 0.78}})
    failed = cli("run", file)
    assert failed.returncode == 1 and "FAILED" in failed.stdout, failed.stderr
    assert labels(folder / "labels") == {}
    passed = cli("run", file, "--set=gate.golden.recall=0.01")
    assert passed.returncode == 0 and "FAILED" not in passed.stdout, passed.stderr
    golden, corpus = (run["usage"]["requests"] for run in manifest_of(folder / "labels")["runs"])
    # An answer, and at most one request more for its P where labels begin alike.
    cases, rows = sum(CASES.values()), ROWS * len(CASES)
    assert cases <= golden <= 3 * cases and rows <= corpus <= 3 * rows
    # What is labelled needs no engine to be held against what is right.
    compared = cli("eval", file, "--set=gate.golden.recall=0.01", "--json")
    found = json.loads(compared.stdout)["policies"]
    assert {each["whole"]["rows"] for each in found.values()} == {ROWS}


def test_two_wordings_are_compared_above_what_each_contradicts_itself(
    folder: Path, cli: Cli
) -> None:
    other = folder / "other/spam"
    other.mkdir(parents=True)
    text = (FOLDERS["spam"] / "policy.md").read_text()
    (other / "policy.md").write_text(text + "\nWhere it cannot be told, it is SP0.\n")
    file = job(folder, ("spam",), output={"path": "none"})
    result = cli("diff", file, "--policy", other, "--repeat", "2", "--sample", str(ROWS), "--json")
    assert result.returncode == 0, result.stderr
    [spam] = json.loads(result.stdout)["policies"].values()
    floor = spam["floor"]
    assert floor["repeats"] == 2 and floor["seeds"] == "sent" and 0 <= floor["p_value"] <= 1
    assert floor["a"]["judged"] + floor["a"]["not_judged"] == ROWS


def test_cascade_is_tuned_to_a_goal_and_certified(folder: Path, cli: Cli) -> None:
    file = job(folder, ("spam",), "more")
    goal = ("--recall", "0.5", "--precision", "0.3", "--effort", "low")
    result = cli("tune", file, *goal, "--out", folder / "tuned")
    assert result.returncode == 0, result.stderr + result.stdout
    record = json.loads((folder / "tuned/tune.json").read_text())
    assert record["certificate"] and record["frontier"], record
    assert cli("tune", file, "--verify", folder / "tuned/tune.json").returncode == 0
    mended = cli("tune", file, "--set=model.effort=high", "--verify", folder / "tuned/tune.json")
    assert mended.returncode == 1, mended.stdout
