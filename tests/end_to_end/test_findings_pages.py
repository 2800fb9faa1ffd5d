"""Pages of an evaluation, a comparison and a filter in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser
from support.browser import PHONE, chromium, opened
from support.reports import HOSTILE, SPAM, hostile_output

import moderay
from moderay.labels.manifest_record import RunRecord, Selection
from moderay.tasks.diff.page import comparison_page
from moderay.tasks.evaluate.disagreements import SCHEMA
from moderay.tasks.evaluate.evaluation import Evaluation, PolicyEvaluation
from moderay.tasks.evaluate.figures import eval_record
from moderay.tasks.evaluate.judged import JudgedRows
from moderay.tasks.evaluate.page import evaluation_page
from moderay.tasks.evaluate.tally import tally
from moderay.tasks.filter.page import filter_page
from moderay.tasks.filter.records import FilterCard, FilterRows, RuleRecord
from moderay.tasks.gold import UNKNOWN

ROWS = 500


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def scored() -> tuple[np.ndarray, np.ndarray]:
    """P(violates) and what people said, which P knows something of."""
    drawn = np.random.default_rng(0)
    p = drawn.random(ROWS).astype(np.float32)
    return p, drawn.random(ROWS) < p


def evaluated() -> str:
    p, violates = scored()
    flagged = p >= np.float32(SPAM.threshold)
    unknown = np.full(ROWS, UNKNOWN)
    rows = JudgedRows(
        violates=flagged.astype(np.int8), label=unknown, probability=p, judge=unknown,
        half=np.zeros(ROWS, bool), gold=violates.astype(np.int8), gold_label=unknown,
        weight=np.ones(ROWS),
    )  # fmt: skip
    counted = tally(rows, len(SPAM.labels))
    wrong = {
        "policy": "spam", "file": "a.parquet", "row": 4, "gold_violates": True,
        "gold_label": "SP4", "status": "ok", "violates": False, "label": "SP0",
        "probability": 0.1, "decided_by": "reason", "content": "\n".join(HOSTILE),
        "rationale": HOSTILE[1], "reasoning": HOSTILE[2],
    }  # fmt: skip
    evaluation = Evaluation(
        (PolicyEvaluation(SPAM, counted, {}),),
        (0, 0),
        counted.sides,
        pa.Table.from_pylist([wrong], SCHEMA),
    )
    record = eval_record(evaluation, "tweets", "tiny", None)
    return evaluation_page(evaluation, record)


def compared(folder: Path) -> str:
    a = hostile_output(folder / "a")
    strict = SPAM.model_copy(update={"threshold": 0.8})
    b = hostile_output(folder / "b", (strict,))
    return comparison_page(moderay.diff(a, b, common=True, columns=["text"], show=5), ["text"])


def filtered() -> str:
    card = FilterCard(
        name="tweets",
        labels="labels",
        complete=False,
        rule=RuleRecord(
            keep=f"text <> '{HOSTILE[0]}'", thresholds={}, unselected=None, verdicts=False
        ),
        shards=2,
        files=(".parquet",),
        rows=FilterRows(input=10, kept=6, removed=3, held=1),
        removed={"spam": {"SP4": 3}},
        held={"spam": {"timeout": 1}},
        missing={HOSTILE[1]: "unreadable"},
        failed={},
        gone=(),
        policies={},
        selection=Selection(content="text", where=None, sample=None),
        run=RunRecord(run=0, status="finished"),
    )
    return filter_page(card)


@pytest.mark.parametrize("context", [{}, {**PHONE, "color_scheme": "dark"}], ids=["wide", "phone"])
@pytest.mark.parametrize("kind", ["eval", "diff", "filter"])
def test_page_is_inert_accessible_and_asks_for_nothing(
    browser: Browser, tmp_path: Path, kind: str, context: dict[str, object]
) -> None:
    text = {"eval": evaluated, "diff": lambda: compared(tmp_path), "filter": filtered}[kind]()
    file = tmp_path / f"{kind}.html"
    file.write_text(text, "utf-8")
    with opened(browser, file, **context) as seen:
        page = seen.page
        for button in page.get_by_role("button", name="Show all contents").all():
            button.click()
        assert seen.serious() == []
        assert page.locator("main img, main iframe, main form, main a").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert seen.errors == [] and seen.dialogs == []
        assert seen.requests == [file.absolute().as_uri()]


def test_threshold_of_an_evaluation_finds_what_rows_say(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "eval.html"
    file.write_text(evaluated(), "utf-8")
    p, violates = scored()
    with opened(browser, file) as seen:
        slider = seen.page.get_by_role("slider")
        for threshold in (0.2, 0.5, 0.75):
            slider.evaluate(
                "(it, to) => { it.value = to; it.dispatchEvent(new Event('input')); }",
                round(1000 * threshold),
            )
            found = p >= np.float32(threshold)
            hits, all_violating = int((found & violates).sum()), int(violates.sum())
            told = seen.page.locator("[data-known]").inner_text()
            assert f"it finds {hits} of {all_violating} violations" in told
            assert f"recall {hits / all_violating:.1%}" in told
            assert f"of {found.sum()} that it flags, {hits} violate" in told
