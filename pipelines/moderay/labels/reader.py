"""The labels of an output as one table, for whoever works with them: Polars or Arrow.

Read are the label files of published shards and nothing else: neither moderay's own files, nor
what a run that was cut short left behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from moderay.core.errors import UserError
from moderay.core.storage import is_local, plain_errors, shown
from moderay.core.verdicts import todays_schema
from moderay.labels.layout import Layout, list_state
from moderay.labels.manifest_store import read_manifest

_HIVE_FOLDER = re.compile(r"([^=/]+)=([^/]*)")


def open_labels(url: str, storage: Mapping[str, Any]) -> pyarrow.dataset.Dataset:
    """An output's labels as an Arrow dataset.

    The keys of hive folders, such as `date=2026-11-20/`, become text columns where all label files
    lie in folders of the same keys and have no columns of these names.

    Raises:
        UserError: there are no labels, or not yet.
    """
    layout = Layout(url, storage)
    return _open(layout, published_shards(layout))[0]


def scan_labels(url: str, storage: Mapping[str, Any]) -> pl.LazyFrame:
    """The same as a LazyFrame: what a query does not need is not read."""
    layout = Layout(url, storage)
    shards = published_shards(layout)
    labels, keys = _open(layout, shards)
    if not is_local(layout.fs):
        # Polars' own reader would look for credentials and endpoints elsewhere than fsspec does.
        return pl.scan_pyarrow_dataset(labels)
    folders: dict[tuple[str, ...], list[str]] = {}
    for shard in shards:
        values = tuple(value for _, value in _hive_parts(shard)) if keys else ()
        folders.setdefault(values, []).append(layout.label(shard))
    # Some files may be of the form before this one, without a field in which nothing would stand.
    schema = _polars_schema(layout.label(shards[0]))
    inserted = pl.ScanCastOptions(missing_struct_fields="insert")
    scans = [
        pl.scan_parquet(
            files, glob=False, hive_partitioning=False, schema=schema, cast_options=inserted
        ).with_columns(**{key: pl.lit(value) for key, value in zip(keys, values, strict=True)})
        for values, files in folders.items()
    ]
    return pl.concat(scans)


def _polars_schema(path: str) -> dict[str, pl.DataType]:
    """A label file's columns, with its decisions in today's form."""
    schema = dict(pl.read_parquet_schema(path))
    today = pl.Schema(todays_schema(pa.parquet.read_schema(path)))
    return {
        name: today[name] if isinstance(kind, pl.Struct) and _lacks_field(kind) else kind
        for name, kind in schema.items()
    }


def _lacks_field(kind: pl.Struct) -> bool:
    """Whether these are decisions as they were before people's answers were laid over them."""
    traces = [field.dtype for field in kind.fields if field.name == "trace"]
    return any(
        isinstance(trace, pl.Struct) and "overruled" not in {field.name for field in trace.fields}
        for trace in traces
    )


def _open(layout: Layout, shards: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """The dataset, and which hive keys became columns of it."""
    keys = _hive_keys(shards)
    files = [layout.label(shard) for shard in shards]

    def dataset(**partitioning: Any) -> Any:
        return pyarrow.dataset.dataset(
            files, filesystem=layout.fs, format="parquet", **partitioning
        )

    with plain_errors(layout.url):
        # The first file may be of the form before this one, and others of today's.
        schema = todays_schema(dataset().schema)
        if not keys or set(keys) & set(schema.names):
            return dataset(schema=schema), ()
        fields = [pa.field(key, pa.string()) for key in keys]
        hive = pyarrow.dataset.partitioning(pa.schema(fields), flavor="hive")
        schema = pa.schema([*schema, *fields])
        return dataset(schema=schema, partitioning=hive, partition_base_dir=layout.root), keys


def published_shards(layout: Layout) -> list[str]:
    """Names of the published shards, in order.

    Raises:
        UserError: There are none, or not yet.
    """
    with plain_errors(layout.url):
        state = list_state(layout)
        if shards := sorted(shard for shard in state.markers if state.published(shard)):
            return shards
        if read_manifest(layout) is not None:
            raise UserError(f"{shown(layout.url)}: no shard of it is labelled yet")
    raise UserError(
        f"{shown(layout.url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
    )


def _hive_keys(shards: Sequence[str]) -> tuple[str, ...]:
    """The keys of hive folders, where all shards have the same."""
    variants = {tuple(key for key, _ in _hive_parts(shard)) for shard in shards}
    return variants.pop() if len(variants) == 1 else ()


def hive_values(shard: str) -> dict[str, str]:
    """Values by keys of the hive folders in a shard's name."""
    return dict(_hive_parts(shard))


def _hive_parts(shard: str) -> list[tuple[str, str]]:
    """Keys and values of the hive folders in a shard's name."""
    folders = _HIVE_FOLDER.findall(shard.rpartition("/")[0])
    return [(unquote(key), unquote(value)) for key, value in folders]
