"""An explanation as a page to print."""

from __future__ import annotations

from pathlib import Path

from moderay.tasks.explain.records import Explanation
from moderay.tasks.explain.sections import sections
from moderay.tasks.pages.page import render


def explanation_page(explanation: Explanation) -> str:
    """The page's text: contents are hidden on it until somebody asks for them."""
    row = explanation.row
    return render(
        "explain.html.j2",
        title=f"Row {row.row:,} of {row.shard}",
        place=f"{explanation.output.name}, labels in {explanation.output.url}",
        sections=list(sections(explanation)),
        made=explanation.made,
        version=explanation.moderay,
    )


def write_page(explanation: Explanation, file: Path) -> None:
    """Write it; a file that is there is replaced."""
    file.write_text(explanation_page(explanation), encoding="utf-8")
