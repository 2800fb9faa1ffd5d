"""What a search leaves in a folder, beside what was judged."""

from __future__ import annotations

from pathlib import Path

from moderay.tasks.tune.page import search_page
from moderay.tasks.tune.pictures import draw
from moderay.tasks.tune.results import RECORD
from moderay.tasks.tune.tune import Tuned

PAGE = "tune.html"


def write_search(found: Tuned, folder: Path) -> None:
    """Write `tune.json`, `tune.html` and a picture, over what an earlier search left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        draw(found.tried, found.record, folder / f"{found.record.policy}.{suffix}")
    (folder / PAGE).write_text(search_page(found.record), "utf-8")
    # Last: whoever finds it finds the rest.
    (folder / RECORD).write_bytes(found.record.to_json())
