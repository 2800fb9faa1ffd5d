"""A headless Chromium that notes what a page says and asks for."""

from __future__ import annotations

import importlib.resources
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Debian's; another one by MODERAY_CHROMIUM.
CHROMIUM = os.environ.get("MODERAY_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
# What axe-core calls the worst; a page has none.
SERIOUS = ("serious", "critical")


@dataclass
class Seen:
    """What a page did.

    Attributes:
        page: Of playwright.
        errors: What stands on its console as an error or a warning, and exceptions.
        requests: URLs that it asked for, its own first.
        dialogs: Texts of alerts.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def foreign(self, *own: str) -> list[str]:
        """Requests to anything but addresses that begin so; `data:` never leaves the page."""
        return [url for url in self.requests if not url.startswith((*own, "data:", "blob:"))]

    def serious(self) -> list[str]:
        """What axe-core finds wrong and calls serious or critical, with the elements it means.

        It is evaluated from outside, so that the page's own policy stays as it is.
        """
        source = importlib.resources.files("axe_playwright_python") / "axe.min.js"
        self.page.evaluate(source.read_text("utf-8"))
        found: dict[str, Any] = self.page.evaluate(
            "axe.run(document, {resultTypes: ['violations']})"
        )
        return [
            f"{wrong['id']} ({wrong['impact']}): {wrong['help']}: {node['html'][:200]} "
            f"{[check['message'] for check in node['any'][:1]]}"
            for wrong in found["violations"]
            if wrong["impact"] in SERIOUS
            for node in wrong["nodes"]
        ]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped, and says why, where there is none."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium: {CHROMIUM} is not there (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str | Path, **context: Any) -> Iterator[Seen]:
    """A page, opened in a context of its own.

    Args:
        browser: Of `chromium`.
        url: Its address, or a file.
        context: Options of playwright's `new_context`, such as `color_scheme="dark"`.
    """
    with browser.new_context(**(DESKTOP | context)) as made:
        seen = Seen(made.new_page())
        page = seen.page
        page.on("console", lambda said: _note_console(seen, said.type, said.text))
        page.on("pageerror", lambda error: seen.errors.append(f"exception: {error}"))
        page.on("request", lambda request: seen.requests.append(request.url))

        def dismiss(dialog: Any) -> None:
            seen.dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", dismiss)
        page.goto(url.absolute().as_uri() if isinstance(url, Path) else url)
        yield seen


def _note_console(seen: Seen, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        seen.errors.append(f"{kind}: {text}")
