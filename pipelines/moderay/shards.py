"""Sources -> shards: files found, footers read once, columns checked; what the run needs to know of each file."""

from __future__ import annotations

import os.path
import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.content import template_columns
from moderay.errors import Problem, nearest
from moderay.job import Job
from moderay.records import CONTENT_HASH, FLAGGED, ROW
from moderay.storage import filesystem, find, is_local, plain_errors, version

# Footers read at once: enough to hide a store's latency, few enough not to be throttled.
PARALLEL = 16


@dataclass(frozen=True)
class Shard:
    """One input file. `name`: its path below the source's root, and that of its label file. `row_groups`: rows of each.
    `content_bytes`: uncompressed bytes of the columns that judging reads. `partitions`: hive keys in the path."""

    url: str
    name: str
    size: int
    version: str
    row_groups: tuple[int, ...] = ()
    content_bytes: int = 0
    conversation: bool = False
    partitions: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> int:
        return sum(self.row_groups)

    @property
    def identity(self) -> list[object]:
        """What a key hashes: another file of the same name is another shard."""
        return [self.name, self.size, self.version]


@dataclass(frozen=True)
class Scan:
    """What the input holds. `columns`: the carried fields, in order. `unreadable`: (name, reason). `problems`: what `check` reports."""

    shards: tuple[Shard, ...]
    columns: pa.Schema
    unreadable: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)


def scan(job: Job, policy_ids: Sequence[str]) -> Scan:
    """Find the shards and check their columns. Raises `UserError` or `TryAgain` where the storage cannot be asked."""
    files, problems = _files(job)
    with ThreadPoolExecutor(PARALLEL) as pool:
        read = list(pool.map(lambda shard: _footer(job, shard), files))
    good = [(shard, schema) for shard, schema, error in read if error is None and schema is not None]
    unreadable = tuple((shard.name, error) for shard, _, error in read if error is not None)
    carried = pa.schema([])
    if good:
        carried, wrong = _check_columns(job, good, policy_ids)
        problems += wrong
        if not sum(shard.rows for shard, _ in good):
            problems.append(job.problem("input.path", "the input has no rows"))
    elif files:
        problems.append(job.problem("input.path", f"none of {len(files)} files can be read as Parquet; the first: {unreadable[0][1]}"))
    return Scan(tuple(shard for shard, _ in good), carried, unreadable, tuple(problems))


def read_columns(job: Job) -> list[str]:
    """The columns that judging reads: the content's, and those of `where`."""
    return list(dict.fromkeys([*template_columns(job.input.content), *where_columns(job.input.where)]))


def where_columns(where: str | None) -> list[str]:
    """The columns an expression names. Raises a Polars error where it is none."""
    return pl.sql_expr(where).meta.root_names() if where else []


def _files(job: Job) -> tuple[list[Shard], list[Problem]]:
    found: dict[str, Shard] = {}
    problems: list[Problem] = []
    for source in job.input.paths:
        listed = _list(source, job)
        if not listed:
            problems.append(job.problem("input.path", f"no Parquet files at {source}", "a file, a folder, or a glob such as data/*.parquet"))
        for shard in listed:
            if shard.name in found and found[shard.name].url != shard.url:
                problems.append(job.problem("input.path", f"{shard.url} and {found[shard.name].url} would share the label file {shard.name}"))
            found[shard.name] = shard
        if _inside(job.output.path, source):
            problems.append(job.problem("output.path", f"the output {job.output.path} lies inside the input {source}", "write it elsewhere"))
    return sorted(found.values(), key=lambda shard: shard.name), problems


def _list(source: str, job: Job) -> list[Shard]:
    fs, path = filesystem(source, job.storage)
    with plain_errors(source):
        fs.invalidate_cache()
        if any(char in path for char in "*?["):
            root = _glob_root(path)
            found = fs.glob(path, detail=True)
        elif fs.isfile(path):
            root, found = fs._parent(path), {path: fs.info(path)}
        else:
            root = path
            found = {name: info for name, info in find(fs, path).items() if name.endswith(".parquet")}
    shards = []
    for file, info in found.items():
        name = posixpath.relpath(file, root)
        if info.get("type") == "file" and not any(part.startswith(("_", ".")) for part in name.split("/")):
            url = file if is_local(fs) else fs.unstrip_protocol(file)
            partitions = tuple((key, value) for key, eq, value in (part.partition("=") for part in name.split("/")[:-1]) if eq)
            shards.append(Shard(url, name, int(info["size"]), version(info), partitions=partitions))
    return shards


def _glob_root(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if any(char in part for char in "*?["))]) or "/"


def _inside(output: str, source: str) -> bool:
    base = source if not any(char in source for char in "*?[") else _glob_root(source)
    base = base.removesuffix(".parquet") if base.endswith(".parquet") else base
    if "://" not in output and "://" not in base:
        output, base = os.path.realpath(output), os.path.realpath(base)
        if os.path.isfile(base + ".parquet"):
            return False
    return (output.rstrip("/") + "/").startswith(base.rstrip("/") + "/")


def _footer(job: Job, shard: Shard) -> tuple[Shard, pa.Schema | None, str | None]:
    """The shard with its rows, its schema; or why it is no Parquet file."""
    fs, path = filesystem(shard.url, job.storage)
    try:
        with fs.open(path, "rb", cache_type="readahead", block_size=2**16) as file:
            metadata = pq.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        return shard, None, str(error).splitlines()[0]
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    wanted = set(template_columns(job.input.content))
    size = sum(
        group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns) if group.column(i).path_in_schema.split(".")[0] in wanted
    )
    content = schema.field(job.input.content).type if job.input.content in schema.names else None
    return (
        Shard(shard.url, shard.name, shard.size, shard.version, tuple(group.num_rows for group in groups), size, _is_conversation(content), shard.partitions),
        schema,
        None,
    )


def _check_columns(job: Job, good: Sequence[tuple[Shard, pa.Schema]], policy_ids: Sequence[str]) -> tuple[pa.Schema, list[Problem]]:
    reference = good[0][1]
    names = reference.names if job.output.columns == "all" else list(job.output.columns)
    problems = list(_content_problems(job, good))
    for name in [name for name in names if name not in reference.names]:
        problems.append(job.problem("output.columns", f"output.columns: {good[0][0].name} has no column {name!r}", nearest(name, reference.names)))
    for name in [name for name in names if name in {ROW.name, CONTENT_HASH.name, FLAGGED.name, *policy_ids}]:
        problems.append(job.problem("input.path", f"the input's column {name!r} has the name of an output column", "leave it out with output.columns"))
    carried = pa.schema([reference.field(name).remove_metadata() for name in names if name in reference.names])
    for shard, schema in good[1:]:
        for wanted in carried:
            if wanted.name not in schema.names:
                problems.append(job.problem("input.path", f"{shard.name} has no column {wanted.name!r}, which {good[0][0].name} has", _SCHEMA))
            elif schema.field(wanted.name).type != wanted.type:
                found = schema.field(wanted.name).type
                problems.append(job.problem("input.path", f"{shard.name}: column {wanted.name!r} is {found}, but {wanted.type} in {good[0][0].name}", _SCHEMA))
    return carried, list(dict.fromkeys([*problems, *_where_problems(job, good[0])]))


_SCHEMA = "one output has one schema: leave the column out with output.columns, or label the files in two jobs"


def _content_problems(job: Job, good: Sequence[tuple[Shard, pa.Schema]]) -> Iterable[Problem]:
    """A problem for each kind of mistake, however many shards make it."""
    found: dict[tuple[str, str], list[str]] = {}
    for shard, schema in good:
        for mistake in _content_mistakes(job, shard, schema):
            found.setdefault(mistake, []).append(shard.name)
    for (message, hint), names in found.items():
        more = f" (and {len(names) - 1:,} more files)" if len(names) > 1 else ""
        yield job.problem("input.content", f"{names[0]}{more} {message}", hint)


def _content_mistakes(job: Job, shard: Shard, schema: pa.Schema) -> Iterable[tuple[str, str]]:
    available = {*schema.names, *dict(shard.partitions)}
    names = template_columns(job.input.content)
    for name in names:
        if name not in available:
            yield f"has no column {name!r}", nearest(name, available)
        elif name in schema.names and not (_is_text(kind := schema.field(name).type) or (names == [job.input.content] and _is_conversation(kind))):
            yield f"has a column {name!r} of type {kind}", "content is text, bytes, or list<struct<role: string, content: string>>"


def _where_problems(job: Job, first: tuple[Shard, pa.Schema]) -> Iterable[Problem]:
    """The expression is tried on an empty table of the first shard's columns."""
    if not job.input.where:
        return
    shard, schema = first
    try:
        frame: Any = pl.from_arrow(schema.empty_table())
        frame = frame.with_columns(pl.lit("").alias(key) for key, _ in shard.partitions)
        kind = frame.select(pl.sql_expr(job.input.where).alias("where")).schema["where"]
        if kind != pl.Boolean:
            yield job.problem("input.where", f"where gives {kind}, not true or false")
    except pl.exceptions.PolarsError as error:
        yield job.problem("input.where", f"where: {str(error).splitlines()[0]}", f"columns: {', '.join(schema.names)}")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _is_conversation(kind: pa.DataType | None) -> bool:
    if kind is None or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    turn = kind.value_type
    return pa.types.is_struct(turn) and all(turn.get_field_index(name) >= 0 and _is_text(turn.field(name).type) for name in ("role", "content"))
