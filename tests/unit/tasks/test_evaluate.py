"""`moderay eval`: what is counted of labels and gold, and what is made of it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from support.outputs import plain
from support.project import ROOT, SHARED
from support.workbenches import policy_folder, script_file

from moderay.config.job import Gold
from moderay.config.policy import load_policy
from moderay.core.errors import Problems, UserError
from moderay.core.verdicts import decision_type
from moderay.pipeline.check import check
from moderay.tasks.evaluate.evaluation import any_sides, exact_matches
from moderay.tasks.evaluate.figures import figures_record
from moderay.tasks.evaluate.judged import JudgedRows, judged_rows
from moderay.tasks.evaluate.records import EvalRecord
from moderay.tasks.evaluate.slices import Slices
from moderay.tasks.evaluate.tally import tally
from moderay.tasks.gold import UNKNOWN, GoldAnswers, gold_answers

Cli = Callable[..., subprocess.CompletedProcess[str]]
SPAM = load_policy(ROOT / "policies/spam")
LABELS = SPAM.label_names
JUDGE = ["rules", "glance", "reason", None]


@st.composite
def judged(draw: Any) -> tuple[JudgedRows, list[dict[str, Any]]]:
    """Rows as a label file has them, beside gold; and the same one by one."""
    rows = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "label": st.sampled_from([*LABELS, None]),
                    "probability": st.sampled_from([0.0, 0.2, 0.5, 0.50004, 0.9, 1.0, None]),
                    "decided_by": st.sampled_from(JUDGE[:3]),
                    "gold": st.sampled_from([*LABELS, None]),
                    "hash": st.sampled_from(["a0", "bf", "c7", "d8"]),
                }
            ),
            max_size=30,
        )
    )
    decisions = [
        {
            "status": "ok" if row["label"] else "unparsed",
            "violates": row["label"] and SPAM.labels[row["label"]].violates,
            "label": row["label"],
            "probability": row["probability"] if row["label"] else None,
            "trace": {"decided_by": row["decided_by"] if row["label"] else None},
        }
        for row in rows
    ]
    gold = [int(SPAM.labels[row["gold"]].violates) if row["gold"] else UNKNOWN for row in rows]
    names = [LABELS.index(row["gold"]) if row["gold"] else UNKNOWN for row in rows]
    made = judged_rows(
        pa.array(decisions, decision_type(LABELS)),
        pa.array([row["hash"] for row in rows], pa.string()),
        LABELS,
        GoldAnswers(np.array(gold, np.int8), np.array(names, np.int16)),
    )
    return made, rows


@given(judged(), st.integers(0, 30))
def test_counts_of_two_parts_add_up_to_what_is_counted_row_by_row(
    found: tuple[JudgedRows, list[dict[str, Any]]], cut: int
) -> None:
    rows, plain_rows = found
    whole = tally(rows.at(np.arange(min(cut, len(rows)))), 3)
    whole += tally(rows.at(np.arange(min(cut, len(rows)), len(rows))), 3)
    known = [row for row in plain_rows if row["gold"]]
    side = {name: label.violates for name, label in SPAM.labels.items()}
    assert (whole.rows, whole.unknown) == (len(known), len(plain_rows) - len(known))
    assert whole.not_judged == tuple(
        sum(row["label"] is None and side[row["gold"]] is violates for row in known)
        for violates in (False, True)
    )
    answered = [row for row in known if row["label"]]
    matrix = sk.confusion_matrix(
        [side[row["gold"]] for row in answered],
        [side[row["label"]] for row in answered],
        labels=[False, True],
    ) if answered else np.zeros((2, 2))  # fmt: skip
    binary = whole.binary
    assert [[binary.tn, binary.fp], [binary.fn, binary.tp]] == matrix.tolist()
    labels = np.zeros((3, 4), int)
    for row in known:
        labels[LABELS.index(row["gold"]), LABELS.index(row["label"]) if row["label"] else 3] += 1
    assert whole.labels.tolist() == labels.tolist()
    assert whole.judges.sum() == len(answered)
    for number, name in enumerate(("rules", "screen", "glance", "reason")):
        assert whole.judges[number].sum() == sum(row["decided_by"] == name for row in answered)
    scored = [row for row in answered if row["probability"] is not None]
    assert [half.rows for half in whole.halves] == [
        sum((row["hash"][-1] in "89abcdef") is upper for row in scored) for upper in (False, True)
    ]


@given(judged())
def test_figures_are_those_of_the_judged_rows(
    found: tuple[JudgedRows, list[dict[str, Any]]],
) -> None:
    rows, plain_rows = found
    side = {name: label.violates for name, label in SPAM.labels.items()}
    answered = [row for row in plain_rows if row["gold"] and row["label"]]
    gold = [side[row["gold"]] for row in answered]
    said = [side[row["label"]] for row in answered]
    record = figures_record(tally(rows, 3))
    assert record.rows == sum(bool(row["gold"]) for row in plain_rows)
    assert ("recall" in record.figures) is any(gold)
    assert ("precision" in record.figures) is any(said)
    if any(gold) and any(said):
        assert record.figures["recall"].value == pytest.approx(sk.recall_score(gold, said))
        assert record.figures["f1"].value == pytest.approx(sk.f1_score(gold, said))
        assert record.figures["precision"].value == pytest.approx(sk.precision_score(gold, said))
    for figure in record.figures.values():
        assert figure.low - 1e-9 <= figure.value <= figure.high + 1e-9


def test_item_counts_only_if_every_policy_is_right_and_all_gold_is_known() -> None:
    def rows(violates: list[int], gold: list[int]) -> JudgedRows:
        empty = JudgedRows.empty()
        known = {"violates": np.array(violates, np.int8), "gold": np.array(gold, np.int8)}
        fields = {name: getattr(empty, name) for name in empty.__dataclass_fields__}
        return JudgedRows(**(fields | known))

    one = rows([1, 0, 0, UNKNOWN, 1], [1, 0, 1, 0, UNKNOWN])
    other = rows([0, 0, 1, 0, 1], [0, 1, 1, 0, 1])
    assert exact_matches([one, other]).tolist() == [1, 4]
    # Of the fourth row one is not judged, and of the fifth the gold of the other alone is known.
    assert any_sides([one, other]).tolist() == [[0, 0, 1], [1, 3, 0]]


def test_column_of_no_kinds_is_refused() -> None:
    empty = JudgedRows.empty()
    names = empty.__dataclass_fields__
    rows = JudgedRows(**{name: np.ones(1001, getattr(empty, name).dtype) for name in names})
    with pytest.raises(UserError, match="--by id: it has more than 1,000 values"):
        Slices(SPAM, ["id"]).add(rows, pa.table({"id": list(range(1001))}))


VALUES = {
    "bools": ([True, False, None, True], None, [1, 0, -1, 1], [-1, -1, -1, -1]),
    "numbers": ([1, 0, None, 1], None, [1, 0, -1, 1], [-1, -1, -1, -1]),
    "with gaps": ([1.0, 0.0, float("nan"), None], None, [1, 0, -1, -1], [-1, -1, -1, -1]),
    "labels": (["SP4", "SP0", None, "SP2"], None, [1, 0, -1, 1], [2, 0, -1, 1]),
    "classes": (
        [0, 1, 2, 0],
        {"0": "violates", "1": "SP2", "2": "safe"},
        [1, 1, 0, 1],
        [-1, 1, -1, -1],
    ),
    "votes": (
        [["SP4", "SP4", "SP0"], ["SP0", None, "SP2"], None, ["SP2", "SP4", None]],
        None,
        [1, -1, -1, 1],
        [2, -1, -1, -1],
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_gold_means_what_its_values_say(
    name: str, job: Callable[..., Path], tmp_path: Path
) -> None:
    values, mapping, violates, labels = VALUES[name]
    (tmp_path / "in").mkdir()
    table = pa.table({"text": ["a", "b", "c", "d"], "gold": pa.array(values)})
    pq.write_table(table, tmp_path / "in/a.parquet")
    checked = check(job())
    gold = Gold(column="gold", values=mapping)
    answers = gold_answers(checked, checked.scan.shards[0], SPAM, gold, "gold.spam")
    assert answers.violates.tolist() == violates
    assert answers.label.tolist() == labels
    if name == "votes":
        assert answers.votes is not None
        assert answers.votes.tolist() == [[1, 1, 0], [0, -1, 1], [-1] * 3, [1, 1, -1]]


WRONG = {
    "no such policy": {"ham": "is_spam"},
    "no such column": {"spam": "is_spma"},
    "no such label": {"spam": {"column": "is_spam", "values": {"1": "SP9"}}},
    "unknown key": {"spam": {"column": "is_spam", "value": {"1": "SP4"}}},
}


def test_gold_that_is_wrong_is_told_by_check_with_the_rest(
    job: Callable[..., Path], tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    from moderay import api

    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a"], "is_spam": [True]}), tmp_path / "in/a.parquet")
    told = []
    for name, gold in WRONG.items():
        with pytest.raises(Problems) as caught:
            api.check(job(gold=gold))
        told.append(f"# {name}\n{plain(str(caught.value), tmp_path)}\n")
    golden("job-gold", "".join(told))


ROWS = [
    # content, gold, what the script answers to it
    *[("claim your prize", True, "SP4")] * 6,
    *[("visit my shop", True, "SP2")] * 2,
    *[("my own shop", False, "SP2")] * 3,
    *[("a quiet day", False, "SP0")] * 10,
    *[("a hidden ad", True, "SP0")] * 2,
    *[("failing", True, None)] * 1,
    *[("a quiet night", None, "SP0")] * 4,
]


def corpus(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [
        {"text": f"{text} {i}", "is_spam": gold, "kind": text, "odd": i % 2}
        for i, (text, gold, _) in enumerate(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows[:20]), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist(rows[20:]), folder / "b.parquet")


def test_job_is_labelled_and_compared_with_its_gold(
    job: Callable[..., Path], tmp_path: Path, cli: Cli
) -> None:
    corpus(tmp_path)
    file = job(gold={"spam": "is_spam"}, limits={"max_failed": 1})
    result = cli("eval", file, "--by", "kind", "--out", tmp_path / "eval", "--at", "recall=0.5")
    assert result.returncode == 0, result.stderr
    assert "spam: 24 rows with gold, 11 of them violate; 1 without a verdict" in result.stdout
    record = EvalRecord.from_json((tmp_path / "eval/eval.json").read_bytes(), "eval.json")
    spam = record.policies["spam"]
    whole = spam.whole
    assert (spam.unknown, whole.rows) == (4, 24)
    assert (whole.true_positives, whole.false_positives) == (8, 3)
    assert (whole.false_negatives, whole.true_negatives) == (2, 10)
    assert (whole.not_judged_safe, whole.not_judged_violating) == (0, 1)
    assert whole.figures["recall"].value == 0.8
    assert {value: each.rows for value, each in spam.slices["kind"].items()} == {
        "a quiet day": 10,
        "claim your prize": 6,
        "my own shop": 3,
        "visit my shop": 2,
        "a hidden ad": 2,
        "failing": 1,
    }
    wrong = pq.read_table(tmp_path / "eval/disagreements.parquet").to_pylist()
    assert [row["gold_violates"] for row in wrong].count(False) == 3
    assert {row["content"].rpartition(" ")[0] for row in wrong} == {
        "my own shop",
        "a hidden ad",
        "failing",
    }
    assert wrong[-1]["content"].startswith("failing") and wrong[-1]["label"] is None
    assert all(row["rationale"] == "A shop." for row in wrong if not row["gold_violates"])
    assert {file.name for file in (tmp_path / "eval").iterdir()} == {
        "eval.json",
        "eval.html",
        "disagreements.parquet",
        "spam.png",
        "spam.svg",
    }
    page = (tmp_path / "eval/eval.html").read_text("utf-8")
    assert "<bdi>claim your prize</bdi>" in page and "6 rows in which labels and people" in page
    # Nothing is labelled again.
    again = cli("eval", file, "--json", "--quiet")
    assert again.returncode == 0 and json.loads(again.stdout)["policies"]["spam"]["unknown"] == 4


def test_golden_sets_are_judged_and_compared(tmp_path: Path, cli: Cli) -> None:
    cases = [("claim your prize", "SP4"), ("my shop", "SP4"), ("quiet", "SP0"), ("ad", "SP2")]
    policy = policy_folder(tmp_path, cases)
    with (policy / "golden.jsonl").open("a") as file:
        turns = [{"role": "user", "content": "my prize"}]
        file.write(json.dumps({"content": turns, "label": "SP4", "language": "de"}) + "\n")
    model = f"scripted:{script_file(tmp_path)}"
    result = cli("eval", policy, "--model", model, "--json")
    assert result.returncode == 0, result.stderr
    spam = json.loads(result.stdout)["policies"]["spam"]
    assert spam["confusion"] == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 2, 0]]
    assert spam["at_or_above"]["SP4"]["true_positives"] == 2
    assert spam["at_or_above"]["SP4"]["false_negatives"] == 1
    assert spam["slices"]["language"]["de"]["true_positives"] == 1
    shown = cli("eval", policy, "--model", model)
    assert "golden.jsonl row 4: gold SP2, judged SP0, P 0.10" in shown.stdout


def test_what_cannot_be_evaluated_is_said_with_what_to_do(
    job: Callable[..., Path], tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    corpus(tmp_path)
    policy = policy_folder(tmp_path, [])
    model = f"scripted:{script_file(tmp_path)}"
    gold = {"spam": "is_spam"}
    calls: dict[str, Callable[[], tuple[object, ...]]] = {
        "no gold": lambda: (job(),),
        "no golden case": lambda: (policy, "--model", model),
        "no model": lambda: (policy,),
        "a model beside a job": lambda: (job(gold=gold), "--model", "tiny"),
        "two jobs": lambda: (job(gold=gold), job(gold=gold)),
        "a slice of golden sets": lambda: (policy, "--model", model, "--by", "kind"),
        "no goal": lambda: (job(gold=gold), "--at", "f1=0.9"),
        "no policy": lambda: (tmp_path / "in", "--model", model),
        "no file": lambda: (tmp_path / "missing.yaml",),
    }
    told = []
    for name, call in calls.items():
        result = cli("eval", *call())
        assert result.returncode == 2 and not result.stdout, name
        told.append(f"# {name}\n{plain(result.stderr, tmp_path)}")
    golden("eval-refused", "".join(told))


def test_published_spam_packs_own_figures_come_out(tmp_path: Path, cli: Cli) -> None:
    pack = SHARED / "spam_pack"
    if not pack.is_dir():
        pytest.skip("no spam_pack beside the project")
    assert cli("policy", "import", pack, "--id", "pack", "--out", tmp_path).returncode == 0
    rows = list(csv.reader((pack / "golden_dataset.csv").open(newline="")))
    rules = [
        {"content": re.escape(row[1].strip()), "answer": json.dumps({"label": row[9].strip()})}
        for row in rows
        if len(row) > 9 and row[0].isdigit() and row[9]
    ]
    assert len(rules) == 40
    model = f"scripted:{script_file(tmp_path, rules=rules)}"
    result = cli("eval", tmp_path / "pack", "--model", model, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["policies"]["pack"]
    assert sum(found["confusion"][i][i] for i in range(4)) == 36
    graver = found["at_or_above"]["SP3"]
    assert (graver["true_positives"], graver["false_positives"]) == (12, 0)
    assert graver["true_positives"] + graver["false_negatives"] == 15
    assert round(graver["figures"]["f1"]["value"], 3) == 0.889
