"""How an explanation is printed as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from moderay.cli.console import out
from moderay.tasks.explain.sections import Section, sections
from moderay.tasks.pages.text import safe_text

if TYPE_CHECKING:
    from moderay.tasks.explain.records import Explanation

INDENT = 4


def show_explanation(explanation: Explanation) -> None:
    """What matters first, then every field; what a terminal would obey stands as symbols."""
    for number, section in enumerate(sections(explanation)):
        if number:
            _print("")
        _show(section)


def _show(section: Section) -> None:
    _print(section.title, style="bold")
    for sentence in section.sentences:
        _print(" ".join(sentence.split()))
    for entry in section.entries:
        if not entry.is_long:
            _print(f"{entry.name}: {entry.value}", INDENT)
            continue
        _print(f"{entry.name}:", INDENT)
        for line in safe_text(entry.value).split("\n"):
            _print(line, 2 * INDENT)
    if section.empty:
        _print(f"not there, or not known: {', '.join(section.empty)}", INDENT)


def _print(line: str, indent: int = 0, style: str = "") -> None:
    """A line: folded in a terminal, and as it is in a pipe."""
    text = Text(safe_text(line).replace("\n", "\u2424"), style)
    if out.is_terminal:
        out.print(Padding(text, (0, 0, 0, indent), expand=False))
    else:
        out.print(Text(" " * indent) + text, soft_wrap=True)
