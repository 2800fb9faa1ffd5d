"""Cases in a CSV: under a header that names them, or under a row for each label."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from moderay.core.errors import Problem, Problems
from moderay.tasks.policy.importing.found import (
    Found,
    FoundCase,
    label_name,
    not_placed,
)
from moderay.tasks.policy.importing.records import CONTENT_KEYS, LABEL_KEYS, found_records, is_case

_DELIMITERS = ",;\t"
_A_LABEL = re.compile(r"(?=.*[A-Za-z])[\w.-]{1,40}")
_SHOWN = 40

# Where it begins, and its cells without blanks around them.
Row = tuple[int, tuple[str, ...]]


def found_sheet(text: str, file: str) -> Found:
    """The cases of a CSV.

    Args:
        text: The whole file.
        file: Its name.

    Raises:
        Problems: It has neither a header that names a content and a label, nor rows that are a
            label alone with cases below them; or it is no CSV.
    """
    rows = _rows(text, file)
    if rows and is_case(dict.fromkeys(rows[0][1])):
        return _named(rows, file)
    if any(_heading(cells) for _, cells in rows):
        return _headed(rows, file)
    message = "no header that names a content and a label, and no row that is a label alone"
    hint = f"content: {', '.join(CONTENT_KEYS[:4])} ...; label: {', '.join(LABEL_KEYS[:4])} ..."
    raise Problems([Problem(file, 1, message, hint)])


def _rows(text: str, file: str) -> list[Row]:
    """Those that are not blank. Raises `Problems`."""
    beginning = text[:10_000]
    delimiter = max(_DELIMITERS, key=beginning.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows, line = [], 1
    try:
        for cells in reader:
            stripped = tuple(cell.strip() for cell in cells)
            if any(stripped):
                rows.append((line, stripped))
            line = reader.line_num + 1
    except csv.Error as error:
        raise Problems([Problem(file, line, f"no CSV: {error}")]) from None
    return rows


def _named(rows: Sequence[Row], file: str) -> Found:
    """Under a header."""
    names = rows[0][1]
    records, left = [], []
    for line, cells in rows[1:]:
        records.append((line, {n: c for n, c in zip(names, cells, strict=False) if n and c}))
        nameless = [c for n, c in zip(names, cells, strict=False) if c and not n]
        if more := [*nameless, *filter(None, cells[len(names) :])]:
            left.append(not_placed(file, line, f"cells that no header names: {_short(more)}"))
    return found_records(file, records) + Found(left=left)


def _headed(rows: Sequence[Row], file: str) -> Found:
    """Under rows that are a label alone, which gives the cases below it."""
    first = next(i for i, (_, cells) in enumerate(rows) if _heading(cells))
    header = {at: cell for _, cells in rows[:1] if first for at, cell in enumerate(cells) if cell}
    column = _longest_column([cells for _, cells in rows[first:] if not _heading(cells)])
    cases: list[FoundCase] = []
    taken: list[Row] = []
    left = [
        not_placed(file, line, _short(cells)) for line, cells in rows[1 if first else 0 : first]
    ]
    label = ""
    for line, cells in rows[first:]:
        if heading := _heading(cells):
            label = heading
        elif len(cells) > column and cells[column]:
            cases.append(FoundCase(file, line, cells[column], label_name(label), label))
            taken.append((line, cells))
        else:
            left.append(not_placed(file, line, _short(cells)))
    labels = [case.label_title for case in cases]
    columns = _other_columns([cells for _, cells in taken], labels, column, header)
    beside = [not_placed(file, 1, what) for what in columns]
    return Found(cases=cases, left=[*beside, *left], ordered=True)


def _heading(cells: Sequence[str]) -> str:
    """The label that a row is alone; empty where it is none."""
    filled = [cell for cell in cells if cell]
    alone = len(filled) == 1 and bool(cells[0])
    return cells[0] if alone and _A_LABEL.fullmatch(cells[0]) else ""


def _longest_column(rows: Sequence[Sequence[str]]) -> int:
    """The one that holds most: the contents."""
    size = Counter[int]()
    for cells in rows:
        size.update({at: len(cell) for at, cell in enumerate(cells)})
    return max(size, key=lambda at: size[at], default=0)


def _other_columns(
    rows: Sequence[Sequence[str]], labels: Sequence[str], content: int, header: Mapping[int, str]
) -> Iterator[str]:
    """What stands beside the contents, and what it looks like."""
    for column in range(max(map(len, rows), default=0)):
        cells = [cells[column] if column < len(cells) else "" for cells in rows]
        if column == content or not any(cells):
            continue
        name = f"column {column + 1}" + (f" ({header[column]})" if column in header else "")
        if set(cells) - {""} <= set(labels):
            same = sum(cell == label for cell, label in zip(cells, labels, strict=True))
            yield (
                f"{name}: a second label of each case, and the heading rows are taken as right; "
                f"the same in {same} of {len(cells)}"
            )
        elif all(cell.isdigit() for cell in cells if cell):
            yield f"{name}: numbers"
        else:
            yield f"{name}: {_short([cell for cell in cells if cell])}"


def _short(cells: Sequence[str]) -> str:
    text = ", ".join(cell for cell in cells if cell)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
