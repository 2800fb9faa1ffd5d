"""The review page in a headless Chromium, over the command itself."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.browser import PHONE, chromium, opened
from support.reviewing import (
    HOSTILE,
    files_of,
    free_port,
    kept,
    served,
    spam_output,
    spam_rows,
    start,
)

from moderay.labels.reviews import answers

# Milliseconds in which a page shows what it was asked for on a busy machine.
SLOW_MS = 30_000
LONG, ARABIC = "long " * 1000, "مرحبا بالعالم"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=SLOW_MS)
    with chromium() as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens lie in a folder of the test's own."""
    monkeypatch.setenv("MODERAY_CACHE", str(tmp_path / "cache"))


def given(page: Page) -> int:
    """How many answers the page says are kept."""
    return int((page.locator("#progress").text_content() or "0").split(" ")[0])


def asked(page: Page) -> None:
    """Wait for a question."""
    expect(page.locator("#labels button").first).to_be_visible()
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")


def answer(page: Page, key: str) -> None:
    """Press a label's key, wait until it is kept, and go on."""
    page.keyboard.press(key)
    expect(page.locator("#onward")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#onward")).to_be_hidden()
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")


@pytest.mark.slow
def test_a_sitting_from_the_first_key_to_the_last_through_a_reload_and_a_kill(
    tmp_path: Path, browser: Browser, cache: None
) -> None:
    folder, port = tmp_path / "labels", free_port()
    texts = [*HOSTILE, LONG, ARABIC]
    spam_output(folder, {"a.parquet": spam_rows(len(texts), texts)})
    first = start(folder, port, "anna")
    with opened(browser, first.links["anna"]) as seen:
        page = seen.page
        asked(page)
        assert page.url == f"{first.origin}/"  # the token is out of sight
        assert seen.serious() == []
        # Blurred, and for a screen reader not there, until it is asked for.
        assert page.locator("#content").evaluate("box => [box.inert, box.className]") == [
            True,
            "blurred",
        ]
        page.keyboard.press("b")
        assert not page.locator("#content").evaluate("box => box.inert")
        page.keyboard.press("n")
        page.keyboard.type("12 s u")  # of a note no key is a label's
        page.keyboard.press("Escape")
        page.keyboard.press("3")
        expect(page.locator("#revealed")).to_contain_text("Model")
        [review] = kept(folder)
        assert (review.label, review.note, review.reviewer) == ("SP4", "12 s u", "anna")
        assert seen.serious() == []
        page.keyboard.press("u")
        asked(page)
        assert given(page) == 0 and page.locator("#note").input_value() == "12 s u"
        answer(page, "1")
        page.keyboard.press("s")
        expect(page.locator("#status")).to_have_text("Skipped")
        assert [review.label for review in answers(kept(folder))] == ["SP0", None]

        page.reload()
        asked(page)
        assert given(page) == 2
        # Answered while the server is dead: kept once it is there again, and once alone.
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        page.keyboard.press("2")
        expect(page.locator("#status")).to_contain_text("not saved yet")
        with served(folder, port, "anna") as second:
            assert second.links == first.links
            expect(page.locator("#onward")).to_be_visible()
            assert [review.label for review in answers(kept(folder))] == ["SP0", None, "SP2"]
            page.keyboard.press("Enter")
            for _ in range(len(texts) - 3):
                asked(page)
                answer(page, "1")
            expect(page.locator("#done")).to_be_visible()
            assert seen.serious() == []
    own = f"{first.origin}/"
    refused = [error for error in seen.errors if "ERR_CONNECTION_REFUSED" not in error]
    assert (refused, seen.foreign(own), seen.dialogs) == ([], [], [])
    assert len(answers(kept(folder))) == len(texts)
    # The killed server's answers lie as they were given, the other's together.
    assert Counter(Path(name).suffix for name in files_of(folder)) == {".json": 4, ".jsonl": 1}


def test_contents_are_text_whatever_they_hold(
    tmp_path: Path, browser: Browser, cache: None
) -> None:
    folder = tmp_path / "labels"
    texts = [*HOSTILE, LONG, ARABIC]
    spam_output(folder, {"a.parquet": spam_rows(len(texts), texts)})
    shown: dict[str, str] = {}
    with (
        served(folder, free_port(), "anna", more=["--assisted"]) as server,
        opened(browser, server.links["anna"], **PHONE) as seen,
    ):
        page = seen.page
        for _ in texts:
            asked(page)
            page.keyboard.press("b")
            box = page.locator("#content")
            text = box.text_content() or ""
            if "long" in text:
                assert 1000 < len(text) < 2000
                page.keyboard.press("e")
                text = box.text_content() or ""
            shown[text] = box.locator("p").evaluate("p => getComputedStyle(p).direction")
            # Nothing of it is an element, and nothing of the page is gone.
            assert box.evaluate("box => box.querySelectorAll('*').length") == 1
            assert seen.serious() == []
            answer(page, "1")
        assert page.title() == "moderay review"
    assert (seen.errors, seen.dialogs, seen.foreign(f"{server.origin}/")) == ([], [], [])
    signs = str.maketrans({"\x1b": "\u241b", "\x07": "\u2407"})
    assert set(shown) == {text.translate(signs) for text in texts}
    assert shown[ARABIC] == "rtl" and shown[LONG] == "ltr"
    assert {review.assisted for review in kept(folder)} == {True}


@pytest.mark.long
def test_two_reviewers_at_once_and_ten_kills_lose_and_double_no_answer(
    tmp_path: Path, browser: Browser, cache: None
) -> None:
    """Killed at random moments of a sitting, the one before an answer is kept included."""
    folder, port, draw = tmp_path / "labels", free_port(), random.Random(18)
    spam_output(folder, {"a.parquet": spam_rows(60)})
    names, said = ("anna", "ben"), {"anna": 0, "ben": 0}
    server = start(folder, port, *names, more=["--count", "60"])
    with (
        opened(browser, server.links["anna"]) as anna,
        opened(browser, server.links["ben"]) as ben,
    ):
        pages = {"anna": anna.page, "ben": ben.page}
        for page in pages.values():
            asked(page)
            page.locator("#hurry").check()
            page.locator("#question").focus()
        for _ in range(10):
            for _ in range(draw.randint(1, 3)):
                for name, page in pages.items():
                    page.keyboard.press("3" if name == "anna" else str(draw.randint(1, 3)))
                    said[name] += 1
                    expect(page.locator("#progress")).to_have_text(f"{said[name]} of 60")
                    asked(page)
            # One key each, and the server dies before, while or after it keeps the answers.
            for name, page in pages.items():
                page.keyboard.press("3")
                said[name] += 1
            pages["ben"].wait_for_timeout(draw.choice([0, 0, 5, 20, 60]))
            server.process.kill()
            server.process.wait()
            server = start(folder, port, *names, more=["--count", "60"])
            for name, page in pages.items():
                if draw.random() < 0.3:
                    page.reload()
                asked(page)
                expect(page.locator("#progress")).to_have_text(f"{said[name]} of 60")
        server.process.terminate()
        server.process.wait(30)
    reviews = kept(folder)
    assert Counter(review.reviewer for review in reviews) == said
    contents = {(review.reviewer, review.content_hash) for review in reviews}
    assert len(contents) == len(reviews) == len({review.id for review in reviews})
