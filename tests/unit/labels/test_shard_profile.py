"""What a marker shows of its shard: every judged row in a bin, and rows that hash chose."""

import numpy as np
import pyarrow as pa
from support.outputs import verdicts_of
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.hashing import digest
from moderay.core.verdicts import Status, Verdict, label_fields, verdict_array
from moderay.labels.decisions import decide, flagged
from moderay.labels.records import ChosenRows
from moderay.labels.shard_profile import (
    CHOSEN,
    NEAR,
    TEXT_CHARS,
    HistogramTotal,
    PolicyProfile,
)

SPAM = load_policy(ROOT / "policies/spam").rule
ROWS, CONTENTS, UNIT = 600, 400, 100
LONG = "word " * 100


def verdict(content: int) -> Verdict:
    if content % 10 == 0:
        return Verdict(Status.TIMEOUT, detail=LONG)
    if content % 10 == 1:
        return Verdict(Status.EMPTY)
    p = (content % 97) / 96
    return Verdict(Status.OK, scores=[1 - p, p / 2, p / 2], answer="SP0", rationale=LONG)


def label_table() -> pa.Table:
    """Rows of some 400 contents, so that many come twice."""
    contents = np.random.default_rng(0).integers(0, CONTENTS, ROWS)
    decisions = decide(verdict_array([verdict(int(content)) for content in contents], 0), SPAM)
    hashes = [digest(int(content)) * 2 for content in contents]
    columns = [pa.array(range(ROWS)), pa.array(hashes), flagged([decisions]), decisions]
    return pa.Table.from_arrays(columns, schema=pa.schema(label_fields([SPAM])))


def profile(units: list[pa.Table]) -> PolicyProfile:
    made = PolicyProfile("spam", SPAM.threshold)
    for unit in units:
        made.add(unit)
    return made


def units() -> list[pa.Table]:
    return [label_table().slice(start, UNIT) for start in range(0, ROWS, UNIT)]


def test_histogram_adds_up_to_the_judged_rows_each_in_its_bin() -> None:
    rows = [row for row in verdicts_of(label_table(), "spam") if row["status"] == "ok"]
    histogram = profile(units()).histogram()
    assert sum(histogram.values()) == len(rows) > 400
    expected: dict[int, int] = {}
    for row in rows:
        number = min(int(row["probability"] * 1000), 999)
        expected[number] = expected.get(number, 0) + 1
    assert histogram == expected and 999 in histogram and 0 in histogram


def test_histograms_of_shards_add_up() -> None:
    total = HistogramTotal()
    for unit in units():
        total.add(profile([unit]).histogram())
    assert total.histogram() == profile(units()).histogram()


def test_chosen_rows_are_those_with_the_smallest_hashes_of_their_kind() -> None:
    table = label_table()
    rows = [
        {"row": row, "hash": content_hash, **decision}
        for row, content_hash, decision in zip(
            table.column("row").to_pylist(),
            table.column("content_hash").to_pylist(),
            verdicts_of(table, "spam"),
            strict=True,
        )
    ]
    p = SPAM.threshold
    kinds = {
        "flagged": [row for row in rows if row["violates"]],
        "borderline": [
            row for row in rows if row["status"] == "ok" and abs(row["probability"] - p) <= NEAR
        ],
        "failed": [row for row in rows if row["status"] == "timeout"],
    }
    chosen = profile(units()).chosen()
    for kind, candidates in kinds.items():
        first = {row["hash"]: row["row"] for row in reversed(candidates)}
        expected = [(content_hash, first[content_hash]) for content_hash in sorted(first)[:CHOSEN]]
        got = getattr(chosen, kind)
        assert [(row.content_hash, row.row) for row in got] == expected and len(got) == CHOSEN
    assert all(row.label is None and row.detail == LONG[:TEXT_CHARS] for row in chosen.failed)
    assert all(row.rationale == LONG[:TEXT_CHARS] for row in chosen.flagged)


def test_chosen_rows_do_not_depend_on_the_order_or_the_size_of_units() -> None:
    expected = profile(units()).chosen()
    assert profile([label_table()]).chosen() == expected
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(units()))
        assert profile([units()[number] for number in order]).chosen() == expected


def test_shard_without_judged_rows_has_an_empty_profile() -> None:
    empty = profile([label_table().slice(0, 0)])
    assert empty.histogram() == {} and empty.chosen() == ChosenRows()
