"""Sources -> shards: files found, footers read once, columns checked; what the run needs to know of each file."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.columns import check_columns, is_conversation
from moderay.content import template_columns
from moderay.errors import Problem, TryAgain, first_line
from moderay.job import Job
from moderay.judges.rulesfile import check_rules
from moderay.storage import details, filesystem, find, get, is_glob, is_local, patiently, place, plain_errors, version

if TYPE_CHECKING:
    from moderay.cascade import Cascade

# Footers read at once: enough to hide a store's latency, few enough not to be throttled.
PARALLEL = 16
# Footers that a store may fail to give before the store is taken for the trouble, and not the files.
UNREACHABLE = 20
# Bytes of a file's end that are read at first, and the shortest Parquet file there can be.
TAIL, MIN_FILE = 2**16, 12


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


def scan(job: Job, policy_ids: Sequence[str], cascades: Sequence[Cascade]) -> Scan:
    """Find the shards and check their columns, those that rules read included. Raises `UserError` or `TryAgain` where the storage cannot be asked."""
    files, problems = _files(job)
    read = _footers(job, files)
    good = [(shard, schema) for shard, schema, error in read if error is None and schema is not None]
    unreadable = tuple((shard.name, error) for shard, _, error in read if error is not None)
    carried = pa.schema([])
    if good:
        carried, wrong = check_columns(job, good, policy_ids)
        problems += [*wrong, *(problem for cascade in cascades for rules in cascade.rules for problem in check_rules(rules, good))]
        if not sum(shard.rows for shard, _ in good):
            problems.append(job.problem("input.path", "the input has no rows"))
    elif files:
        problems.append(job.problem("input.path", f"none of {len(files)} files can be read as Parquet; the first: {unreadable[0][1]}"))
    return Scan(tuple(shard for shard, _ in good), carried, unreadable, tuple(problems))


def _files(job: Job) -> tuple[list[Shard], list[Problem]]:
    """Every file of every source, by name, without its footer."""
    names: dict[str, Shard] = {}
    urls: dict[str, Shard] = {}
    problems: list[Problem] = []
    for source in job.input.paths:
        listed, root = _list(source, job)
        if not listed:
            problems.append(job.problem("input.path", f"no Parquet files at {source}", "a file, a folder, or a glob such as data/*.parquet"))
        for shard in listed:
            named, located = names.setdefault(shard.name, shard), urls.setdefault(shard.url, shard)
            if named.url != shard.url:
                problems.append(job.problem("input.path", f"{named.url} and {shard.url} would share the label file {shard.name}", _ONE_ROOT))
            if located.name != shard.name:
                problems.append(job.problem("input.path", f"{shard.url} is in two sources, as {located.name} and as {shard.name}", _ONE_ROOT))
        problems += _output_problems(job, source, root, listed)
    return sorted(names.values(), key=lambda shard: shard.name), problems


_ONE_ROOT = "name a folder above both"


def _list(source: str, job: Job) -> tuple[list[Shard], str]:
    """A source's files, and the folder (or the file) it begins at. A name that begins with `_` or `.` is no input."""
    fs, path = filesystem(source, job.storage)
    with plain_errors(source):
        fs.invalidate_cache()
        if is_glob(fs, path):
            base = root = _glob_root(path)
            found = patiently(fs, lambda: fs.glob(path, detail=True))
        elif (info := _info(fs, path)).get("type") == "file":
            base, root, found = path, fs._parent(path), {path: info}
        else:
            base = root = path
            found = {name: info for name, info in find(fs, path).items() if name.endswith(".parquet")}
    shards = []
    for file, info in found.items():
        name = posixpath.relpath(file, root)
        if info.get("type") == "file" and not any(part.startswith(("_", ".")) for part in name.split("/")):
            url = file if is_local(fs) else fs.unstrip_protocol(file)
            partitions = tuple((key, value) for key, eq, value in (part.partition("=") for part in name.split("/")[:-1]) if eq)
            shards.append(Shard(url, name, int(info["size"]), version(info), partitions=partitions))
    return shards, base if is_local(fs) else fs.unstrip_protocol(base)


def _info(fs: Any, path: str) -> dict[str, Any]:
    """A file's or a folder's details; nothing where there is none. (`isfile` takes every failure for a no.)"""
    try:
        return details(fs, path)
    except FileNotFoundError:
        return {}


def _glob_root(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if any(char in part for char in "*?["))]) or "/"


def _output_problems(job: Job, source: str, root: str, shards: Sequence[Shard]) -> Iterator[Problem]:
    """Labels must neither become input of the next run nor replace the input."""
    if not job.output.path:
        return
    output = place(job.output.path, job.storage)
    if output.startswith(place(root, job.storage)):
        yield job.problem("output.path", f"the output {job.output.path} lies inside the input {source}", "write it elsewhere")
        return
    replaced = next((shard for shard in shards if place(shard.url, job.storage) == f"{output}{shard.name}/"), None)
    if replaced is not None:
        yield job.problem("output.path", f"the labels of {replaced.url} would replace the input file itself", "write them to another folder")


def _footers(job: Job, files: Sequence[Shard]) -> list[tuple[Shard, pa.Schema | None, str | None]]:
    """`_footer` of each. A few that the store does not give are left out like those that are broken; where it gives none,
    or more than UNREACHABLE are missing, raises `TryAgain`."""
    found: list[tuple[Shard, pa.Schema | None, str | None]] = []
    unreachable = 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        tasks = [pool.submit(_footer, job, shard) for shard in files]
        for shard, task in zip(files, tasks, strict=True):
            try:
                found.append(task.result())
            except TryAgain as error:
                unreachable += 1
                found.append((shard, None, str(error)))
                if unreachable == min(len(files), UNREACHABLE):
                    pool.shutdown(cancel_futures=True)
                    raise
    return found


def _footer(job: Job, shard: Shard) -> tuple[Shard, pa.Schema | None, str | None]:
    """The shard with its rows, and its schema; or why it is no Parquet file. Raises `UserError` or `TryAgain` where the
    store does not give it: that says nothing about the file."""
    fs, path = filesystem(shard.url, job.storage)
    with plain_errors(shard.url):
        tail = _tail(fs, path, shard.size)
    if not tail:
        return shard, None, "no Parquet footer at its end: truncated, or no Parquet file"
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        return shard, None, first_line(error)
    content = schema.field(job.input.content).type if schema.names.count(job.input.content) == 1 else None
    return _with_footer(shard, metadata, schema.names, template_columns(job.input.content), is_conversation(content)), schema, None


def _tail(fs: Any, path: str, size: int) -> bytes:
    """A file's end with the whole footer in it, in one request for all but the widest schemas; nothing where there is none."""
    if size < MIN_FILE:
        return b""
    tail = get(fs, path, max(0, size - TAIL), size)
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] not in (b"PAR1", b"PARE") or needed > size:
        return b""
    return tail if needed <= len(tail) else get(fs, path, size - needed, size)


def _with_footer(shard: Shard, metadata: Any, names: Sequence[str], content: Sequence[str], conversation: bool) -> Shard:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    wanted = [i for i, path in enumerate(paths) if any(path == name or path.startswith(f"{name}.") for name in content)]
    return replace(
        shard,
        row_groups=tuple(group.num_rows for group in groups),
        content_bytes=sum(group.column(i).total_uncompressed_size for group in groups for i in wanted),
        conversation=conversation,
        # A column of the file counts, not the part of the path of the same name.
        partitions=tuple((key, value) for key, value in shard.partitions if key not in names),
    )
