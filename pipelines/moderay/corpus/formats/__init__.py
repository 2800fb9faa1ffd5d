"""Which format a file is of, by its name: the one place that decides.

A further format is a file beside this one, with what `base.Format` asks for, and its entry in
`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from moderay.corpus.formats.base import (
    BATCH_ROWS,
    UNREADABLE,
    Footer,
    Format,
    Part,
    UnreadableError,
    Verbatim,
    bytes_of,
    joined,
    kind_column,
)
from moderay.corpus.formats.delimited import Delimited
from moderay.corpus.formats.ipc import ArrowIpc
from moderay.corpus.formats.json_types import NoType
from moderay.corpus.formats.jsonlines import JsonLines
from moderay.corpus.formats.parquet import Parquet
from moderay.corpus.formats.parquet_file import BoundedFile, bounded_batches
from moderay.corpus.formats.text import TextLines
from moderay.corpus.formats.text_file import TextFile
from moderay.corpus.names import storable

__all__ = [
    "BATCH_ROWS",
    "FORMATS",
    "UNREADABLE",
    "BoundedFile",
    "Footer",
    "Format",
    "NoType",
    "Parquet",
    "Part",
    "UnreadableError",
    "Verbatim",
    "bounded_batches",
    "bytes_of",
    "common",
    "format_of",
    "input_file",
    "is_input",
    "is_text",
    "joined",
    "kind_column",
    "label_file",
    "suffix",
]

FORMATS: tuple[Format, ...] = (
    Parquet(),
    ArrowIpc(),
    JsonLines(),
    JsonLines("gzip", ".gz"),
    JsonLines("zstd", ".zst"),
    Delimited(),
    Delimited("gzip", ".gz"),
    Delimited("zstd", ".zst"),
    TextLines(),
    TextLines("gzip", ".gz"),
    TextLines("zstd", ".zst"),
)
# The same names, where a job says that each file is one row.
_WHOLE_FILES = (TextFile(), TextFile("gzip", ".gz"), TextFile("zstd", ".zst"))

_BY_SUFFIX = {end: format_ for format_ in FORMATS for end in format_.suffixes}
_WHOLE_BY_SUFFIX = {end: format_ for format_ in _WHOLE_FILES for end in format_.suffixes}


def format_of(name: str, whole: bool = False) -> Format:
    """The format of a file, by the end of its name or URL.

    One that tells nothing, such as Spark's part-00000, is taken for Parquet.

    Args:
        name: Its name.
        whole: Whether a file of text is one row, and not a row a line.
    """
    end = suffix(name) or ".parquet"
    return (whole and _WHOLE_BY_SUFFIX.get(end)) or _BY_SUFFIX[end]


def suffix(name: str) -> str:
    """The end of a file's name that tells its format, in lower case; nothing where none does.

    Of a URL of the web, which may have a query, it is that of the path.
    """
    path = name.lower()
    if path.startswith(("http://", "https://")):
        path = path.partition("?")[0]
    return next((known for known in _BY_SUFFIX if path.endswith(known)), "")


def is_text(name: str) -> bool:
    """Whether a file is one of plain text."""
    return suffix(name) in _WHOLE_BY_SUFFIX


def is_input(name: str, text: bool = False) -> bool:
    """Whether a file of a folder is input.

    Args:
        name: Its name.
        text: Whether one of plain text is: beside data lie licences and notes.
    """
    return bool(suffix(name)) and (text or not is_text(name))


def label_file(name: str) -> str:
    """The label file of an input file: label files are Parquet, whatever the input is.

    Both have the same path below their roots, but for names that not every store can hold
    (`names.storable`).
    """
    end = suffix(name)
    label = name if end in ("", ".parquet") else f"{name[: -len(end)]}.parquet"
    return "/".join(map(storable, label.split("/")))


def input_file(label: str, url: str) -> str:
    """The path of the input file at `url` below its root, from its label file's below the output's.

    The two have the same folder, and names that differ in their ends alone.
    """
    end = suffix(url)
    if end in ("", ".parquet"):
        return label
    # As it is written there, in capitals or not.
    at = url.lower().rindex(end)
    return label.removesuffix(".parquet") + url[at : at + len(end)]


def common(files: Sequence[tuple[str, pa.Schema]]) -> list[pa.Schema]:
    """The schemas that files are to be read with.

    Files of one kind agree among themselves where that kind has no schema of its own.

    Args:
        files: URL and schema of each, as it is by itself.
    """
    kinds = [type(format_of(url)) for url, _ in files]
    schemas: dict[int, pa.Schema] = {}
    for kind in dict.fromkeys(kinds):
        of_kind = [i for i, other in enumerate(kinds) if other is kind]
        schemas |= zip(of_kind, kind.common([files[i][1] for i in of_kind]), strict=True)
    return [schemas[i] for i in range(len(files))]
