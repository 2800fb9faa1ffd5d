"""The card of a filtered data set, as the hub's own library reads it."""

from __future__ import annotations

import pytest
from huggingface_hub import DatasetCard

from moderay.labels.manifest_record import (
    JudgeRecord,
    ModelRecord,
    PolicyRecord,
    RunRecord,
    Selection,
)
from moderay.tasks.filter.dataset_card import dataset_card
from moderay.tasks.filter.records import FilterCard, FilterRows, RuleRecord

SPAM = PolicyRecord(
    title="Spam",
    version=1,
    threshold=0.5,
    cascade_key="0",
    cascade=(
        JudgeRecord(judge="glance"),
        JudgeRecord(judge="reason", policy="# Spam\n\n```\n---\n```\n", labels={"SP0": False}),
    ),
    promises={"glance": 0.05},
)
CARD = FilterCard(
    name="tweets: 'all' #1",
    labels="labels",
    complete=True,
    rule=RuleRecord(
        keep="NOT spam.violates", thresholds={"spam": 0.5}, unselected="kept", verdicts=False
    ),
    shards=2,
    files=(".parquet",),
    rows=FilterRows(input=1600, kept=900, removed=80, held=20, unselected=600),
    removed={"spam": {"SP4": 80}},
    held={"spam": {"timeout": 20}},
    missing={},
    failed={},
    gone=(),
    policies={"spam": SPAM},
    selection=Selection(content="text", where=None, sample=0.625),
    run=RunRecord(run=1, status="finished", model=ModelRecord(source="tiny")),
)


def test_front_matter_is_read_back_by_the_hubs_library() -> None:
    card = DatasetCard(dataset_card(CARD))
    data = card.data.to_dict()
    assert data["pretty_name"] == "tweets: 'all' #1, filtered"
    assert data["tags"] == ["content-moderation", "filtered", "spam"]
    files = [{"split": "train", "path": "kept/**/*.parquet"}]
    assert data["configs"] == [{"config_name": "default", "data_files": files}]
    assert card.text.startswith("# tweets: 'all' #1, filtered\n")


def test_each_format_is_a_configuration_of_its_own() -> None:
    two = CARD.model_copy(update={"files": (".jsonl.gz", ".parquet")})
    configs = DatasetCard(dataset_card(two)).data.to_dict()["configs"]
    assert [config["config_name"] for config in configs] == ["jsonl.gz", "parquet"]
    assert [config["data_files"][0]["path"] for config in configs] == [
        "kept/**/*.jsonl.gz",
        "kept/**/*.parquet",
    ]


@pytest.mark.parametrize(
    ("kept", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (9999, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (10**9, "1B<n<10B"),
    ],
)
def test_size_is_that_of_the_rows_that_are_kept(kept: int, category: str) -> None:
    rows = FilterRows(input=kept + 7, kept=kept, removed=7)
    data = DatasetCard(dataset_card(CARD.model_copy(update={"rows": rows}))).data.to_dict()
    assert data["size_categories"] == [category]


def test_rows_that_were_not_judged_count_where_they_are_kept() -> None:
    assert DatasetCard(dataset_card(CARD)).data.to_dict()["size_categories"] == ["1K<n<10K"]
    rule = CARD.rule.model_copy(update={"unselected": "held"})
    elsewhere = CARD.model_copy(update={"rule": rule})
    assert DatasetCard(dataset_card(elsewhere)).data.to_dict()["size_categories"] == ["n<1K"]


def test_text_says_what_was_decided_and_what_is_not_known() -> None:
    text = dataset_card(CARD)
    assert "    NOT spam.violates\n" in text
    assert "| spam | SP4 | 80 |" in text and "| spam | timeout | 20 |" in text
    assert "glance was calibrated to miss at most 5.0% of the violations" in text
    estimated = SPAM.model_copy(update={"estimated": ("glance",)})
    assert "glance was estimated to miss at most 5.0% of the violations" in dataset_card(
        CARD.model_copy(update={"policies": {"spam": estimated}})
    )
    assert "labels on real content mean nothing" in text
    assert "Only rows with `sample: 0.625` were judged" in text
    assert "not in here" not in text
    lost = CARD.model_copy(update={"missing": {"b.parquet": "not readable"}, "complete": False})
    assert "and is not in here, such as b.parquet" in dataset_card(lost)


def test_fence_in_a_policy_does_not_end_the_block_that_it_is_shown_in() -> None:
    text = dataset_card(CARD)
    assert "```markdown\n# Spam\n\n'''\n---\n'''\n\n```" in text
