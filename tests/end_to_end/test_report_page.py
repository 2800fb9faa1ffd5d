"""The report in a browser: inert contents, counts that follow the threshold, filters, keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from support.browser import PHONE, Seen, chromium, opened
from support.outputs import labels
from support.reports import SPAM, hostile_output

from moderay.core.verdicts import structs
from moderay.labels.overruling import redecide
from moderay.tasks.report.report import write_report

FORCED = {"reduced_motion": "reduce", "forced_colors": "active"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_output(tmp_path_factory.mktemp("output") / "labels")


@pytest.fixture(scope="module")
def report(output: Path) -> Path:
    write_report(str(output), {})
    return output / "_moderay" / "report.html"


@pytest.fixture
def seen(browser: Browser, report: Path) -> Iterator[Seen]:
    """The page as it was opened; whatever a test does on it, it says and asks for nothing."""
    with opened(browser, report) as page:
        yield page
        assert page.errors == [] and page.dialogs == []
        assert page.requests == [report.absolute().as_uri()]


def flagged(page: Page) -> int:
    told = page.locator('[data-slider="spam"] [data-flagged]').inner_text()
    return int(told.split()[0].replace(",", ""))


def decided(output: Path, threshold: float) -> int:
    """What `redecide` writes under a threshold."""
    rule = SPAM.rule.under(threshold)
    columns = [structs(table["spam"]) for table in labels(output).values()]
    return sum(
        bool(violates)
        for column in columns
        for violates in redecide(column, rule).field("violates").to_pylist()
    )


@pytest.mark.slow
def test_threshold_moves_by_edges_and_counts_what_redeciding_writes(
    seen: Seen, output: Path
) -> None:
    page = seen.page
    slider = page.get_by_role("slider").first
    assert flagged(page) == decided(output, 0.5)
    slider.focus()
    for keys, threshold in (
        (["ArrowRight"], 0.501),
        (["ArrowLeft"] * 2, 0.499),
        (["Home"], 0.001),
        (["End"], 0.999),
    ):
        for key in keys:
            page.keyboard.press(key)
        assert (
            page.locator('[data-slider="spam"] [data-threshold]').inner_text() == f"{threshold:.3f}"
        )
        assert flagged(page) == decided(output, threshold)
    # 0.7 as float32 is below 0.7, and many rows have it.
    for threshold in (0.7, 0.701):
        slider.evaluate(
            "(it, to) => { it.value = to; it.dispatchEvent(new Event('input')); }",
            round(1000 * threshold),
        )
        assert flagged(page) == decided(output, threshold)
    page.get_by_role("button", name="Back to the labels' 0.5").first.click()
    assert flagged(page) == decided(output, 0.5)
    assert "as in the labels" in page.locator('[data-slider="spam"] [data-flagged]').inner_text()


def test_contents_are_blurred_until_asked_for_and_inert_after(seen: Seen) -> None:
    page = seen.page
    texts = page.locator(".veil .text")
    first = texts.first
    assert "blur" in first.evaluate("it => getComputedStyle(it).filter")
    assert first.get_attribute("aria-hidden") == "true"
    button = page.get_by_role("button", name="Show the content").first
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)  # the blur fades
    assert first.evaluate("it => getComputedStyle(it).filter") == "none"
    assert first.get_attribute("aria-hidden") is None
    page.get_by_role("button", name="Show all contents").click()
    assert page.locator(".veil.lifted").count() == texts.count() > 20
    assert "<script>alert('script')</script>" in first.inner_text()
    assert "␛[2J" in first.inner_text()
    # Nothing of a content became an element, and a click on its link goes nowhere.
    assert page.locator(".veil .text *").count() == 0
    first.click()
    page.keyboard.press("Tab")
    assert page.locator("main img, main iframe, main form, main a").count() == 0
    assert page.evaluate("document.querySelectorAll('style').length") == 1


def test_filters_show_the_samples_that_fit(seen: Seen) -> None:
    page = seen.page
    samples = page.locator("[data-sample]")
    every = samples.count()

    def shown() -> list[str]:
        return page.locator("[data-sample]:visible").evaluate_all(
            "them => them.map(it => [it.dataset.policy, it.dataset.kind, it.dataset.status].join())"
        )

    def choose(name: str, value: str) -> None:
        page.locator(f'[data-filter="{name}"]').select_option(value)

    choose("policy", "spam")
    of_spam = shown()
    assert 0 < len(of_spam) < every and all(text.startswith("spam,") for text in of_spam)
    choose("kind", "failed")
    failed = shown()
    assert failed and all(text == "spam,failed,timeout" for text in failed)
    assert page.locator("[data-filtered]").inner_text() == f"{len(failed)} of {every} samples"
    for name, value in {"kind": "", "label": "SP4", "judge": "reason", "status": "ok"}.items():
        choose(name, value)
    assert 0 < len(shown()) < len(of_spam)


def test_keyboard_reaches_everything_in_order_and_skips(seen: Seen) -> None:
    page = seen.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none"
    assert {"INPUT", "BUTTON", "SUMMARY", "SELECT"} <= reached


@pytest.mark.parametrize(
    "context",
    [{}, {**PHONE, "color_scheme": "dark"}, pytest.param(FORCED, marks=pytest.mark.slow)],
    ids=["desktop", "phone in dark", "forced colours"],
)
def test_page_is_accessible_and_nothing_lies_beside_it(
    browser: Browser, report: Path, context: dict[str, object]
) -> None:
    with opened(browser, report, **context) as page:
        for every in page.page.locator("details").all():
            every.evaluate("it => it.open = true")
        page.page.get_by_role("button", name="Show all contents").click()
        assert page.serious() == []
        wide = page.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0 and page.errors == []


def test_page_is_whole_without_scripts_and_in_print(browser: Browser, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False) as page:
        text = page.page.inner_text("main")
        assert re.search(r"of \d+ rows with a verdict are flagged", text)
        assert not page.page.get_by_role("slider").first.is_visible()
    with opened(browser, report) as page:
        page.page.emulate_media(media="print")
        assert not page.page.locator("nav").is_visible()
        # A content that nobody asked for is not on paper either.
        assert not page.page.locator(".veil .text").first.is_visible()
        assert page.page.locator(".veil .unprinted").first.is_visible()
