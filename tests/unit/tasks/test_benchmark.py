"""Benchmarks as jobs: what `benchmark:` may say, and the summary of several."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from support.outputs import plain
from support.planted import Errors, keys_of, write_answers
from support.project import ROOT
from support.scripted import write_job

from moderay import api
from moderay.cli import benchmark_table, console
from moderay.config.policy import load_policy
from moderay.core.errors import Problems
from moderay.tasks.evaluate.benchmark_records import SummaryRecord
from moderay.tasks.policy.finding import Code
from moderay.tasks.policy.lint import lint_policies

Cli = Callable[..., subprocess.CompletedProcess[str]]
JOBS = sorted((ROOT / "jobs/benchmarks").glob("*.yaml"))
POLICIES = sorted(file.parent for file in (ROOT / "policies/benchmarks").glob("*/policy.md"))
SPAM = load_policy(ROOT / "policies/spam")
SEXUAL, HATE = (load_policy(ROOT / "policies/benchmarks" / name) for name in ("sexual", "hate"))
SAFE_REPORT = "https://example.org/report"


@pytest.mark.parametrize("folder", POLICIES, ids=lambda folder: str(folder.name))
def test_benchmark_policy_has_nothing_doubtful_but_that_its_golden_set_is_the_benchmark(
    folder: Path,
) -> None:
    assert [finding.code for finding in lint_policies([folder]).findings] == [Code.GOLDEN_NONE]


@pytest.mark.parametrize("file", JOBS, ids=lambda file: str(file.stem))
def test_shipped_benchmark_names_its_data_its_gold_and_where_figures_are_published(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LABELS", str(tmp_path / "labels"))
    if file.stem == "spam-pack":
        pack = tmp_path / "data/imported/spam_pack"
        pack.mkdir(parents=True)
        (pack / "policy.md").write_text(
            (ROOT / "policies/spam/policy.md")
            .read_text()
            .replace("id: spam", "id: spam_pack")
            .replace("SP2", "SP3")
        )
    job = api.load_job(file)
    assert job.name == file.stem and job.gold and job.benchmark
    assert job.input.path.startswith(str(tmp_path / "data"))
    assert all(each.source.startswith("https://") for each in job.benchmark.published)
    # Only the data is not there.
    with pytest.raises(Problems) as caught:
        api.check(file)
    assert [problem.absent for problem in caught.value.problems] == [True]


def published(**changes: Any) -> dict[str, Any]:
    return {"figure": "f1", "value": 0.8, "model": "m", "source": SAFE_REPORT, **changes}


WRONG: dict[str, dict[str, Any]] = {
    "no such policy": {"published": [published(policy="ham")]},
    "a policy without gold": {"published": [published(policy="hate")]},
    "no such label": {"published": [published(policy="spam", at_or_above="SP3")]},
    "the mildest label": {"published": [published(policy="spam", at_or_above="SP0")]},
    "a label of two": {"published": [published(policy="sexual", at_or_above="1")]},
    "scores of any of them": {"published": [published(figure="roc_auc")]},
    "a label of any of them": {"published": [published(at_or_above="SP4")]},
    "scores at a label": {
        "published": [published(policy="spam", figure="average_precision", at_or_above="SP4")]
    },
    "all policies under one": {"published": [published(figure="policies_right", policy="spam")]},
    "no such figure": {"published": [published(figure="f2")]},
    "not a share": {"published": [published(value=82.9)]},
    "no source": {"published": [{"figure": "f1", "value": 0.8, "model": "m"}]},
    "not comparable, and not why": {"published": [published(comparable=False)]},
    "no such column": {"by": ["lang"]},
    "unknown key": {"publised": []},
    "several at once": {
        "by": ["lang"],
        "published": [published(policy="ham"), published(policy="sexual", at_or_above="1")],
    },
}


def test_benchmark_that_is_wrong_is_told_by_check(
    tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a"], "gold": [1]}), tmp_path / "in/a.parquet")
    folders = [str(ROOT / "policies" / name) for name in ("spam", "benchmarks/sexual", "hate")]
    told = []
    for name, benchmark in WRONG.items():
        sections = {"policies": folders, "gold": {"spam": "gold", "sexual": "gold"}}
        whole = {"source": "https://example.org/set", **benchmark}
        file = write_job(tmp_path, **sections, benchmark=whole)
        with pytest.raises(Problems) as caught:
            api.check(file)
        told.append(f"# {name}\n{plain(str(caught.value), tmp_path)}\n")
    golden("benchmark-wrong", "".join(told))


def two_benchmarks(folder: Path, errors: Errors) -> tuple[list[Path], dict[str, np.ndarray]]:
    """Jobs over made-up sets whose judge errs as it is told; what it says, by policy."""
    rng = np.random.default_rng(0)
    golds = {
        "spam": rng.choice(3, 60, p=[0.6, 0.2, 0.2]),
        "sexual": rng.choice([1, 0, -1], 50, p=[0.3, 0.5, 0.2]),
        "hate": rng.choice([1, 0, -1], 50, p=[0.2, 0.6, 0.2]),
    }
    answers, said = [], {}
    for policy in (SPAM, SEXUAL, HATE):
        gold = golds[policy.id]
        texts = [f"row {row}" for row in range(len(gold))]
        said[policy.id] = errors.said(keys_of(policy.id, texts), (gold > 0).astype(int))
        # Right ones with the label of the gold, others with the first of their side.
        labels = np.where(said[policy.id], np.maximum(gold, 1), 0)
        names = [policy.label_names[label] for label in labels]
        answers.append((policy, dict(zip(texts, names, strict=True))))
    script = write_answers(folder, answers)
    names = np.array(SPAM.label_names)
    unknown = [None if one < 0 else int(one) for one in golds["sexual"]]
    sets = {
        "graded": {"spam": names[golds["spam"]], "kind": rng.choice(["a", "b"], 60)},
        "several": {
            "sexual": unknown,
            "hate": [None if one < 0 else int(one) for one in golds["hate"]],
        },
    }
    policies = {"graded": ["spam"], "several": ["benchmarks/sexual", "benchmarks/hate"]}
    beside = {
        "graded": {
            "by": ["kind"],
            "published": [
                published(figure="labels_right", value=0.9),
                published(figure="recall", value=0.8, at_or_above="SP4", note="of a [few] rows"),
                published(figure="average_precision", value=0.7, model="another"),
            ],
        },
        "several": {
            "published": [
                published(value=0.829),
                published(value=0.787, model="another"),
                published(
                    figure="policies_right", value=0.436, comparable=False, note="of other rows"
                ),
            ]
        },
    }
    jobs = []
    for name, columns in sets.items():
        (folder / name).mkdir()
        texts = [f"row {row}" for row in range(len(next(iter(columns.values()))))]
        pq.write_table(pa.table({"text": texts, **columns}), folder / name / "a.parquet")
        job = {
            "name": name,
            "input": {"path": name, "content": "text"},
            "output": {"path": f"labels/{name}", "columns": []},
            "policies": [str(ROOT / "policies" / each) for each in policies[name]],
            "model": {"source": f"scripted:{script}"},
            "limits": {"max_failed": 1},
            "gold": {each: each for each in columns if each != "kind"},
            "benchmark": {"source": "https://example.org/set", **beside[name]},
        }
        jobs.append(folder / f"{name}.yaml")
        jobs[-1].write_text(yaml.safe_dump(job, sort_keys=False))
    absent = yaml.safe_load(jobs[0].read_text())
    absent |= {"name": "absent", "input": {"path": "nowhere", "content": "text"}}
    jobs.append(folder / "absent.yaml")
    jobs[-1].write_text(yaml.safe_dump(absent))
    golds["graded"] = golds["spam"]
    return jobs, said | {f"gold {name}": gold for name, gold in golds.items()}


def f1(gold: np.ndarray, said: np.ndarray) -> float:
    return float(2 * (gold & said).sum() / (gold.sum() + said.sum()))


@pytest.fixture
def eighty(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of 80 columns that keeps what it is shown."""
    made = Console(width=80, force_terminal=True, no_color=True, record=True, quiet=False)
    for module in (console, benchmark_table):
        monkeypatch.setattr(module, "out", made)
    return made


@pytest.mark.slow
def test_judge_without_errors_is_right_in_every_cell_and_what_is_not_there_is_named(
    tmp_path: Path, cli: Cli, joined_ray: None, eighty: Console, golden: Callable[[str, str], None]
) -> None:
    jobs, _ = two_benchmarks(tmp_path, Errors())
    result = cli("eval", *jobs, "--summary", "--out", tmp_path / "found", "--quiet")
    assert result.returncode == 1, result.stderr
    record = SummaryRecord.from_json((tmp_path / "found/summary.json").read_bytes(), "summary")
    assert [each.name for each in record.benchmarks] == ["graded", "several", "absent"]
    found = [cell.ours and cell.ours.value for each in record.benchmarks for cell in each.cells]
    assert found == pytest.approx([1.0] * 8)
    assert (tmp_path / "found/several/eval.json").exists()
    benchmark_table.show_summary(record)
    lines = [line.rstrip() for line in eighty.export_text().splitlines()]
    golden("eval-summary", plain("\n".join(lines) + "\n", tmp_path))


@pytest.mark.slow
def test_errors_that_are_planted_are_found_in_every_cell(
    tmp_path: Path, cli: Cli, joined_ray: None
) -> None:
    jobs, rows = two_benchmarks(tmp_path, Errors(0.3, 0.1, seed=1))
    result = cli("eval", *jobs[:2], "--summary", "--json", "--quiet")
    assert result.returncode == 0, result.stderr
    graded, several = json.loads(result.stdout)["benchmarks"]
    spam, said = rows["gold spam"], rows["spam"]
    answers = np.where(said, np.maximum(spam, 1), 0)
    assert (answers != spam).any()
    values = {(cell["policy"], cell["figure"]): cell["ours"] for cell in graded["cells"]}
    assert values["spam", "f1"]["value"] == pytest.approx(f1(spam > 0, said))
    assert values["spam", "labels_right"]["value"] == pytest.approx((answers == spam).mean())
    graver = (answers == 2)[spam == 2].mean()
    assert values["spam", "recall"]["value"] == pytest.approx(graver)
    cells = {(cell["policy"], cell["figure"]): cell for cell in several["cells"]}
    golds = np.stack([rows["gold sexual"], rows["gold hate"]])
    says = np.stack([rows["sexual"], rows["hate"]])
    for name, gold, one in zip(("sexual", "hate"), golds, says, strict=True):
        known = gold >= 0
        assert cells[name, "f1"]["rows"] == known.sum()
        assert cells[name, "f1"]["ours"]["value"] == pytest.approx(f1(gold[known] == 1, one[known]))
    any_gold = np.where((golds == 1).any(axis=0), 1, golds.min(axis=0))
    known = any_gold >= 0
    expected = f1(any_gold[known] == 1, says.any(axis=0)[known])
    assert cells[None, "f1"]["ours"]["value"] == pytest.approx(expected)
    known = (golds >= 0).all(axis=0)
    right = ((golds == 1) == says).all(axis=0)[known].mean()
    assert cells[None, "policies_right"]["ours"]["value"] == pytest.approx(right)
    assert cells[None, "policies_right"]["published"][0]["comparable"] is False
    assert [each["value"] for each in cells[None, "f1"]["published"]] == [0.829, 0.787]
    # A single job shows the same beside its tables.
    one = cli("eval", jobs[0], "--show", "0", "--quiet", "--json")
    assert "kind" in json.loads(one.stdout)["policies"]["spam"]["slices"]
    shown = cli("eval", jobs[0], "--show", "0")
    assert "right labels  " in shown.stdout and SAFE_REPORT in shown.stdout


def test_jobs_that_cannot_be_summed_up_are_refused_before_any_is_run(
    tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    jobs, _ = two_benchmarks(tmp_path, Errors())
    for name in ("graded", "several"):
        content = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
        del content["gold"], content["benchmark"]
        (tmp_path / f"{name}-without.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    without = [tmp_path / f"{name}-without.yaml" for name in ("graded", "several")]
    calls: dict[str, tuple[object, ...]] = {
        "several without it": tuple(jobs[:2]),
        "policies": (ROOT / "policies/spam", "--summary"),
        "a policy among jobs": (jobs[0], ROOT / "policies/spam", "--summary"),
        "a model": (*jobs[:2], "--summary", "--model", "tiny"),
        "a slice": (*jobs[:2], "--summary", "--by", "kind"),
        "a goal": (*jobs[:2], "--summary", "--at", "recall=0.9"),
        "no gold in two of four": (jobs[0], *without, jobs[2], "--summary"),
        "one name twice": (jobs[0], jobs[0], "--summary"),
        "no such job": (jobs[0], tmp_path / "missing.yaml", "--summary"),
    }
    told = []
    for name, call in calls.items():
        result = cli("eval", *call)
        assert result.returncode == 2 and not result.stdout, name
        told.append(f"# {name}\n{plain(result.stderr, tmp_path)}")
    assert not (tmp_path / "labels").exists()
    golden("eval-summary-refused", "".join(told))
