"""Patterns that content could make slow are refused, and those that people write are not."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.patience import within

from moderay.core.patterns import MOST_REPEATED, pattern_problem

TEXT = pl.Series(["ab cd " * 20_000, "a" * 100_000, "\U0001f600" * 20_000, "q" * 100_000])


@pytest.mark.parametrize(
    "pattern",
    [
        r"https?://\S+\.(zip|top)\b",
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
        r"free.{0,300}prize",
        r"(?i)\b[a-z0-9._%+-]{1,64}@[a-z0-9.-]{1,255}\.[a-z]{2,24}\b",
        r"\{9000\}|[{9000}]",
        "|".join(f"word{number}" for number in range(3_000)),
        r"(?x) (?P<number> \d{4} )  # [ not a class",
        r"[]x]{3}[^]x]{3}[[:alpha:]]{3}\p{Greek}{3}\pL{3}",
        rf".{{1,{MOST_REPEATED}}}~",
    ],
)
def test_pattern_that_people_write_is_allowed_and_quick(pattern: str) -> None:
    assert pattern_problem(pattern) is None
    with within(10):
        TEXT.str.contains(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r".{1,3000}q",
        r"(?:.{1,60}){1,60}q",
        r"(?:(?:(?:.{10}){10}){10}){10}",
        ".?" * 1_001 + "q",
        "(" + "a" * 100 + "){100}",
        "(free|win){1,2000}",
        r"(?:.){3000,}",
        "(?x) .{ 1 , 3000 } q",
        "(?x) .{ 1 , # so many\n 3000 } q",
        # Brackets in a comment, which hide nothing.
        "(?x).{1,10} # [ \n.{1,3000}q # ]",
        "a#.{1,3000}q(?x)",
        r"\\#[.{1,3000}q(?x)",
    ],
)
def test_pattern_that_content_could_make_slow_is_refused(pattern: str) -> None:
    problem = pattern_problem(pattern)
    assert problem is not None
    assert "repetitions" in problem[0] or "unclosed" in problem[0]


@given(st.text("a.?*+{}[]()|\\#^$,123x: \n", max_size=40))
def test_any_pattern_is_sound_or_a_problem(pattern: str) -> None:
    problem = pattern_problem(pattern)
    if problem is None:
        pl.Series(["a1 x"]).str.contains(pattern)
    else:
        assert problem[0]
