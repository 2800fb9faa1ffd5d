"""What stops a run."""

import pytest

from moderay.config.job import Limits
from moderay.core.errors import StoppedError
from moderay.pipeline.control.board import AtWork, BoardState
from moderay.pipeline.control.limits import Brakes
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.control.tracker import Tracker


def test_gpu_hours_are_a_limit() -> None:
    brakes = Brakes(Limits(gpu_hours=1e-9), 8, 1, Progress(None), 0)
    with pytest.raises(StoppedError, match=r"after 1e-09 GPU hours \(limits.gpu_hours\)") as stop:
        brakes.check(BoardState(), Tracker([]))
    assert stop.value.exit_status == 3


def test_what_the_board_has_heard_of_is_no_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    brakes = Brakes(Limits(stall_s=60), 0, 1, Progress(None), 0)
    for saved in (0, 512, 1024):
        brakes.check(BoardState(saved=saved), Tracker([]))
        now += 50
    brakes.check(BoardState(saved=1024), Tracker([]))
    now += 20
    with pytest.raises(StoppedError, match=r"nothing was saved for 60 s \(limits.stall_s\)"):
        brakes.check(BoardState(saved=1024), Tracker([]))


def test_actors_that_are_lost_count_only_while_nothing_is_saved() -> None:
    brakes = Brakes(Limits(), 0, 1, Progress(None), 0)
    for actors in range(1, 40):
        brakes.check(BoardState(actors=actors, saved=100 * actors), Tracker([]))
    brakes.check(BoardState(actors=49, saved=3900), Tracker([]))
    with pytest.raises(StoppedError, match="11 engine actors were lost one after the other"):
        brakes.check(BoardState(actors=50, saved=3900), Tracker([]))


def test_a_run_that_stands_still_names_the_oldest_messages_and_counts_the_others() -> None:
    oldest = tuple(AtWork(("a", (row, row + 8)), "process 1 on b", 70.0) for row in (0, 8, 16))
    seen = BoardState(at_work=12, oldest=oldest)
    brakes = Brakes(Limits(stall_s=1e-9), 0, 1, Progress(None), 0)
    named = r"in judging: a rows 0-8 in process 1 on b for 70 s; .*16-24 in .* and 9 more"
    with pytest.raises(StoppedError, match=named):
        brakes.check(seen, Tracker([]))
