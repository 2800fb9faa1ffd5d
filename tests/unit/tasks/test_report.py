"""What a report says of an output: counts that add up, and what the label files say themselves."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
from support.outputs import labels
from support.reports import HARASSMENT, ROWS, SPAM, hostile_output

from moderay.cli.tables import show_outcome
from moderay.core.errors import UserError
from moderay.core.verdicts import structs
from moderay.labels.layout import Layout
from moderay.labels.manifest_store import read_manifest
from moderay.labels.overruling import redecide
from moderay.labels.review_records import (
    Review,
    policy_hash,
    review_id,
    review_time,
    session_id,
)
from moderay.labels.reviews import ReviewStore
from moderay.pipeline.outcome import Outcome
from moderay.tasks.report import report as report_module
from moderay.tasks.report.known import known_rows
from moderay.tasks.report.policies import policy_section
from moderay.tasks.report.report import NAME, Report, with_report, write_report
from moderay.tasks.report.samples import samples
from moderay.tasks.report.source import read_source


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_output(tmp_path_factory.mktemp("output") / "labels")


@pytest.fixture(scope="module")
def page(output: Path) -> str:
    made = write_report(str(output), {})
    file = output / "_moderay" / NAME
    assert (made.place, made.size) == (f"{output}/_moderay/{NAME}", file.stat().st_size)
    return file.read_text("utf-8")


class Elements(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))


def test_page_has_no_element_of_a_content_and_nothing_that_asks_for_anything(page: str) -> None:
    tags = Elements(page).tags
    names = [tag for tag, _ in tags]
    assert names.count("script") == 2 and names.count("style") == 1
    assert not {"img", "iframe", "form", "object", "embed", "use"} & set(names)
    for _, attributes in tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    assert "\x1b" not in page and "\u202e" not in page
    for text in ("&lt;script&gt;", "␛[2J", "⟨U+202E⟩", "{{ 7 * 7 }}"):
        assert text in page


def test_counts_of_the_page_are_those_of_the_label_files(output: Path, page: str) -> None:
    tables = labels(output).values()
    rows = sum(len(table) for table in tables)
    assert rows == 2 * ROWS
    flagged = {
        name: sum(bool(row["violates"]) for table in tables for row in table[name].to_pylist())
        for name in ("spam", "harassment")
    }
    text = re.sub(r"<[^>]+>", " ", page)
    for name, count in flagged.items():
        ok = sum(row["status"] == "ok" for table in tables for row in table[name].to_pylist())
        assert re.search(rf"\b{count} \s* of {ok} rows with a verdict are flagged", text), name
    source = read_source(str(output), {})
    assert source.total.rows == rows
    for name in flagged:
        counts = source.total.counts(name)
        assert counts.rows == rows and counts.flagged == flagged[name]


@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.499, 0.5, 0.7, 0.701, 0.999])
@pytest.mark.parametrize("policy", [SPAM, HARASSMENT], ids=lambda policy: policy.id)
def test_count_at_an_edge_is_what_another_threshold_decides(
    output: Path, page: str, policy: Any, threshold: float
) -> None:
    [data] = re.findall(r'id="page-data">(.*?)</script>', page)
    [slider] = [each for each in json.loads(data)["policies"] if each["policy"] == policy.id]
    edge = round(threshold * 1000)
    told = slider["fixed"] + sum(rows for number, rows in slider["bins"] if number >= edge)
    rule = policy.rule.under(threshold)
    decided = sum(
        bool(violates)
        for table in labels(output).values()
        for violates in redecide(structs(table[policy.id]), rule).field("violates").to_pylist()
    )
    assert told == decided


def test_flagged_rows_without_p_are_known_from_older_markers_where_they_can_be(
    output: Path,
) -> None:
    source = read_source(str(output), {})
    record = source.manifest.policies["spam"]
    source.total._without_p["spam"] = None
    section = policy_section("spam", record, source.total, None)
    assert section.slider is not None and section.slider["fixed"] == 0
    between = record.model_copy(update={"threshold": 0.5004})
    # All rows with a verdict have a P here: nothing is flagged without.
    assert policy_section("spam", between, source.total, None).slider is not None
    source.total._counts["spam"].add(source.total.counts("spam"))
    section = policy_section("spam", between, source.total, None)
    assert section.slider is None and "earlier version" in section.why_fixed


def test_samples_are_of_every_kind_with_content_and_reasoning(output: Path) -> None:
    found = samples(read_source(str(output), {}))
    kinds = {kind for sample in found for kind in sample.kinds if sample.policy == "spam"}
    assert kinds == {"flagged", "borderline", "safe", "failed"}
    tables = labels(output)
    shown = {(sample.policy, sample.marker.shard, sample.chosen.row) for sample in found}
    assert len(shown) == len(found)
    for sample in found:
        row = tables[sample.marker.shard].slice(sample.chosen.row, 1).to_pylist()[0]
        assert sample.content == row["text"] and not sample.missing
        assert sample.reasoning == row[sample.policy]["reasoning"]
        assert sample.chosen.decided_by == row[sample.policy]["trace"]["decided_by"]


def test_content_that_is_not_to_be_had_is_said_to_be_missing(tmp_path: Path) -> None:
    folder = hostile_output(tmp_path / "labels")
    source = read_source(str(folder), {})
    without = samples(source, with_contents=False)
    assert {sample.content for sample in without} == {None}
    page = write_report(str(folder), {}, tmp_path / "report.html", contents=False)
    text = (tmp_path / "report.html").read_text()
    assert page.samples == len(without) and 'class="veil"' not in text
    assert "this report was made without contents" in text
    for file in folder.rglob("*.parquet"):
        table = pq.read_table(file, partitioning=None)
        pq.write_table(table.set_column(0, "text", [["another"] * len(table)]), file)
    for sample in samples(source):
        assert sample.content is None and sample.missing


def test_reviews_say_how_much_a_threshold_finds(tmp_path: Path) -> None:
    folder = hostile_output(tmp_path / "labels")
    layout = Layout(str(folder))
    manifest = read_manifest(layout)
    assert manifest is not None
    judge = manifest.policies["spam"].cascade[-1]
    known = policy_hash(judge.policy or "", dict(judge.labels or {}))
    table = labels(folder)["a.parquet"]

    def review(row: int, label: str, hash_of_policy: str) -> Review:
        return Review(
            id=review_id(), session=session_id(), reviewer="ann", time=review_time(),
            policy="spam", policy_hash=hash_of_policy, shard="a.parquet", row=row, label=label,
            content_hash=table["content_hash"][row].as_py(), queue="flagged",
        )  # fmt: skip

    store = ReviewStore(layout)
    for row, label in {1: "SP4", 2: "SP0", 3: "SP4", 39: "SP4"}.items():
        store.add(review(row, label, known))
    store.add(review(4, "SP4", "of another text"))
    [(policy, found)] = known_rows(read_source(str(folder), {})).items()
    p = {row: table["spam"][row]["probability"].as_py() for row in (1, 2, 3)}
    assert policy == "spam" and found.left_out == 1  # the row that failed has no P
    assert sorted(found.violating) == sorted(round(p[row] * 1000) for row in (1, 3))
    assert list(found.safe) == [round(p[2] * 1000)]
    write_report(str(folder), {}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "3 contents that people judged (1 more have no P)" in text


def test_report_that_fails_is_told_and_ends_no_run(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    source = read_source(str(output), {})
    ended = Outcome(source.manifest, True, 1, 1.0, {}, total=source.total)

    def fail(checked: Any, outcome: Outcome) -> Report:
        raise OSError("the disk is full")

    monkeypatch.setattr(report_module, "report_of_run", fail)
    told = with_report(cast(Any, None), ended)
    assert (told.report, told.report_failed) == (None, "the disk is full")
    assert told.exit_status == ended.exit_status
    show_outcome(None, told, quiet=True)
    assert "the report could not be written (the disk is full)" in capsys.readouterr().err


def test_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no labels of moderay"):
        write_report(str(tmp_path), {})


def test_folder_of_out_must_be_there(output: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make it first"):
        write_report(str(output), {}, tmp_path / "none" / "report.html")
