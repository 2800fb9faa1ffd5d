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
    pq.write_table(
        pa.table({"text": [f"row {i}" for i in range(rows)]}),
        file,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )
    data = file.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    # num_values of the column, then num_rows of the row group and, before both, of the file.
    pieces = footer.split(varint(rows))
    assert len(pieces) == 4, "the footer holds the number elsewhere too"
    told = [varint(claim), varint(claim) if values else varint(rows), varint(claim)]
    footer = pieces[0] + b"".join(a + b for a, b in zip(told, pieces[1:], strict=True))
    file.write_bytes(data[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


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
    table = pa.table({"text": texts.cast(pa.string()) if not rows else texts})
    schema = pa.schema([("text", pa.dictionary(pa.int32(), pa.string()))])
    with pq.ParquetWriter(
        file, schema, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**30
    ) as writer:
        writer.write_table(table)
