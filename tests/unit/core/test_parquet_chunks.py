"""Chunks of Parquet files in one file: read by Arrow and by Polars as if written at once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderay.core.parquet_chunks import Chunks, NotSplicedError, Splice
from moderay.core.thrift_compact import parse_struct, struct_bytes

INNER = pa.struct([("x", pa.float32()), pa.field("y", pa.list_(pa.string()))])
KIND = pa.struct(
    [("status", pa.string()), ("p", pa.float32()), pa.field("in", INNER, nullable=False)]
)
SCHEMA = pa.schema(
    [("text", pa.string()), ("n", pa.int64()), pa.field("d", KIND, nullable=False)],
    metadata={"moderay.run": "3"},
)


def table(seed: int, rows: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = [f"{seed} word {number}" * 5 for number in rng.integers(0, 2**40, rows)]
    inner = [
        {"x": float(x), "y": None if x < 0.2 else [f"{x}"] * int(3 * x)} for x in rng.random(rows)
    ]
    decided = [
        {"status": "ok" if x < 0.9 else None, "p": float(x) if x < 0.8 else None, "in": each}
        for x, each in zip(rng.random(rows), inner, strict=True)
    ]
    return pa.Table.from_arrays(
        [pa.array(words), pa.array(rng.integers(0, 9, rows)), pa.array(decided, KIND)],
        schema=SCHEMA,
    )


def written(groups: list[pa.Table], schema: pa.Schema, **options: Any) -> io.BytesIO:
    out = io.BytesIO()
    with pq.ParquetWriter(out, schema, compression="zstd", **options) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(1, len(group)))
    return out


def status_and_x(rows: pa.Table) -> pa.Table:
    """Some columns of each, as a file of their own."""
    inner = pa.struct([pa.field("x", pa.float32())])
    kind = pa.struct([("status", pa.string()), pa.field("in", inner, nullable=False)])
    decided = rows.column("d").combine_chunks()
    x = pa.StructArray.from_arrays([decided.field("in").field("x")], fields=list(inner))
    column = pa.StructArray.from_arrays([decided.field("status"), x], fields=list(kind))
    return pa.Table.from_arrays([column], schema=pa.schema([pa.field("d", kind, nullable=False)]))


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"write_page_index": True}])
def test_spliced_file_is_read_as_if_it_had_been_written_at_once(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    sizes = (500, 1, 3_000)
    groups = [table(number, rows) for number, rows in enumerate(sizes)]
    others = [table(100 + number, rows) for number, rows in enumerate(sizes)]
    source = Chunks.of(written(groups, SCHEMA, **options))
    noted = SCHEMA.with_metadata({"moderay.run": "4"})
    path = tmp_path / "spliced.parquet"
    with path.open("wb") as out:
        splice = Splice(out, Chunks.of(written([], noted)))
        for number, other in enumerate(others):
            patch = status_and_x(other)
            is_patched = number != 1
            splice.add(
                source,
                number,
                Chunks.of(written([patch], patch.schema)) if is_patched else None,
            )
        splice.close()
    actual = pq.read_table(path)
    expected = [
        {
            **row,
            "d": {
                **row["d"],
                **(
                    {
                        "status": other["d"]["status"],
                        "in": {**row["d"]["in"], "x": other["d"]["in"]["x"]},
                    }
                    if number != 1
                    else {}
                ),
            },
        }
        for number in range(len(sizes))
        for row, other in zip(groups[number].to_pylist(), others[number].to_pylist(), strict=True)
    ]
    assert actual.to_pylist() == expected
    assert pl.read_parquet(path).to_dicts() == expected
    file = pq.ParquetFile(path)
    assert file.schema_arrow.equals(noted) and file.schema_arrow.metadata == noted.metadata
    assert file.metadata.num_rows == sum(sizes)
    assert [file.metadata.row_group(number).num_rows for number in range(3)] == [*sizes]
    statistics = file.metadata.row_group(2).column(1).statistics
    assert (statistics.min, statistics.max) == (0, 8)
    where = pq.read_table(path, filters=[("n", "=", 3)])
    assert len(where) == sum(row["n"] == 3 for row in expected)


def test_files_that_do_not_fit_are_refused() -> None:
    rows = table(0, 10)
    source = Chunks.of(written([rows], SCHEMA))
    splice = Splice(io.BytesIO(), Chunks.of(written([], SCHEMA)))
    few = status_and_x(rows).slice(0, 9)
    with pytest.raises(NotSplicedError, match="not as many"):
        splice.add(source, 0, Chunks.of(written([few], few.schema)))
    strange = pa.table({"strange": range(10)})
    with pytest.raises(NotSplicedError, match="no column strange"):
        splice.add(source, 0, Chunks.of(written([strange], strange.schema)))
    source.assert_fits(Chunks.of(written([], SCHEMA)))
    with pytest.raises(NotSplicedError, match="columns are others"):
        source.assert_fits(Chunks.of(written([], strange.schema)))
    sort = [pq.SortingColumn(1)]
    with pytest.raises(NotSplicedError, match="sorted"):
        Chunks.of(written([rows], SCHEMA, sorting_columns=sort)).assert_fits(source)
    with pytest.raises(NotSplicedError, match="no Parquet"):
        Chunks.of(io.BytesIO(b"no Parquet file"))
    broken = bytearray(written([rows], SCHEMA).getvalue())
    broken[-100:-8] = b"\xff" * 92
    with pytest.raises(NotSplicedError, match="cannot be read"):
        Chunks.of(io.BytesIO(bytes(broken)))


@given(st.binary(max_size=60))
def test_whatever_is_read_is_written_back(data: bytes) -> None:
    try:
        fields = parse_struct(data)
    except (IndexError, ValueError):
        return
    assert parse_struct(struct_bytes(fields)) == fields


def test_footer_is_written_back_byte_for_byte() -> None:
    file = written([table(0, 300), table(1, 20)], SCHEMA).getvalue()
    size = int.from_bytes(file[-8:-4], "little")
    footer = file[-8 - size : -8]
    assert struct_bytes(parse_struct(footer)) == footer
