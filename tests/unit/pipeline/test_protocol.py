"""Two drivers of one output, stopped between any two of their writes: nothing is lost or wrong."""

import logging
from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drivers import Drivers, PointlessError, job_file
from support.schedules import WRITES, every

from moderay.pipeline.check import Checked, check

# Drivers go on for a while, and are then left for another: what goes wrong needs few such turns.
schedules = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("ab"), st.integers(1, 14)), st.tuples(st.sampled_from("ABt"))
    ),
    max_size=9,
).map(lambda turns: "".join(letter * (count or [1])[0] for letter, *count in turns))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """One shard of one unit: a run writes some dozen times."""
    return check(job_file(tmp_path_factory.mktemp("small"), shards=1, rows=3))


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """Two shards of two units."""
    return check(job_file(tmp_path_factory.mktemp("larger"), shards=2, rows=4))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A store that does not heed conditions is warned of at every run."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("written", range(0, 11, 2))
def test_every_short_schedule_from_each_write_of_a_run(small: Checked, written: int) -> None:
    """After a driver has written so often: all that two drivers, kills and time do in two steps."""
    count = 0

    def is_pointless(schedule: str) -> bool:
        try:
            Drivers.played(small, "memory://steps", schedule, strict=True)
        except PointlessError:
            return True
        return False

    for _ in every("a" * written, 2, is_pointless):
        count += 1
    assert count >= 6


@pytest.mark.slow
def test_driver_that_sleeps_before_any_write_and_wakes_when_another_is_through(
    small: Checked,
) -> None:
    for written, woken, end in product(range(WRITES), (0, 1, 3), ("", "A")):
        schedule = "a" * written + "t" + "b" * WRITES + "a" * woken + end
        Drivers.played(small, "memory://steps", schedule)


def test_drivers_of_two_parts_that_take_turns_at_any_write(larger: Checked) -> None:
    for written, others in product(range(0, WRITES, 2), range(1, WRITES, 3)):
        Drivers.played(larger, "memory://steps", "a" * written + "b" * others, parts=2)


@settings(max_examples=60)
@given(
    schedule=schedules,
    store=st.sampled_from(["whole", "parts", "careless"]),
)
def test_sampled_schedules(larger: Checked, schedule: str, store: str) -> None:
    """Also where each driver has a part, and where the store overwrites what it should create."""
    Drivers.played(
        larger,
        "memory://steps",
        schedule,
        conditional=store != "careless",
        parts=2 if store == "parts" else 1,
    )


@pytest.mark.slow
@settings(max_examples=40)
@given(schedule=schedules, parts=st.sampled_from([1, 2]))
def test_sampled_schedules_in_a_folder(
    larger: Checked, tmp_path_factory: pytest.TempPathFactory, schedule: str, parts: int
) -> None:
    Drivers.played(larger, str(tmp_path_factory.getbasetemp()), schedule, parts=parts)


@pytest.mark.long
@settings(max_examples=15)
@given(schedule=schedules, parts=st.sampled_from([1, 2]))
def test_sampled_schedules_on_s3(
    larger: Checked, s3: dict[str, str], schedule: str, parts: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        Drivers.played(larger, "s3://data/protocol", schedule, parts=parts)
