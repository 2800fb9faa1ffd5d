import polars as pl
import pyarrow as pa
import pytest

from moderay.core.sql.probe import probe

TYPES = [
    pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(5, 2),
    pa.decimal256(40, 2), pa.string(), pa.large_string(), pa.string_view(), pa.binary(),
    pa.large_binary(), pa.binary(3), pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns"),
    pa.timestamp("us"), pa.timestamp("ns", "Europe/Berlin"), pa.duration("ms"),
    pa.list_(pa.int8()), pa.large_list(pa.string()), pa.list_(pa.int8(), 2),
    pa.struct([("a", pa.struct([("b", pa.string())]))]), pa.map_(pa.string(), pa.int8()),
    pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.struct([("role", pa.string())])),
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_probe_has_a_null_and_a_value_of_every_type(kind: pa.DataType) -> None:
    table = probe(pa.schema([pa.field("a", kind, nullable=False)]))
    assert table.schema.field("a").type == kind
    assert table.column("a").is_null().to_pylist() == [True, False]


def test_probe_of_types_without_values_is_nulls() -> None:
    table = probe(pa.schema([("a", pa.null()), ("b", pa.month_day_nano_interval())]))
    assert len(table) == 2 and table.column("a").null_count == 2
    assert isinstance(pl.from_arrow(table.select(["a"])), pl.DataFrame)
