"""`moderay diff JOB --repeat`: how often the same judges contradict themselves on the same rows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.label_folders import label_folder
from support.outputs import plain
from support.scripted import SCRIPT

from moderay import api
from moderay.core.decision_rule import DecisionRule
from moderay.core.errors import Problems
from moderay.core.verdicts import Status, Verdict, verdict_array
from moderay.labels.decisions import decide
from moderay.tasks.diff.contradictions import RepeatedVerdicts
from moderay.tasks.diff.records import RepeatRecord
from moderay.tasks.diff.repeats import repeat_figures

Cli = Callable[..., subprocess.CompletedProcess[str]]
# One of its own: what is drawn hangs on the judge's key, and so on every word of the policy.
POLICY = """---
id: spam
title: Spam
version: 1
labels:
  SP0: {violates: false, title: Not spam}
  SP2: {violates: true, title: Likely spam}
  SP4: {violates: true, title: Spam}
---
# Spam
## INSTRUCTIONS
Say which label holds.
"""
# P of SP0, SP2 and SP4, by the label that it makes the likeliest.
P = {"SP0": [0.9, 0.06, 0.04], "SP2": [0.2, 0.7, 0.1], "SP4": [0.1, 0.1, 0.8], None: None}
RULE = DecisionRule("spam", ("SP0", "SP2", "SP4"), (False, True, True), 0.5)
ANSWERS = {
    "SP4": {"answer": '{"label": "SP4", "rationale": "It sells."}', "reasoning": "It sells."},
    "SP0": {"answer": '{"label": "SP0", "rationale": "It tells."}', "reasoning": "It tells."},
}
SHARE = 0.2
DOUBTFUL = {
    **SCRIPT,
    "rules": [
        {
            "content": "doubt",
            **ANSWERS["SP4"],
            "p": 0.8,
            "flip": {"share": SHARE, **ANSWERS["SP0"]},
        },
        *SCRIPT["rules"],
    ],
}
# Two out of three are doubtful: of them any two verdicts differ with 2 * 0.2 * 0.8.
ROWS, PLANTED = 60, 2 / 3 * 2 * SHARE * (1 - SHARE)
TEXTS = [f"doubt {i}" if i % 3 else f"hello {i}" for i in range(ROWS)]


def written(folder: Path, more: str = "") -> Path:
    """The policy's folder, with more text at its end."""
    folder.mkdir(exist_ok=True)
    (folder / "policy.md").write_text(POLICY + more)
    return folder


@pytest.fixture
def doubtful(job: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A job over texts of which two out of three are doubtful, three are there twice, and one
    fails.
    """

    def write(script: dict[str, Any] | None = None, **sections: Any) -> Path:
        (tmp_path / "in").mkdir(exist_ok=True)
        texts = [*TEXTS, *TEXTS[:3], "failing", None]
        pq.write_table(pa.table({"text": texts}), tmp_path / "in/a.parquet")
        policy = written(tmp_path / "spam")
        return job(script or DOUBTFUL, **{"policies": [str(policy)], **sections})

    return write


def test_contradictions_are_counted_and_shown_with_why(
    doubtful: Callable[..., Path], tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    file = doubtful()
    result = cli("diff", file, "--repeat", "5", "--show", "2")
    assert (result.returncode, result.stderr) == (0, "")
    golden("repeat", plain(result.stdout, tmp_path))
    printed = cli("diff", file, "--repeat", "5", "--json").stdout
    record = RepeatRecord.from_json(printed.encode(), "repeat")
    spam = record.policies["spam"]
    assert (record.repeats, record.rows, record.seeds) == (5, ROWS + 5, "sent")
    assert (spam.judged, spam.not_judged, spam.never_judged) == (ROWS + 3, 2, 2)
    assert (spam.contents, spam.kept) == (ROWS, 0)
    pairs = spam.violates.pairs
    assert pairs and pairs.low < 1e6 * PLANTED < pairs.high and pairs.method == "exact"
    alike = SHARE**5 + (1 - SHARE) ** 5
    all_times = spam.violates.contents
    assert all_times and all_times.low < 1e6 * 2 / 3 * (1 - alike) < all_times.high
    assert spam.label.rows == spam.violates.rows


def test_strict_ends_with_1_where_contradictions_are_more_than_allowed(
    doubtful: Callable[..., Path], cli: Cli
) -> None:
    call = ("diff", doubtful(), "--repeat", "2", "--sample", "40", "-q", "--strict", "--max-flips")
    result = cli(*call, "0.01")
    assert (
        result.returncode == 1 and "contradicted rows, more than --max-flips 0.01" in result.stderr
    )
    assert cli(*call, "0.9").returncode == 0


def test_first_verdicts_that_the_output_holds_are_not_paid_again(
    doubtful: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "requests.log"
    file = doubtful({**DOUBTFUL, "log": str(log)})
    checked = api.check(file)
    # Each request for an answer is followed by one for the probabilities.
    api.diff_repeats(checked, repeats=2)
    whole = log.stat().st_size
    sure = {"spam": [0.98, 0.01, 0.01]}
    label_folder(
        tmp_path / "out",
        checked.policies,
        {"a.parquet": [(text, sure) for text in TEXTS[:40]]},
        keys={"spam": checked.cascades[0].last.key},
    )
    log.unlink()
    found = api.diff_repeats(checked, repeats=2).record.policies["spam"]
    # Three of them are there twice.
    assert found.kept == 43
    assert whole - log.stat().st_size == 2 * 40
    # The output is certain of safe, of what the script mostly calls spam.
    assert found.violates.rows > 15


def test_repeats_are_not_informative_at_temperature_0(
    doubtful: Callable[..., Path], cli: Cli
) -> None:
    file = doubtful()
    greedy = ("--set", "model.sampling.temperature=0", "--repeat", "2", "--sample", "50")
    result = cli("diff", file, *greedy)
    assert result.returncode == 0 and "repeats are not informative" in result.stdout
    assert "floor" not in result.stdout
    found = json.loads(cli("diff", file, *greedy, "--json").stdout)
    assert (found["seeds"], found["policies"]["spam"]["violates"]["rows"]) == ("no_effect", 0)


def test_change_is_told_beside_what_either_version_contradicts_itself(
    doubtful: Callable[..., Path], tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    other = written(tmp_path / "other", "Doubt is welcome.\n")
    call = ("diff", doubtful(), "--policy", other, "--repeat", "3", "--show", "1")
    result = cli(*call)
    assert (result.returncode, result.stderr) == (0, "")
    golden("repeat-policy", plain(result.stdout, tmp_path))
    welcome = {"policy": "Doubt is welcome", "content": "doubt", **ANSWERS["SP0"]}
    changed = doubtful({**DOUBTFUL, "rules": [welcome, *DOUBTFUL["rules"]]})
    spam = api.diff_policy(changed, other, repeats=3).record.policies["spam"]
    assert spam.floor and spam.floor.p_value < 1e-6 and spam.floor.contents == ROWS
    assert spam.floor.b.violates.rows == 0 < spam.floor.a.violates.rows


def test_repeats_that_cannot_be_are_refused(
    doubtful: Callable[..., Path], tmp_path: Path, cli: Cli
) -> None:
    file = doubtful()
    calls = {
        "--column is of two outputs": (file, "--repeat", "5", "--column", "text"),
        "B is of two outputs": (file, file, "--repeat", "5"),
        "--repeat": (file, "--repeat", "1"),
        "or a job and --policy DIR or --repeat N": (file,),
    }
    for message, call in calls.items():
        result = cli("diff", *call)
        assert result.returncode == 2 and message in result.stderr, message
    with pytest.raises(Problems, match="repeats: a number from 2 to 20 is wanted, not 21"):
        api.diff_repeats(file, repeats=21)


@given(
    repeats=st.integers(2, 4),
    said=st.dictionaries(
        st.integers(0, 5), st.lists(st.sampled_from([*P]), min_size=4, max_size=4), min_size=1
    ),
    copies=st.lists(st.integers(0, 5), max_size=4),
)
def test_figures_are_those_of_the_rows_one_by_one(
    repeats: int, said: dict[int, list[str | None]], copies: list[int]
) -> None:
    # One content has the same verdicts wherever it stands.
    rows = [*said, *[content for content in copies if content in said]]
    tables = [
        _judged(rows, {content: said[content][at] for content in said}) for at in range(repeats)
    ]
    found = repeat_figures(RepeatedVerdicts.of(RULE, tables))
    verdicts = {content: said[content][:repeats] for content in said}
    whole = [content for content in rows if None not in verdicts[content]]
    assert (found.judged, found.contents) == (len(whole), len({*whole}))
    assert found.not_judged == len(rows) - len(whole)
    assert found.never_judged == sum({*verdicts[content]} == {None} for content in rows)
    assert found.label.rows == sum(len({*verdicts[content]}) > 1 for content in whole)
    sides = {content: [label == "SP0" for label in verdicts[content]] for content in {*whole}}
    assert found.violates.rows == sum(len({*sides[content]}) > 1 for content in whole)
    if not whole:
        assert found.violates.pairs is found.label.contents is None
        return
    pairs = [a != b for content in sides for a, b in combinations(sides[content], 2)]
    assert found.violates.pairs
    assert found.violates.pairs.value == pytest.approx(1e6 * sum(pairs) / len(pairs))


def _judged(rows: list[int], labels: dict[int, str | None]) -> pa.Table:
    verdicts = [
        Verdict(Status.TIMEOUT) if (label := labels[row]) is None else Verdict(Status.OK, P[label])
        for row in rows
    ]
    decisions = decide(verdict_array(verdicts, 0), RULE)
    return pa.table({"content_hash": [str(row) for row in rows], "spam": decisions})
