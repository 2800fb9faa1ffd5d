"""What a search leaves in a folder, beside what was judged."""

from __future__ import annotations

from pathlib import Path

from moderay.tasks.tune.pictures import draw
from moderay.tasks.tune.results import RECORD
from moderay.tasks.tune.tune import Tuned


def write_search(found: Tuned, folder: Path) -> None:
    """Write `tune.json` and a picture; what an earlier search left there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        draw(found.tried, found.record, folder / f"{found.record.policy}.{suffix}")
    # Last: whoever finds it finds the rest.
    (folder / RECORD).write_bytes(found.record.to_json())
