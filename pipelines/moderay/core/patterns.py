"""Regular expressions that people write, before content meets them.

Polars finds them with Rust's engine, whose time is linear in the text. How steep the line is
depends on the pattern: `.{1,3000}x` takes a minute for a megabyte, so repetitions are counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Characters and classes that a pattern comes to when its counted repetitions are written out. At
# a thousand a megabyte takes a third of a second, at three thousand more than a minute.
MOST_REPEATED = 1_000
_LINEAR = (
    "patterns take linear time: no look-around and no back-references; for an exception "
    "write a rule with pass: true before this one"
)
_SPACE = r"(?:\s|\#[^\n]*\n)*"
_TOKEN = re.compile(
    rf"""
    (?P<open>\((?:\?[^:)]*:?)?)
    | (?P<close>\))
    | \{{{_SPACE}(?P<least>\d*){_SPACE}(?:,{_SPACE}(?P<most>\d*){_SPACE})?\}}
    | (?P<optional>[?*+])
    | (?P<class>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\] | \. | \\[pP]\{{[^}}]*\}} | \\[dDsSwWpP])
    | (?P<other>\\. | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x")
_COMMENT = re.compile(r"(\\.)|#[^\n]*", re.DOTALL)


@dataclass(frozen=True)
class _Size:
    """What a part of a pattern comes to.

    Attributes:
        length: Characters and classes, counted repetitions written out.
        repeated: Of these, classes and what is repeated; plain texts are found at any length.
    """

    length: int = 0
    repeated: int = 0

    def __add__(self, other: _Size) -> _Size:
        return _Size(self.length + other.length, self.repeated + other.repeated)

    def times(self, count: int) -> _Size:
        """So often."""
        length = max(self.length, 1) * max(count, 1)
        return _Size(length, length)


def pattern_problem(pattern: str) -> tuple[str, str] | None:
    """Why a pattern cannot be used, and a hint."""
    import polars as pl  # noqa: PLC0415  late: most jobs have no pattern

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        text = str(error).partition("\n\nThis error occurred")[0].removeprefix("regex error: ")
        what = text.rpartition("error: ")[2].strip()
        is_about_time = "look-around" in what or "backreferences" in what
        return what, _LINEAR if is_about_time else ""
    if (count := _repeated(pattern)) > MOST_REPEATED:
        reason = f"its repetitions come to {count:,} characters, and may to {MOST_REPEATED:,}"
        return reason, "lower the counts, use * or +, or write several rules"
    return None


def _repeated(pattern: str) -> int:
    """Classes, and characters that are repeated, with counted repetitions written out."""
    if _VERBOSE.search(pattern) is None:
        return _size(pattern).repeated
    # Comments may hold brackets; what looks like one may be none, where the flag is off.
    bare = _COMMENT.sub(lambda found: found[1] or "", pattern)
    return max(_size(pattern).repeated, _size(bare).repeated)


def _size(pattern: str) -> _Size:
    # Of each open group, the whole before the last atom, and the last atom, which may be repeated.
    before, atoms = [_Size()], [_Size()]
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            before.append(_Size())
            atoms.append(_Size())
            continue
        if token["close"]:
            whole = before.pop() + atoms.pop()
            if not before:
                before, atoms = [_Size()], [_Size()]
        elif token["least"] is not None:
            atoms[-1] = atoms[-1].times(int(token["most"] or token["least"] or 1))
            continue
        elif token["optional"]:
            atoms[-1] = _Size(atoms[-1].length, max(atoms[-1].repeated, 1))
            continue
        else:
            whole = _Size(1, 1 if token["class"] else 0)
        before[-1] += atoms[-1]
        atoms[-1] = whole
    return sum([*before, *atoms], _Size())
