"""A saved unit as a file: verdict columns that say which rows they are of, and how many.

A unit that is cut short, or lies under another range's name, is told from a whole one by that; it
counts for nothing, and its rows are judged again.
"""

from __future__ import annotations

import pyarrow as pa

from moderay.core.errors import first_line
from moderay.core.storage import RemoteFile
from moderay.core.verdicts import ROW
from moderay.core.wording import counted
from moderay.corpus.ranges import Range
from moderay.labels.layout import Layout, each_file

_ROWS, _COUNT = b"moderay.rows", b"moderay.count"
_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError)


class BrokenUnitError(ValueError):
    """A file that is no whole unit of the rows that its name says."""


def unit_bytes(judged: pa.Table, rows: Range) -> bytes:
    """A unit's file.

    Args:
        judged: rows of `verdicts.unit_schema`.
        rows: those of the shard that it stands for, the ones that are not selected included.
    """
    note = {_ROWS: _range_text(rows), _COUNT: str(judged.num_rows).encode()}
    schema = judged.schema.with_metadata(note)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_table(judged.replace_schema_metadata(note))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def parse_unit(data: bytes, rows: Range) -> pa.Table:
    """What a unit's file holds.

    Raises:
        BrokenUnitError: it is not whole, or is of other rows.
    """
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        table.validate(full=True)
    except _BROKEN as error:
        raise BrokenUnitError(first_line(error)) from error
    _assert_of(table.schema, rows, table.num_rows)
    positions = table.column(ROW.name).to_numpy()
    if len(positions) and not (rows[0] <= positions.min() and positions.max() < rows[1]):
        raise BrokenUnitError("rows of another range are in it")
    return table.replace_schema_metadata(None)


def _assert_of(schema: pa.Schema, rows: Range, count: int) -> None:
    note = schema.metadata or {}
    if note.get(_ROWS) != _range_text(rows):
        raise BrokenUnitError(f"it holds rows {note.get(_ROWS, b'?').decode(errors='replace')}")
    if note.get(_COUNT) != str(count).encode():
        raise BrokenUnitError(f"{counted(count, 'row')} left in it")


def _range_text(rows: Range) -> bytes:
    return f"{rows[0]}-{rows[1]}".encode()


def whole_units(layout: Layout, paths: dict[str, Range]) -> set[str]:
    """Those of saved units whose end is there and speaks of the rows of their names.

    Not all of a file is read: publishing does that.
    """
    checked = each_file(paths, lambda path: _is_whole(layout, path, paths[path]))
    return {path for path, is_whole in checked if is_whole}


def _is_whole(layout: Layout, path: str, rows: Range) -> bool:
    try:
        schema = pa.ipc.open_file(RemoteFile(layout.fs, path)).schema
        _assert_of(schema, rows, int((schema.metadata or {})[_COUNT]))
    except FileNotFoundError:
        return False
    except (pa.ArrowException, ValueError, KeyError):
        return False
    return True
