"""What a run shows of itself, in a pipe."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from moderay.core import events
from moderay.pipeline.control.board import BoardState
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.messages.units import UnitDone


def unit(start: int, end: int, selected: int, forced: int = 0) -> UnitDone:
    counts = Counter(ok=selected, forced=forced)
    return UnitDone("a", (start, end), selected=selected, flagged=1, counts={"spam": counts})


def test_lines_tell_what_a_run_waits_for_before_the_first_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    progress = Progress(Console(), interval=0.0)
    progress.start(300, 2, "openai/gpt-oss-safeguard-20b")
    progress.look(BoardState())
    one, both = ("with the answer",), ("by a second request: why", "with the answer")
    progress.look(BoardState(starts=(41.2,), probability_by=one))
    progress.look(BoardState(starts=(41.2, 43.6), probability_by=both))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(",")[0] or line for line in lines[1:]] == [
        "0 of 300 rows: engines are starting",
        "1 engine ready after 41 s, 1 of 2".rpartition(",")[0],
        "P of a label comes with the answer",
        "0 of 300 rows: reading",
        "1 engine ready after 44 s, 2 of 2".rpartition(",")[0],
        "P of a label comes by a second request: why",
        "0 of 300 rows: reading",
    ]
    assert lines[0] == "starting 2 engines: openai/gpt-oss-safeguard-20b"


def test_the_first_rows_are_told_at_once_and_selected_and_forced_ones_in_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with events.of_run("nightly", 0, tmp_path / "events.jsonl"):
        progress = Progress(Console(), interval=600.0)
        progress.start(300)
        progress.add(unit(0, 10, 4, forced=3))
        progress.add(unit(10, 20, 1))
        progress.stop()
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("10 of 300 rows: 4 selected, ")
    assert last.startswith("20 of 300 rows: 5 selected, ")
    assert last.endswith(" tokens/s, 2 flagged, 0 failed, 3 forced")


def test_a_quiet_run_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None, interval=0.0)
    progress.start(300, 1, "tiny")
    progress.look(BoardState(starts=(1.0,)))
    progress.add(unit(0, 10, 4))
    progress.stop()
    assert capsys.readouterr() == ("", "")


def test_rows_that_are_saved_and_not_yet_heard_of_are_told() -> None:
    progress = Progress(None, 1e9)
    progress.start(1000, 2)
    progress.look(BoardState(starts=(1.0,), saved=300))
    assert progress._line().startswith("reading, 0 s, 300 rows saved")
    progress.add(UnitDone("a", (0, 200), selected=200))
    assert "saved" not in progress._line()
    progress._interval = 0.0  # so long ago
    assert progress._line().endswith(", 100 more saved")
    progress.add(UnitDone("a", (200, 400), selected=200))
    assert "more saved" not in progress._line()
