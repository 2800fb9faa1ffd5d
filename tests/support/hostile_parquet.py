"""Parquet files that say what is not so: claims in a footer, and one text in all rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def varint(number: int) -> bytes:
    """As Thrift's compact protocol writes an integer."""
    number = number << 1 if number >= 0 else (-number << 1) - 1
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def claiming(file: Path, rows: int, claim: int, values: bool = True) -> None:
    """A file of so many rows of text whose footer claims other numbers of them.

    Args:
        file: To be written.
        rows: What it holds; like no other number in its footer.
        claim: What it claims.
        values: Whether it claims as many values of its column as well.
    """
    _write(file, [f"row {i}" for i in range(rows)], rows)
    # Of the column's values, of the file and of the row group, in the order in which they stand.
    _replace(file, varint(rows), [varint(n) for n in (claim, claim if values else rows, claim)])


def shifted(file: Path, rows: tuple[int, int], claims: tuple[int, int]) -> None:
    """Two row groups of so many rows, whose footer draws the line between them elsewhere."""
    assert sum(rows) == sum(claims)
    _write(file, [f"row {i}" for i in range(sum(rows))], rows[0])
    for count, claim in zip(rows, claims, strict=True):
        _replace(file, varint(count), [varint(claim)] * 2)


def levels_that_do_not_fit(file: Path) -> None:
    """A column that its footer calls required, with a histogram of which rows are null.

    pyarrow 26 ends the process that looks at the column chunk.
    """
    pq.write_table(pa.table({"text": [None, "a"] * 50}), file, store_schema=False)
    data = file.read_bytes()
    assert data.count(b"%\x02\x18\x04text") == 1  # repetition, then the name
    file.write_bytes(data.replace(b"%\x02\x18\x04text", b"%\x00\x18\x04text"))


def one_text_in_all_rows(file: Path, size: int, rows: int, before: int = 0) -> None:
    """A small file in which all rows are one text of so many bytes, from a dictionary.

    Args:
        file: To be written.
        size: Bytes of the text.
        rows: How many rows hold it.
        before: Rows of one byte each before those.
    """
    indices = pa.array([0] * before + [1] * rows, pa.int32())
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "x" * size]))
    pq.write_table(
        pa.table({"text": texts}),
        file,
        compression="zstd",
        store_schema=False,
        dictionary_pagesize_limit=2**30,
    )


def _write(file: Path, texts: list[str], group: int) -> None:
    pq.write_table(
        # Without nulls, so that no histogram of them has the number as well.
        pa.table([texts], schema=pa.schema([pa.field("text", pa.string(), nullable=False)])),
        file,
        row_group_size=group,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )


def _replace(file: Path, old: bytes, new: list[bytes]) -> None:
    """Put these in the place of each `old` in a file's footer."""
    data = file.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    first, *rest = data[-8 - size : -8].split(old)
    assert len(rest) == len(new), "the number stands in the footer for something else too"
    footer = first + b"".join(a + b for a, b in zip(new, rest, strict=True))
    file.write_bytes(data[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
