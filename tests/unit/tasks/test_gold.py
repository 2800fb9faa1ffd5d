"""`calibrate --gold`: what people say, as a column or as a condition over columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import put
from support.outputs import plain
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.errors import UserError
from moderay.pipeline.check import check
from moderay.tasks.calibrate.truth import from_people

SPAM = load_policy(ROOT / "policies/spam")
CLASSES = ["hate", "fine", None, "offensive"]
ROWS: list[dict[str, Any]] = [
    {"text": f"row {i}", "class": CLASSES[i % 4], "n": i, "a = b": i % 2 == 0, "SP": "SP4"}
    for i in range(40)
]
Truths = dict[str, bool]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    if not name.endswith(".parquet"):
        put(folder, name, rows)
        return
    file = folder / "in" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture(params=["a.parquet", "a.jsonl"])
def truths(request: Any, job: Callable[..., Path], tmp_path: Path) -> Callable[[str], Truths]:
    """What people say of each text of two files, one in a hive folder."""
    write(tmp_path, request.param, ROWS[:30])
    write(tmp_path, f"day=2/{request.param}", ROWS[30:])
    checked = check(job())

    def of(gold: str) -> Truths:
        truth = from_people(checked, SPAM, gold, 1000)
        return dict(zip(truth.texts.to_pylist(), truth.violates.tolist(), strict=True))

    return of


def test_condition_says_what_violates_and_null_is_unknown(truths: Callable[[str], Truths]) -> None:
    assert truths("class = 'hate'") == {
        row["text"]: row["class"] == "hate" for row in ROWS if row["class"] is not None
    }
    assert truths("class IN ('hate', 'offensive') AND n < 10") == {
        row["text"]: row["class"] in ("hate", "offensive") and row["n"] < 10
        for row in ROWS
        if row["class"] is not None or row["n"] >= 10
    }


def test_column_named_like_a_condition_is_the_column(truths: Callable[[str], Truths]) -> None:
    assert truths("a = b") == {row["text"]: row["a = b"] for row in ROWS}
    assert set(truths("SP").values()) == {True}


def test_condition_may_look_at_a_part_of_the_path(job: Callable[..., Path], tmp_path: Path) -> None:
    for kind in ("hate", "fine"):
        write(tmp_path, f"kind={kind}/a.parquet", [{"text": f"{kind} {i}"} for i in range(5)])
    truth = from_people(check(job()), SPAM, "kind = 'hate'", 1000)
    assert truth.texts.to_pylist() == [f"{kind} {i}" for kind in ("fine", "hate") for i in range(5)]
    assert truth.violates.tolist() == [False] * 5 + [True] * 5


def test_gold_that_cannot_be_read_says_why(
    job: Callable[..., Path], tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    mixed = [{"text": "x", "class": "hate", "n": 1, "mixed": 1}, {"text": "y", "mixed": {"a": 1}}]
    put(tmp_path, "a.jsonl", mixed)
    checked = check(job(output={"path": "out", "columns": ["text"]}))
    messages = []
    for gold in (
        "clas",
        "class",
        "clas = 'hate'",
        "n + 1",
        "n = 'hate'",
        "mixed = 1",
        "mixed",
        "class =",
        "1 = 1",
        "MAX(n) = n",
    ):
        with pytest.raises(UserError) as caught:
            from_people(checked, SPAM, gold, 1000)
        messages.append(str(caught.value))
    golden("gold-refused", plain("\n".join(messages), tmp_path) + "\n")
