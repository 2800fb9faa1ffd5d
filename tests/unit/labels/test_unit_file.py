"""A unit that is not whole, or lies under another range's name, is no unit."""

from pathlib import Path

import pyarrow as pa
import pytest

from moderay.core.verdicts import Status, Verdict, unit_schema, verdict_array
from moderay.labels.layout import Layout
from moderay.labels.unit_file import BrokenUnitError, parse_unit, unit_bytes, whole_units


def unit(first: int, count: int) -> pa.Table:
    return pa.Table.from_arrays(
        [
            pa.array(range(first, first + count), pa.int64()),
            pa.array([f"{row:032x}" for row in range(count)]),
            verdict_array([Verdict(Status.EMPTY)] * count, 0),
        ],
        schema=unit_schema(["spam"]),
    )


def test_unit_is_what_was_saved() -> None:
    table = unit(10, 5)
    assert parse_unit(unit_bytes(table, (10, 20)), (10, 20)).equals(table)
    assert parse_unit(unit_bytes(table.slice(0, 0), (10, 20)), (10, 20)).num_rows == 0


def test_unit_that_is_cut_or_of_other_rows_is_broken(tmp_path: Path) -> None:
    layout, rows = Layout(str(tmp_path)), (10, 20)
    data = unit_bytes(unit(10, 10), rows)
    broken = [data[:end] for end in range(0, len(data), 7)]
    broken += [
        unit_bytes(unit(10, 10), (10, 60)),
        unit_bytes(unit(30, 10), rows),
        unit_bytes(unit(15, 10), rows),
        bytes(len(data)),
    ]
    for number, content in enumerate(broken):
        with pytest.raises(BrokenUnitError):
            parse_unit(content, rows)
        layout.write(layout.private(f"{number}.arrow"), content)
    layout.write(layout.private("whole.arrow"), data)
    paths = {layout.private(f"{number}.arrow"): rows for number in range(len(broken))}
    whole = layout.private("whole.arrow")
    found = whole_units(layout, {**paths, whole: rows, layout.private("gone"): rows})
    # Rows of another range inside a whole file are seen when it is published.
    assert whole in found and len(found - {whole}) <= 2
