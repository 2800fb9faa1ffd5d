"""Label files from before people's answers were laid over them are read by every command, also
beside files of today's form.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from support.label_forms import as_before
from support.project import ROOT
from support.published import published_output

import moderay
from moderay.config.policy import load_policy
from moderay.core.verdicts import Status, Verdict, decision_type, verdict_array
from moderay.labels.layout import Layout

SPAM = load_policy(ROOT / "policies" / "spam")
ROWS = 40


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Layout]:
    """Of today's form, and with the first and the last shard in that before it."""
    made = []
    for name in ("today", "mixed"):
        folder = tmp_path_factory.mktemp(name)
        rest = [0.0] * (len(SPAM.label_names) - 2)
        verdicts = verdict_array(
            [
                Verdict(
                    Status.OK,
                    [1 - row / ROWS, *rest, row / ROWS],
                    rationale="why",
                    answer="SP0",
                    decided_by="reason",
                    origin="judged",
                )
                for row in range(ROWS)
            ],
            0,
        )
        shards = {
            f"day={day}/part.parquet": (
                pa.array([f"{day} {row}" for row in range(ROWS)]),
                [verdicts],
            )
            for day in range(3)
        }
        made.append(published_output(folder, [SPAM], shards))
    for day in (0, 2):
        as_before(made[1], f"day={day}/part.parquet")
    return made[0], made[1]


def test_labels_are_read_as_of_one_form(outputs: tuple[Layout, Layout]) -> None:
    today, mixed = outputs
    frames = [moderay.read_labels(each.url).collect() for each in outputs]
    assert frames[0].equals(frames[1]) and frames[0].columns[-1] == "day"
    assert frames[1]["spam"].struct["trace"].struct["overruled"].null_count() == 3 * ROWS
    tables = [moderay.read_labels(each.url, format="arrow").to_table() for each in outputs]
    assert tables[0].equals(tables[1])
    assert tables[1].schema.field("spam").type == decision_type(SPAM.label_names)
    lazy = moderay.read_labels(mixed.url).filter(pl.col("spam").struct["violates"]).select("row")
    assert len(lazy.collect()) == 3 * ROWS / 2
    assert today != mixed


def test_labels_are_filtered_compared_and_verified(
    outputs: tuple[Layout, Layout], tmp_path: Path
) -> None:
    _, mixed = outputs
    keep = "NOT spam.violates OR spam.trace.overruled.violates"
    filtered = moderay.filter(
        labels=mixed.url, keep=keep, out=tmp_path / "clean", verdicts=True, thresholds={"spam": 0.9}
    )
    assert filtered.card.rows.kept == 3 * ROWS * 0.9
    kept = pl.read_parquet(tmp_path / "clean/kept/**/*.parquet")
    assert kept["spam"].struct["trace"].struct["overruled"].null_count() == len(kept)
    compared = moderay.diff(*[each.url for each in outputs])
    assert json.loads(compared.record.model_dump_json())
    assert moderay.verify(mixed.url).findings == ()
