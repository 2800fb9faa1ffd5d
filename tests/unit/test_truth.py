"""What a model of the truth sees in label files that are wrong in one thing."""

from collections import Counter

import pyarrow as pa
import pytest
from support.truth import Text, Truth, Version, content_hash, expected, text

FIRST: tuple[Text, ...] = (text(0), None, text(2))
SECOND: tuple[Text, ...] = (text(3), text(4), text(2))


def table(texts: tuple[Text, ...], labelled: tuple[Text, ...] | None = None) -> pa.Table:
    """A label file of these texts, with the labels of others."""
    verdicts = [
        dict(zip(("status", "label", "rationale"), expected(one), strict=True))
        for one in labelled or texts
    ]
    return pa.table(
        {
            "text": pa.array(texts, pa.string()),
            "row": range(len(texts)),
            "content_hash": pa.array(map(content_hash, texts), pa.string()),
            "spam": verdicts,
        }
    )


@pytest.fixture
def truth() -> Truth:
    """Of a file that was rewritten."""
    made = Truth()
    made.put("a.jsonl", Version(FIRST, b""))
    made.put("a.jsonl", Version(SECOND, b""))
    return made


def test_right_labels_are_right(truth: Truth) -> None:
    assert list(truth.wrong_now({"a.parquet": table(SECOND)}, pruned=True)) == []
    assert list(truth.wrong_ever({"a.parquet": table(FIRST)})) == []


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (None, "no labels"),
        (table(FIRST), "of no version"),
        (table(SECOND[:2]), "of no version"),
        (table((SECOND[1], SECOND[0], SECOND[2])), "of no version"),
        (table(SECOND, (SECOND[1], SECOND[0], SECOND[2])), "row 0"),
        (table(SECOND).set_column(1, "row", [[0, 1, 3]]), "numbered"),
        (table(SECOND).set_column(0, "text", [["x", "y", "z"]]), "other texts"),
    ],
    ids=["none", "former", "short", "order", "labels", "rows", "texts"],
)
def test_wrong_labels_are_seen(truth: Truth, labels: pa.Table | None, word: str) -> None:
    files = {} if labels is None else {"a.parquet": labels}
    [*wrong] = truth.wrong_now(files, pruned=False)
    assert wrong and word in wrong[0]


def test_labels_of_what_is_gone_stay_until_they_are_pruned(truth: Truth) -> None:
    del truth.now["a.jsonl"]
    files = {"a.parquet": table(FIRST)}
    assert list(truth.wrong_now(files, pruned=False)) == []
    assert "its labels are not" in next(truth.wrong_now(files, pruned=True))
    assert next(truth.wrong_now({"a.parquet": table(FIRST, SECOND)}, pruned=False))


def test_content_is_to_be_paid_once_for_each_version_without_labels(truth: Truth) -> None:
    assert truth.alive() == {"a.parquet": 1}
    assert truth.to_pay(truth.alive()) == Counter({text(2): 1, text(3): 1, text(4): 1})
    assert truth.to_pay({})[text(2)] == 2
    truth.settle(["a.parquet"])
    truth.put("a.jsonl", Version(FIRST, b""))
    assert truth.to_pay(truth.alive()) == Counter({text(0): 1})
