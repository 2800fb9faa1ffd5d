"""Claims on the slots of an output: who holds which, and when a driver has lost."""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from moderay.core.errors import TryAgainError, UserError
from moderay.labels import lease as leases
from moderay.labels.layout import SLOTS, Layout
from moderay.labels.lease import (
    Lease,
    LeaseLostError,
    assert_held,
    beat_path,
    claim_path,
    claims,
    is_held,
    slots_of,
)
from moderay.labels.records import LeaseRecord


class Careless(MemoryFileSystem):
    """A store that overwrites what it was asked to create only if it is not there."""

    protocol = ("careless", "memory")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **options)


@pytest.fixture(params=["folder", "memory", "s3"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    if request.param == "folder":
        return Layout(str(tmp_path / "out"))
    if request.param == "memory":
        return Layout(f"memory://{uuid.uuid4().hex}/out")
    return Layout(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leases that are over after a second."""
    monkeypatch.setattr(leases, "RENEW_S", 0.2)
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    yield


def claim_of_another(layout: Layout, run: int, part: tuple[int, int] = (0, 1)) -> None:
    """As a driver on another machine leaves it."""
    claim = LeaseRecord(id="a", run=run, part=part, host="elsewhere", machine="another", pid=7)
    layout.write(claim_path(layout, run), claim.to_json())
    layout.write(beat_path(layout, run), b"7")


def test_one_driver_holds_all_slots_and_a_second_is_refused(layout: Layout) -> None:
    with Lease(layout) as first:
        assert len(first.slots) == SLOTS
        with pytest.raises(TryAgainError, match=f"is being written by process {os.getpid()} on"):
            Lease(layout)
        assert claims(layout) == [first.run]
    assert claims(layout) == []


def test_parts_are_disjoint_and_what_nobody_holds_is_free(layout: Layout) -> None:
    with Lease(layout, (3, 10)) as third, Lease(layout, (4, 10)) as fourth:
        assert third.slots == slots_of((3, 10)) and fourth.slots == slots_of((4, 10))
        with Lease(layout) as rest:
            assert rest.slots == set(range(SLOTS)) - third.slots - fourth.slots
            assert third.run < fourth.run < rest.run
        with Lease(layout, (1, 2)) as odd:  # the parts are counted otherwise now
            assert odd.slots == slots_of((1, 2)) - third.slots


def test_every_slot_is_in_one_part_of_any_number() -> None:
    for parts in (1, 3, 10, 16, 1000, SLOTS):
        every = [slot for number in range(parts) for slot in slots_of((number, parts))]
        assert sorted(every) == list(range(SLOTS))


def test_driver_whose_claim_was_taken_over_sees_it(layout: Layout, quick: None) -> None:
    with Lease(layout) as sleeper:
        sleeper._stop.set()  # it does not renew any more, as a process that was stopped
        sleeper._thread.join()
        time.sleep(2.2)  # a store may know the time to the second only
        with Lease(layout) as second:
            assert len(second.slots) == SLOTS and second.run == sleeper.run + 1
            with pytest.raises(LeaseLostError, match="was taken over by another driver"):
                assert_held(layout, sleeper.run)
            assert is_held(layout, second.run)
    assert claims(layout) == []


def test_driver_that_renews_is_not_taken_over(layout: Layout, quick: None) -> None:
    with Lease(layout) as first:
        time.sleep(1.5)
        with pytest.raises(TryAgainError):
            Lease(layout)
        first.assert_held()


def test_dead_process_of_this_machine_is_taken_over_at_once(layout: Layout) -> None:
    with Lease(layout, (0, 2)) as first:
        path = claim_path(layout, first.run)
        claim = LeaseRecord.from_json(layout.fs.cat_file(path), path)
    dead = claim.model_copy(update={"run": 8, "pid": 2**22 + 1})
    layout.write(claim_path(layout, 8), dead.to_json())
    layout.write(beat_path(layout, 8), b"")
    with Lease(layout) as second:
        assert second.run == 9 and len(second.slots) == SLOTS


def test_lease_dated_a_day_ahead_is_over_once_it_is_not_renewed(
    tmp_path: Path, quick: None
) -> None:
    layout = Layout(str(tmp_path / "out"))
    claim_of_another(layout, 0)
    tomorrow = time.time() + 86_400
    os.utime(beat_path(layout, 0), (tomorrow, tomorrow))
    began = time.monotonic()
    with Lease(layout) as lease:
        assert lease.run == 1 and len(lease.slots) == SLOTS
    assert time.monotonic() - began < 10


def test_clock_of_the_driver_does_not_count(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 7200)
    claim_of_another(layout, 4)
    monkeypatch.setattr(time, "time", lambda: now() + 7200)
    if isinstance(layout.fs, MemoryFileSystem):
        pytest.skip("its clock is this process's")
    with pytest.raises(TryAgainError, match="process 7 on elsewhere"):
        Lease(layout)


def test_number_is_higher_than_any_that_was_used(layout: Layout) -> None:
    with Lease(layout, least=5) as first:
        assert first.run == 5
    claim_of_another(layout, 7, (0, 2))
    with Lease(layout, (1, 2), least=6) as second:
        assert second.run == 8


def test_number_below_one_that_was_claimed_meanwhile_is_given_up(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who claimed the higher number looked before this claim was there, and holds the slots."""
    create = Layout.create

    def after_another(self: Layout, path: str, data: bytes) -> bool:
        if not claims(self):
            claim_of_another(self, 5)
        return create(self, path, data)

    monkeypatch.setattr(Layout, "create", after_another)
    with pytest.raises(TryAgainError, match="process 7 on elsewhere"):
        Lease(layout, least=3)
    assert claims(layout) == [5]


def test_store_that_does_not_heed_conditions_is_said_to_need_one_driver(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fsspec.register_implementation("careless", Careless, clobber=True)
    layout = Layout(f"careless://{uuid.uuid4().hex}/out")
    with pytest.raises(UserError, match="run without --part, one driver at a time"):
        Lease(layout, (0, 2))
    assert claims(layout) == []
    with caplog.at_level("WARNING"), Lease(layout) as lease:
        assert len(lease.slots) == SLOTS
    assert "keep to one driver at a time" in caplog.text


def test_what_fails_since_the_output_was_removed_is_told_as_that(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "out"))
    with pytest.raises(LeaseLostError, match="another driver, or removed"), Lease(layout):
        shutil.rmtree(tmp_path / "out")
        raise UserError("no such folder")
    with pytest.raises(UserError, match="no such folder"), Lease(layout):
        raise UserError("no such folder")
