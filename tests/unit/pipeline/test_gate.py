"""The gate: which floors hold, which are refused, and when it opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from support.gates import cases, write_policy
from support.outputs import plain

import moderay
from moderay.config.job import Floors, Job
from moderay.config.job_file import load_job
from moderay.config.policy import GoldenCase, Policy, golden_cases, load_policy
from moderay.core.storage import create
from moderay.core.verdicts import Origin, Status, Verdict, unit_schema, verdict_array
from moderay.labels.golden_verdicts import kept_golden, save_golden
from moderay.labels.layout import Layout
from moderay.pipeline.gate import (
    NOT_JUDGED,
    Floor,
    GateClosedError,
    GatedPolicy,
    best,
    closed,
    gate_figures,
    gated_policies,
)


def job_file(folder: Path, gate: object, policies: tuple[str, ...] = ("spam",)) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(pa.table({"text": ["a quiet day"]}), folder / "in/a.parquet")
    data = {
        "input": {"path": "in", "content": "text"},
        "output": {"path": "out"},
        "policies": list(policies),
        "gate": gate,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "job.yaml"


def gated(floors: dict[str, float], violating: int, safe: int) -> GatedPolicy:
    policy = Policy(id="spam", text="No spam.")
    sides = ["1"] * violating + ["0"] * safe
    golden = [{"content": f"case {i}", "label": side} for i, side in enumerate(sides)]
    return GatedPolicy(
        policy,
        "policies/spam",
        tuple(Floor(f"gate.golden.{name}", name, least) for name, least in floors.items()),  # type: ignore[arg-type]
        tuple(map(GoldenCase.model_validate, golden)),
    )


def test_own_floors_win_over_those_of_every_policy_figure_by_figure(tmp_path: Path) -> None:
    for policy in ("spam", "ads", "scams"):
        write_policy(tmp_path, cases(60, 60), policy)
    gate = {
        "golden": {"recall": 0.7, "precision": 0.6},
        "spam": {"recall": 0.9},
        "ads": {"precision": None},
        "scams": {"recall": None, "precision": None},
    }
    job, policies = load_job(job_file(tmp_path, gate, ("spam", "ads", "scams")))
    found, problems = gated_policies(job, policies)
    assert problems == []
    assert {
        each.policy.id: {floor.figure: (floor.key, floor.least) for floor in each.floors}
        for each in found
    } == {
        "spam": {
            "recall": ("gate.spam.recall", 0.9),
            "precision": ("gate.golden.precision", 0.6),
        },
        "ads": {"recall": ("gate.golden.recall", 0.7)},
    }


def test_problems_of_a_gate_come_at_once_with_their_lines(tmp_path: Path, golden: Any) -> None:
    write_policy(tmp_path, cases(30, 30))
    write_policy(tmp_path, None, "bare")
    write_policy(tmp_path, [], "empty")
    write_policy(tmp_path, cases(0, 5), "calm")
    write_policy(tmp_path, cases(60, 0), "harsh")
    write_policy(tmp_path, cases(1, 1), "golden")
    gate = {
        "golden": {"recall": 0.9, "precision": 0.8},
        "spma": {"recall": 0.5},
        "empty": {"recall": 0.5},
    }
    names = ("spam", "bare", "empty", "calm", "harsh", "golden")
    job = job_file(tmp_path, gate, names)
    with pytest.raises(moderay.Problems) as caught:
        moderay.check(job)
    said = [plain(str(caught.value), tmp_path)]
    # Beside what is wrong elsewhere in the job.
    with pytest.raises(moderay.Problems) as caught:
        moderay.check(job, ["limits.stall_s=soon", "policies=[spam]"])
    said.append(plain(str(caught.value), tmp_path))
    wrong: tuple[object, ...] = ({"golden": {}}, {"golden": 0.9}, {"golden": {"recall": 90}})
    for gate_ in (*wrong, {"golden": {"reccall": 0.9}}, [0.9]):
        with pytest.raises(moderay.Problems) as caught:
            moderay.check(job_file(tmp_path, gate_))
        said.append(plain(str(caught.value), tmp_path))
    golden("gate-problems", "\n\n".join(said) + "\n")


def test_job_without_a_gate_needs_no_golden_set(tmp_path: Path) -> None:
    write_policy(tmp_path, None)
    assert moderay.check(job_file(tmp_path, {})).gated == ()


@given(st.floats(0.001, 0.999))
def test_cases_that_a_floor_takes_are_the_fewest_that_can_pass_it(least: float) -> None:
    needed = Floor("gate.golden.recall", "recall", least).cases_needed
    assert best(needed) >= least
    assert needed == 1 or best(needed - 1) < least
    assert best(needed) == pytest.approx(0.025 ** (1 / needed))


def test_thirty_of_thirty_have_the_lower_end_that_is_known() -> None:
    assert round(best(30), 3) == 0.884
    assert Floor("", "recall", 0.9).cases_needed == 36


@given(st.data(), st.integers(1, 60), st.integers(1, 60))
def test_figures_are_exact_intervals_and_what_is_not_judged_is_not_found(
    data: st.DataObject, violating: int, safe: int
) -> None:
    sides = st.sampled_from([0, 1, NOT_JUDGED])
    said = np.array(
        data.draw(st.lists(sides, min_size=violating + safe, max_size=violating + safe))
    )
    policy = gated({"recall": 0.4, "precision": 0.3}, violating, safe)
    recall, precision = gate_figures(policy, said.astype(np.int8))
    found, wrong = int((said[:violating] == 1).sum()), int((said[violating:] == 1).sum())
    assert (recall.k, recall.n) == (found, violating)
    assert (precision.k, precision.n) == (found, found + wrong)
    for figure in (recall, precision):
        low = beta.ppf(0.025, figure.k, figure.n - figure.k + 1) if figure.k else 0.0
        assert figure.low == pytest.approx(low)
        assert figure.passed == (figure.low >= figure.floor)
        assert figure.not_judged == (said == NOT_JUDGED).sum()
    if not found + wrong:
        assert precision.value is None and (precision.low, precision.high) == (0, 1)
        assert not precision.passed


def test_a_closed_gate_says_what_is_under_which_floor_and_what_to_do(golden: Any) -> None:
    policy = gated({"recall": 0.8, "precision": 0.5}, 40, 40)
    said = np.array([1] * 30 + [0] * 8 + [NOT_JUDGED] * 2 + [0] * 40, np.int8)
    job = Job.model_validate(
        {"input": {"path": "in", "content": "text"}, "output": {"path": "o"}, "policies": ["p"]}
    )
    figures = gate_figures(policy, said)
    error = closed(job, [policy], figures)
    assert isinstance(error, GateClosedError) and error.exit_status == 1
    assert error.figures == tuple(figures)
    nothing = closed(job, [policy], gate_figures(policy, np.full(80, NOT_JUDGED, np.int8)))
    golden("gate-closed", f"{error}\n\n{nothing}\n")
    right = np.array([1] * 40 + [0] * 40, np.int8)
    assert closed(job, [policy], gate_figures(policy, right)) is None


def judged(policy: str, verdicts: dict[str | None, Verdict], first: int = 0) -> pa.Table:
    numbers = range(first, first + len(verdicts))
    return pa.table(
        [pa.array(numbers, pa.int64()), list(verdicts), verdict_array(list(verdicts.values()), 3)],
        schema=unit_schema([policy]),
    )


def verdict(safe: float) -> Verdict:
    return Verdict(Status.OK, [safe, 1 - safe], answer="0", origin=Origin.JUDGED)


KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


def test_verdicts_are_kept_by_content_and_the_latest_count(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    failed = Verdict(Status.TIMEOUT, detail="120 s")
    first = judged("spam", {"a": verdict(0.1), "b": failed, None: Verdict(Status.EMPTY)})
    save_golden(layout, "spam", KEY, 2, (0, 3), first)
    save_golden(layout, "spam", KEY, 10, (0, 1), judged("spam", {"a": verdict(0.9)}))
    save_golden(layout, "spam", OTHER, 11, (0, 1), judged("spam", {"c": verdict(0.9)}))
    save_golden(layout, "ads", KEY, 11, (0, 1), judged("ads", {"d": verdict(0.9)}))
    kept = kept_golden(layout, "spam", KEY)
    assert kept.column("content_hash").to_pylist() == ["a", "a"]
    scores = [row["scores"][0] for row in kept.column("verdict").to_pylist()]
    assert scores == pytest.approx([0.9, 0.1])
    assert kept_golden(layout, "spam", "0" * 16).num_rows == 0


def test_broken_files_of_verdicts_count_for_nothing(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    save_golden(layout, "spam", KEY, 1, (0, 1), judged("spam", {"a": verdict(0.9)}))
    [whole] = (tmp_path / "_moderay/gate/spam").iterdir()
    data = whole.read_bytes()
    folder = layout.private("gate/spam")
    create(layout.fs, f"{folder}/{KEY}-2-0-1.arrow", data[: len(data) // 2])
    create(layout.fs, f"{folder}/{KEY}-3-0-7.arrow", data)
    create(layout.fs, f"{folder}/{KEY}-4-0-1.arrow", b"")
    create(layout.fs, f"{folder}/notes.txt", b"somebody's")
    save_golden(layout, "spam", KEY, 5, (0, 1), judged("ads", {"x": verdict(0.9)}))
    assert kept_golden(layout, "spam", KEY).column("content_hash").to_pylist() == ["a"]


def test_floors_are_shares_between_nothing_and_all() -> None:
    for wrong in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError):
            Floors(recall=wrong)


def test_golden_sets_of_shipped_policies_can_pass_a_floor(tmp_path: Path) -> None:
    from support.project import ROOT

    for folder in sorted((ROOT / "policies").glob("*/policy.md")):
        policy = load_policy(folder.parent)
        golden = golden_cases(folder.parent, policy)
        assert golden is not None
        violating = sum(policy.labels[case.label].violates for case in golden)
        assert best(violating) > 0.7, json.dumps({policy.id: violating})
