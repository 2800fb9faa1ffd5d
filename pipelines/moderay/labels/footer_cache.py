"""What files without a footer hold, kept in the output: a job that is finished, or goes on, need
not read them again to count their rows.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pyarrow as pa

from moderay.core.storage import read
from moderay.corpus.formats import Footer
from moderay.corpus.shard import Footers
from moderay.labels.layout import Layout

# Raise it when what is counted, or how row groups are cut, changes.
FORMAT = 1


def read_footers(layout: Layout, content: Sequence[str]) -> Footers:
    """Those that were kept for these content columns."""
    data = read(layout.fs, _place(layout))
    kept = {} if data is None else json.loads(data)
    if kept.get("of") != [FORMAT, *content]:
        return {}
    schemas = [pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) for text in kept["schemas"]]
    return {
        tuple(identity): Footer(schemas[schema], tuple(groups), size)
        for identity, schema, groups, size in kept["files"]
    }


def keep_footers(layout: Layout, content: Sequence[str], footers: Footers) -> None:
    """Write them, where they are not there yet."""
    if not footers or footers == read_footers(layout, content):
        return
    schemas = {
        schema: number
        for number, schema in enumerate(dict.fromkeys(footer.schema for footer in footers.values()))
    }
    kept = {
        "of": [FORMAT, *content],
        "schemas": [
            base64.b64encode(schema.serialize().to_pybytes()).decode() for schema in schemas
        ],
        "files": [
            [identity, schemas[footer.schema], footer.row_groups, footer.content_bytes]
            for identity, footer in footers.items()
        ],
    }
    layout.write(_place(layout), json.dumps(kept).encode())


def _place(layout: Layout) -> str:
    return layout.private("footers.json")
