"""What the driver does next, course by course, without Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderay.pipeline.control import incoming as incoming_module
from moderay.pipeline.control.incoming import Incoming, Quiet
from moderay.pipeline.control.watch import LOOK_S, Action, Watch


def test_board_is_looked_at_first_and_then_every_two_seconds() -> None:
    watch, steps = Watch().before_wait(100.0, outstanding=True, signalled=False)
    assert steps == (Action.LOOK, Action.CHECK)
    watch, steps = watch.before_wait(100.0 + LOOK_S, outstanding=True, signalled=False)
    assert steps == (Action.CHECK,)
    watch, steps = watch.before_wait(100.1 + LOOK_S, outstanding=True, signalled=False)
    assert steps == (Action.LOOK, Action.CHECK)
    _, steps = watch.before_wait(100.2 + LOOK_S, outstanding=True, signalled=False)
    assert steps == (Action.CHECK,)


def test_a_signal_stops_the_board_once_and_has_it_looked_at_each_time() -> None:
    watch, _ = Watch().before_wait(100.0, outstanding=True, signalled=False)
    watch, steps = watch.before_wait(100.1, outstanding=True, signalled=True)
    assert steps == (Action.STOP_BOARD, Action.LOOK, Action.CHECK)
    for _ in range(3):
        watch, steps = watch.before_wait(100.2, outstanding=True, signalled=True)
        assert steps == (Action.LOOK, Action.CHECK)


def test_a_signal_after_the_last_row_changes_nothing() -> None:
    watch, steps = Watch().before_wait(100.0, outstanding=False, signalled=True)
    assert steps == () and watch == Watch()
    assert watch.after_quiet(Quiet.NO_MORE, outstanding=False, at_work=False) is Action.FINISH


@pytest.mark.parametrize(
    ("stopping", "quiet", "outstanding", "at_work", "step"),
    [
        (False, Quiet.NOTHING_YET, True, False, Action.WAIT),  # an engine starts
        (False, Quiet.NOTHING_YET, True, True, Action.WAIT),
        (False, Quiet.NOTHING_YET, False, False, Action.WAIT),  # Ray Data is about to end
        (
            True,
            Quiet.NOTHING_YET,
            True,
            True,
            Action.WAIT,
        ),  # until saved, or the grace is over
        (True, Quiet.NOTHING_YET, True, False, Action.END_STOPPED),
        (False, Quiet.NO_MORE, False, False, Action.FINISH),
        (False, Quiet.NO_MORE, True, False, Action.FINISH),  # the tracker says what is lost
        (True, Quiet.NO_MORE, True, False, Action.END_STOPPED),
        (True, Quiet.NO_MORE, False, False, Action.FINISH),
    ],
)
def test_where_no_unit_came(
    stopping: bool, quiet: Quiet, outstanding: bool, at_work: bool, step: Action
) -> None:
    watch = Watch(stopping=stopping)
    assert watch.after_quiet(quiet, outstanding=outstanding, at_work=at_work) is step


@given(
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=40),
    st.integers(0, 40),
)
def test_limits_are_checked_each_turn_and_nobody_is_told_twice(
    turns: list[tuple[float, bool]], signal_at: int
) -> None:
    """Whatever the pauses, whether rows are outstanding, and whenever the signal comes."""
    watch, now, looked, stops = Watch(), 0.0, None, 0
    for turn, (pause, outstanding) in enumerate(turns):
        now += pause
        watch, steps = watch.before_wait(now, outstanding=outstanding, signalled=turn >= signal_at)
        assert (Action.CHECK in steps) == outstanding
        stops += Action.STOP_BOARD in steps
        if Action.LOOK in steps:
            looked = now
        if outstanding:
            assert looked is not None and now - looked <= LOOK_S
    assert stops == any(outstanding for _, outstanding in turns[signal_at:])


def unexpected() -> None:
    raise AssertionError("the generator was abandoned, and it had ended")


def test_items_come_in_order_and_then_no_more() -> None:
    with Incoming((item for item in "abc"), unexpected) as incoming:
        items = [incoming.wait(5.0) for _ in range(4)]
    assert items == ["a", "b", "c", Quiet.NO_MORE]


def test_what_the_generator_raises_is_raised_where_it_is_waited_for() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        raise KeyError("lost")

    with Incoming(items(), unexpected) as incoming:
        assert incoming.wait(5.0) == 1
        with pytest.raises(KeyError, match="lost"):
            incoming.wait(5.0)


def test_one_who_leaves_waits_for_one_item_and_the_generator_is_closed_by_its_own_thread() -> None:
    closed: list[str] = []
    go_on = threading.Event()

    def items() -> Generator[int, None, None]:
        try:
            while True:
                go_on.wait(5.0)
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with Incoming(items(), unexpected) as incoming:
        began = time.monotonic()
        assert incoming.wait(0.01) is Quiet.NOTHING_YET
        assert time.monotonic() - began < 4
        threading.Timer(0.05, go_on.set).start()
    assert closed == ["units"]


def test_generator_from_which_nothing_comes_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming_module, "END_S", 0.05)
    abandoned = threading.Event()

    def items() -> Generator[int, None, None]:
        abandoned.wait(20.0)
        yield 1

    with Incoming(items(), abandoned.set) as incoming:
        assert incoming.wait(0.01) is Quiet.NOTHING_YET
    assert abandoned.is_set()
