"""How a judged row is printed as text, by `run --show` and by `try`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from moderay.cli.console import out
from moderay.core.errors import inert

if TYPE_CHECKING:
    from moderay.config.policy import Policy

INDENT = 4
# What a row comes to, by whether it violates, in the order in which rows are printed.
HEADINGS = {True: "flagged", None: "not known", False: "not flagged"}


def paragraph(text: str, depth: int, style: str = "") -> None:
    """Print a paragraph: folded in a terminal, one line in a pipe.

    Args:
        text: What it says; whatever spaces and lines it has.
        depth: By how many steps it is indented.
        style: As rich has it.
    """
    line = Text(inert(" ".join(text.split())), style)
    if out.is_terminal:
        out.print(Padding(line, (0, 0, 0, depth * INDENT), expand=False))
    else:
        out.print(Text(" " * (depth * INDENT)) + line, soft_wrap=True)


def title_of(label: str | None, policy: Policy) -> str | None:
    """What a label means; None where the policy does not say it, or has no such label."""
    known = policy.labels.get(label or "")
    return known.title or None if known is not None else None
