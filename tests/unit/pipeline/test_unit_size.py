"""`unit.rows: auto`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderay.config.job import UnitSize
from moderay.labels.manifest_record import Manifest, RunRecord
from moderay.pipeline.control.unit_size import FEWEST, MOST, UNIT_S, chosen, rows_for

AUTO = UnitSize(rows="auto", bytes=1000)


def manifest(*runs: tuple[int, int]) -> Manifest:
    """Of runs: rows that each judged, and milliseconds that its engines were at work."""
    records = [
        RunRecord(run=number, status="finished", judged=rows, usage={"engine_working_ms": ms})
        for number, (rows, ms) in enumerate(runs, start=1)
    ]
    return Manifest.model_construct(runs=tuple(records))


def test_a_size_in_rows_is_kept_without_a_word() -> None:
    size = UnitSize(rows=100)
    assert chosen(size, [manifest((10_000, 10_000))]) == (size, "")


def test_without_an_earlier_run_that_tells_units_are_as_large_as_by_default() -> None:
    for earlier in [], [manifest()], [manifest((10_000, 999), (199, 60_000), (0, 0))]:
        size, why = chosen(AUTO, earlier)
        assert size == UnitSize(bytes=1000) and size.rows == 512
        assert why.startswith("units of 512 rows: no earlier run shows how long")


def test_the_last_run_that_tells_counts_and_this_output_before_those_that_are_reused() -> None:
    own, reused = manifest((1000, 8000), (4000, 29_200), (0, 0)), manifest((1000, 500_000))
    size, why = chosen(AUTO, [own, reused])
    assert size == UnitSize(rows=4096, bytes=1000)
    assert why == (
        "units of 4,096 rows: an engine took 7.3 ms a row in run 2, and a unit is to take it about "
        "30 s (unit.rows: auto, 64 to 16,384)"
    )
    assert chosen(AUTO, [manifest(), reused])[0].rows == FEWEST


@given(st.floats(1e-7, 1e4))
def test_a_unit_takes_between_half_of_the_time_and_all_of_it_unless_it_is_at_a_bound(
    seconds: float,
) -> None:
    rows = rows_for(seconds)
    assert FEWEST <= rows <= MOST
    if FEWEST < rows < MOST:
        assert UNIT_S / 2 - seconds < rows * seconds <= UNIT_S


@pytest.mark.parametrize("rows", [0, "many", 1.5])
def test_nothing_else_is_a_size(rows: object) -> None:
    with pytest.raises(ValueError, match="rows"):
        UnitSize.model_validate({"rows": rows})
