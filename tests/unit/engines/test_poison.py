"""The search for poison rows: all are found, all others answered, and restarts have a bound."""

from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from moderay.engines.poison import MOST_DEATHS_IN_A_ROW, PoisonSearch


def simulate(
    rows: list[str], kills: Callable[[str], bool], seats: int, random: Random
) -> tuple[PoisonSearch, list[str], int]:
    """An engine with so many seats, which a row may kill at any moment it runs.

    Returns:
        The last state, the rows that were answered, and the deaths.
    """
    search, unfinished, answered, deaths = PoisonSearch(), list(rows), list[str](), 0
    while unfinished and not search.hopeless:
        search = search.next_trial(unfinished)
        turn = [row for row in unfinished if search.may_run(row)]
        assert turn, f"nobody may run: {search}"
        running = turn[:seats]
        row = random.choice(running)
        if row in search.poison:
            unfinished.remove(row)  # refused
        elif kills(row):
            search, deaths = search.died(running), deaths + 1
            continue
        else:
            search = search.answered()
            unfinished.remove(row)
            answered.append(row)
        search = search.finished(row)
    return search, answered, deaths


@given(
    rows=st.integers(1, 80),
    poison=st.sets(st.integers(0, 79), max_size=3),
    seats=st.sampled_from([1, 2, 7, 100]),
    random=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_up_to_three_poison_rows_are_found_wherever_they_are(
    rows: int, poison: set[int], seats: int, random: Random
) -> None:
    names = [str(row) for row in range(rows)]
    deadly = {str(row) for row in poison if row < rows}
    search, answered, deaths = simulate(names, deadly.__contains__, seats, random)
    assert search.poison == deadly
    assert sorted(answered) == sorted(set(names) - deadly)
    assert deaths <= 3 * len(deadly)
    assert not search.suspects and not search.trial


@given(
    rows=st.integers(20, 60),
    share=st.floats(0, 1),
    seats=st.sampled_from([1, 8, 64]),
    random=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_however_many_are_poison_only_they_are_accused_and_each_kills_three_times_at_most(
    rows: int, share: float, seats: int, random: Random
) -> None:
    names = [str(row) for row in range(rows)]
    deadly = {name for name in names if random.random() < share}
    search, answered, deaths = simulate(names, deadly.__contains__, seats, random)
    assert search.poison <= deadly and not deadly & set(answered)
    assert deaths <= 3 * len(deadly)
    assert search.hopeless or (search.poison == deadly and len(answered) == rows - len(deadly))


def test_engine_that_always_dies_is_hopeless_after_ten_deaths() -> None:
    search, answered, deaths = simulate(
        [str(row) for row in range(50)], lambda row: True, 8, Random(0)
    )
    assert search.hopeless and not answered and deaths == MOST_DEATHS_IN_A_ROW == 10


def test_failed_starts_count_like_deaths_until_somebody_is_answered() -> None:
    search = PoisonSearch().died(["a"]).not_started()
    assert search.deaths_in_a_row == 2 and search.answered().deaths_in_a_row == 0
    for _ in range(MOST_DEATHS_IN_A_ROW - 2):
        search = search.not_started()
    assert search.hopeless and list(search.suspects) == ["a"]


def test_suspects_wait_for_the_others_and_are_tried_in_groups_then_alone() -> None:
    rows = [str(row) for row in range(9)]
    search = PoisonSearch().died(rows).next_trial([*rows, "other"])
    assert not search.trial and search.may_run("other") and not search.may_run("0")
    search = search.next_trial(rows)
    assert search.trial == {"0", "1", "2"} and not search.may_run("3")
    assert not search.may_run("other")  # it came late, and waits for the trial
    search = search.died(["0", "1", "2"]).next_trial(rows)
    assert search.trial == {"3", "4", "5"}
    for row in rows[3:]:
        search = search.finished(row).next_trial(rows[:3])
    assert search.trial == {"0"}
    search = search.died(["0"]).next_trial(["0", "1", "2"])
    assert search.poison == {"0"} and search.may_run("0") and search.trial == {"1"}


def test_row_that_is_left_of_its_group_is_tried_alone() -> None:
    search = PoisonSearch().died(["a", "b", "c"]).next_trial(["a", "b", "c"])
    assert search.trial == {"a", "b"}
    assert search.finished("a").died(["b"]).poison == {"b"}


def test_step_leaves_the_state_before_as_it_was() -> None:
    before = PoisonSearch().died(["a", "b"]).next_trial(["a", "b"])
    copy = PoisonSearch(dict(before.suspects), before.trial, before.poison, before.deaths_in_a_row)
    before.died(["a", "b"]), before.finished("a"), before.answered(), before.not_started()
    assert before == copy
