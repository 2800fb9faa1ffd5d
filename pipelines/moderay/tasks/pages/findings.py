"""A page of findings: sections of sentences, tables, charts and rows to look at.

What evaluations, comparisons, filters and searches leave beside their JSON; each fills it in.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moderay.tasks.pages import charts
from moderay.tasks.pages.page import SCRIPTS, render

# Characters of all texts of rows together, and of one at most.
TEXTS, TEXT = 600_000, 6_000


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows.
        columns: Titles, and whether numbers stand below them.
        rows: Texts.
        total: Whether the last row is the sum of the others.
    """

    caption: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str]]
    total: bool = False


@dataclass(frozen=True)
class Movable:
    """Rows by P with a threshold that can be moved.

    Attributes:
        chart: Rows by P.
        label: What it shows, in words.
        slider: As report.js takes it.
        note: What recall and precision are of.
    """

    chart: charts.Histogram
    label: str
    slider: dict[str, Any]
    note: str


@dataclass(frozen=True)
class Look:
    """A row to look at.

    Attributes:
        title: What is said of it.
        policy: Under which.
        tags: Why it is here.
        content: What was judged; None where it is not shown.
        lines: (title, text) of what else is known.
        folded: (title, text) of what is long.
        where: File and row.
    """

    title: str
    policy: str
    tags: Sequence[str]
    content: str | None
    lines: Sequence[tuple[str, str]]
    folded: Sequence[tuple[str, str]]
    where: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: For links; of letters, digits and hyphens.
        title: Its heading.
        says: Sentences.
        tables: Tables.
        movable: A threshold to move.
        curves: Charts with what they show.
        looks: Rows to look at.
    """

    id: str
    title: str
    says: Sequence[str] = ()
    tables: Sequence[Table] = ()
    movable: Movable | None = None
    curves: Sequence[tuple[str, charts.Curve]] = ()
    looks: Sequence[Look] = ()


def findings_page(kicker: str, title: str, place: str, sections: Sequence[Section]) -> str:
    """The page's text.

    Args:
        kicker: What made it, such as `moderay eval`.
        title: Of what it is.
        place: A line below the title.
        sections: Its parts.
    """
    looks = sum(len(section.looks) for section in sections)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return render(
        "findings.html.j2",
        scripts=(*SCRIPTS, "report.js"),
        data={"policies": [each.movable.slider for each in sections if each.movable is not None]},
        kicker=kicker,
        title=title,
        place=f"{place} · made {made}",
        sections=sections,
        looks=looks,
        most=min(TEXT, TEXTS // max(1, looks)),
    )
