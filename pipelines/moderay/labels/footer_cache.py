"""What files without a footer hold, kept in the output.

A job that is finished, or goes on, need not read them again to count their rows.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pyarrow as pa

from moderay.core.records import RecordRefusedError
from moderay.core.storage import read
from moderay.corpus.formats import Footer
from moderay.corpus.shard import Footers
from moderay.labels.layout import Layout
from moderay.labels.records import CachedFooter, FooterCache


def read_footers(layout: Layout, content: Sequence[str]) -> Footers:
    """Those that were kept for these content columns; none from a cache that cannot be read."""
    data = read(layout.fs, _path(layout))
    if data is None:
        return {}
    try:
        cache = FooterCache.from_json(data, _path(layout))
    except RecordRefusedError:  # the files are read again, and the cache is written anew
        return {}
    if cache.content != tuple(content):
        return {}
    schemas = [pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) for text in cache.schemas]
    return {
        file.identity: Footer(schemas[file.schema_number], file.row_groups, file.content_bytes)
        for file in cache.files
    }


def keep_footers(layout: Layout, content: Sequence[str], footers: Footers) -> None:
    """Write them, where they are not there yet."""
    if not footers or footers == read_footers(layout, content):
        return
    schemas = {
        schema: number
        for number, schema in enumerate(dict.fromkeys(footer.schema for footer in footers.values()))
    }
    cache = FooterCache(
        content=tuple(content),
        schemas=tuple(
            base64.b64encode(schema.serialize().to_pybytes()).decode() for schema in schemas
        ),
        files=tuple(
            CachedFooter(
                identity=identity,
                schema_number=schemas[footer.schema],
                row_groups=footer.row_groups,
                content_bytes=footer.content_bytes,
            )
            for identity, footer in footers.items()
        ),
    )
    layout.write(_path(layout), cache.to_json())


def _path(layout: Layout) -> str:
    return layout.private("footers.json")
