"""Column chunks of Parquet files, put together to a file without decoding them.

A column of a row group is a run of bytes that nothing else in the file points into but the footer:
it can stand in another file, if the footer there says where. The footer is a struct in Thrift's
compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md);
its fields are those of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from moderay.core.thrift_compact import I64, Struct, parse_struct, struct_bytes

MAGIC = b"PAR1"
# Bytes that are copied at once.
_PIECE = 4 * 2**20

# Fields of the structs, by number.
_SCHEMA, _ROWS, _GROUPS, _NOTES = 2, 3, 4, 5
_COLUMNS, _GROUP_BYTES, _GROUP_ROWS, _SORTED, _GROUP_OFFSET, _GROUP_COMPRESSED = 1, 2, 3, 4, 5, 6
_CHUNK_FILE, _CHUNK_OFFSET, _CHUNK_META = 1, 2, 3
_PATH, _UNCOMPRESSED, _COMPRESSED, _DATA, _INDEX, _DICTIONARY = 3, 6, 7, 9, 10, 11
# Of a chunk: where its page indexes lie, which are not copied; and its keys, where it is encrypted.
_PAGE_INDEXES, _CRYPTO = (4, 5, 6, 7), (8, 9)
_BLOOM = (14, 15)


class NotSplicedError(ValueError):
    """These files' chunks cannot stand in one file."""


@dataclass(frozen=True)
class Chunks:
    """A Parquet file as its footer describes it.

    Attributes:
        file: Opened to read.
        footer: Its `FileMetaData`.
    """

    file: IO[bytes]
    footer: Struct

    @classmethod
    def of(cls, file: IO[bytes]) -> Chunks:
        """Read a file's footer.

        Raises:
            NotSplicedError: It has none that is understood.
        """
        file.seek(-8, 2)
        tail = file.read(8)
        if tail[4:] != MAGIC:
            raise NotSplicedError("no Parquet file, or an encrypted one")
        size = int.from_bytes(tail[:4], "little")
        file.seek(-8 - size, 2)
        try:
            return cls(file, parse_struct(file.read(size)))
        except (IndexError, ValueError) as error:
            raise NotSplicedError(f"its footer cannot be read: {error}") from error

    @property
    def schema(self) -> Any:
        """Its columns, as a footer has them."""
        return self.footer[_SCHEMA][1]

    @property
    def groups(self) -> list[Struct]:
        """Its row groups."""
        groups: list[Struct] = self.footer[_GROUPS][1][1]
        return groups

    def assert_fits(self, like: Chunks) -> None:
        """Assert that its chunks can stand in a file with the columns of another one.

        Raises:
            NotSplicedError: They cannot.
        """
        if self.schema != like.schema:
            raise NotSplicedError("its columns are others")
        for group in self.groups:
            if _SORTED in group:
                raise NotSplicedError("its rows are sorted by a column")
            for chunk in group[_COLUMNS][1][1]:
                if any(field in chunk for field in (_CHUNK_FILE, *_CRYPTO)):
                    raise NotSplicedError("a column in another file, or an encrypted one")


class Splice:
    """A Parquet file in the making, of other files' chunks."""

    def __init__(self, out: IO[bytes], like: Chunks) -> None:
        """Begin it.

        Args:
            out: Opened to write, and empty.
            like: A file, with or without rows, whose columns and notes it has.
        """
        self._out, self._like = out, like
        self._groups: list[Struct] = []
        self._rows = 0
        self._out.write(MAGIC)
        self._at = len(MAGIC)

    def add(self, source: Chunks, number: int, patch: Chunks | None = None) -> None:
        """Add a row group.

        Args:
            source: A file that fits.
            number: Of its row group.
            patch: A file of one row group with as many rows, whose columns take the place of those
                of the same names.

        Raises:
            NotSplicedError: They do not fit.
        """
        group = source.groups[number]
        rows = group[_GROUP_ROWS][1]
        replaced: dict[tuple[bytes, ...], tuple[Chunks, Struct]] = {}
        if patch is not None:
            [other] = patch.groups
            if other[_GROUP_ROWS][1] != rows:
                raise NotSplicedError("the rows to replace are not as many")
            replaced = {_path(chunk): (patch, chunk) for chunk in other[_COLUMNS][1][1]}
        begin, kind = self._at, group[_COLUMNS][1][0]
        chunks = []
        for chunk in group[_COLUMNS][1][1]:
            file, taken = replaced.pop(_path(chunk), (source, chunk))
            chunks.append(self._copied(file, taken))
        if replaced:
            raise NotSplicedError(f"no column {b'.'.join(next(iter(replaced))).decode()}")
        metas = [chunk[_CHUNK_META][1] for chunk in chunks]
        sizes = {
            _GROUP_BYTES: sum(meta[_UNCOMPRESSED][1] for meta in metas),
            _GROUP_COMPRESSED: sum(meta[_COMPRESSED][1] for meta in metas),
            _GROUP_OFFSET: begin,
        }
        made = {**group, _COLUMNS: (group[_COLUMNS][0], (kind, chunks))}
        made |= {field: (I64, size) for field, size in sizes.items() if field in group}
        self._groups.append(made)
        self._rows += rows

    def close(self) -> None:
        """Write the footer."""
        kind = self._like.footer[_GROUPS][0], self._like.footer[_GROUPS][1][0]
        footer = {
            **self._like.footer,
            _ROWS: (I64, self._rows),
            _GROUPS: (kind[0], (kind[1], self._groups)),
        }
        data = struct_bytes(footer)
        self._out.write(data + len(data).to_bytes(4, "little") + MAGIC)

    def _copied(self, source: Chunks, chunk: Struct) -> Struct:
        """A chunk's bytes copied, and what the footer says of it here."""
        meta: Struct = chunk[_CHUNK_META][1]
        starts = [meta[field][1] for field in (_DATA, _DICTIONARY) if field in meta]
        start, size = min(starts), meta[_COMPRESSED][1]
        self._copy(source.file, start, size)
        shift = self._at - start
        moved = {
            field: (kind, value + shift if field in {_DATA, _INDEX, _DICTIONARY} else value)
            for field, (kind, value) in meta.items()
            if field not in _BLOOM
        }
        self._at += size
        offset = chunk[_CHUNK_OFFSET]
        return {field: value for field, value in chunk.items() if field not in _PAGE_INDEXES} | {
            _CHUNK_OFFSET: (offset[0], offset[1] + shift if offset[1] else 0),
            _CHUNK_META: (chunk[_CHUNK_META][0], moved),
        }

    def _copy(self, file: IO[bytes], start: int, size: int) -> None:
        file.seek(start)
        while size > 0:
            piece = file.read(min(size, _PIECE))
            if not piece:
                raise NotSplicedError("it ends before its footer says")
            self._out.write(piece)
            size -= len(piece)


def _path(chunk: Struct) -> tuple[bytes, ...]:
    """Names of a column, from the root down."""
    parts: Sequence[bytes] = chunk[_CHUNK_META][1][_PATH][1][1]
    return tuple(parts)
