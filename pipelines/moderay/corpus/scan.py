"""Sources -> shards: files found, footers read once, columns checked; what the run needs to know of
each file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import Problem, TryAgainError, first_line
from moderay.core.storage import (
    canonical_url,
    details,
    filesystem,
    find,
    is_glob,
    is_local,
    patiently,
    plain_errors,
    version,
)
from moderay.corpus.columns import check_columns, is_conversation
from moderay.corpus.content import template_columns
from moderay.corpus.formats import (
    Footer,
    UnreadableError,
    common,
    format_of,
    is_input,
    label_file,
)
from moderay.corpus.shard import Footers, Shard

# Footers read at once: enough to hide a store's latency, few enough not to be throttled.
PARALLEL = 16
# Footers that a store may fail to give before the store is taken for the trouble, and not the
# files.
UNREACHABLE = 20


@dataclass(frozen=True)
class Scan:
    """What the input holds. `schemas`: by shard, what it is read with. `columns`: the carried
    fields, in order. `unreadable`: (file, reason). `problems`: what `check` reports. `footers`: of
    files that had to be read for them.
    """

    shards: tuple[Shard, ...]
    schemas: tuple[pa.Schema, ...]
    columns: pa.Schema
    unreadable: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]
    footers: Footers = field(default_factory=dict)

    @property
    def files(self) -> list[tuple[Shard, pa.Schema]]:
        return list(zip(self.shards, self.schemas, strict=True))

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)


def scan(job: Job, policy_ids: Sequence[str], kept: Callable[[], Footers] = dict) -> Scan:
    """Find the shards and check their columns. `kept`: gives the footers that an earlier run had to
    read files for; asked only where there are such files. Raises `UserError` or `TryAgainError`
    where the storage cannot be asked.
    """
    files, problems = _files(job)
    counted = any(format_of(shard.url).counted for shard in files)
    read = _footers(job, files, kept() if counted else {})
    good = _with_footers(job, [(shard, footer) for shard, footer, _ in read if footer is not None])
    unreadable = tuple((shard.file, error) for shard, _, error in read if error is not None)
    carried = pa.schema([])
    if good:
        carried, wrong = check_columns(job, good, policy_ids)
        problems += wrong
        if not sum(shard.rows for shard, _ in good):
            problems.append(job.problem("input.path", "the input has no rows"))
    elif files:
        problems.append(
            job.problem(
                "input.path",
                f"none of {len(files)} files can be read; the first: {unreadable[0][1]}",
            )
        )
    footers = {
        shard.identity: footer
        for shard, footer, _ in read
        if footer is not None and format_of(shard.url).counted
    }
    shards = tuple(shard for shard, _ in good)
    schemas = tuple(schema for _, schema in good)
    return Scan(shards, schemas, carried, unreadable, tuple(problems), footers)


def _files(job: Job) -> tuple[list[Shard], list[Problem]]:
    """Every file of every source, by name, without its footer."""
    names: dict[str, Shard] = {}
    urls: dict[str, Shard] = {}
    problems: list[Problem] = []
    for source in job.input.paths:
        listed, root = _list(source, job)
        if not listed:
            problems.append(
                job.problem(
                    "input.path",
                    f"no Parquet or JSON lines files at {source}",
                    "a file, a folder, or a glob such as data/*.parquet",
                )
            )
        for shard in listed:
            named, located = names.setdefault(shard.name, shard), urls.setdefault(shard.url, shard)
            if named.url != shard.url:
                problems.append(
                    job.problem(
                        "input.path",
                        f"{named.url} and {shard.url} would share the label file {shard.name}",
                        _apart(named, shard),
                    )
                )
            if located.name != shard.name:
                problems.append(
                    job.problem(
                        "input.path",
                        f"{shard.url} is in two sources, as {located.file} and as {shard.file}",
                        _ONE_ROOT,
                    )
                )
        problems += _output_problems(job, source, root, listed)
    return sorted(names.values(), key=lambda shard: shard.name), problems


_ONE_ROOT = "name a folder above both"


def _apart(one: Shard, other: Shard) -> str:
    return (
        "rename one of them"
        if posixpath.dirname(one.url) == posixpath.dirname(other.url)
        else _ONE_ROOT
    )


def _list(source: str, job: Job) -> tuple[list[Shard], str]:
    """A source's files, and the folder (or the file) it begins at. A name that begins with `_` or
    `.` is no input.
    """
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
            found = {name: info for name, info in find(fs, path).items() if is_input(name)}
    shards = []
    for file, info in found.items():
        name = posixpath.relpath(file, root)
        if info.get("type") == "file" and not any(
            part.startswith(("_", ".")) for part in name.split("/")
        ):
            url = file if is_local(fs) else fs.unstrip_protocol(file)
            partitions = tuple(
                (key, value)
                for key, eq, value in (part.partition("=") for part in name.split("/")[:-1])
                if eq
            )
            shards.append(
                Shard(
                    url, label_file(name), int(info["size"]), version(info), partitions=partitions
                )
            )
    return shards, base if is_local(fs) else fs.unstrip_protocol(base)


def _info(fs: Any, path: str) -> dict[str, Any]:
    """A file's or a folder's details; nothing where there is none. (`isfile` takes every failure
    for a no.)
    """
    try:
        return details(fs, path)
    except FileNotFoundError:
        return {}


def _glob_root(path: str) -> str:
    parts = path.split("/")
    return (
        "/".join(
            parts[: next(i for i, part in enumerate(parts) if any(char in part for char in "*?["))]
        )
        or "/"
    )


def _output_problems(
    job: Job, source: str, root: str, shards: Sequence[Shard]
) -> Iterator[Problem]:
    """Labels must neither become input of the next run nor replace the input."""
    if not job.output.path:
        return
    output = canonical_url(job.output.path, job.storage)
    if output.startswith(canonical_url(root, job.storage)):
        yield job.problem(
            "output.path",
            f"the output {job.output.path} lies inside the input {source}",
            "write it elsewhere",
        )
        return
    replaced = next(
        (
            shard
            for shard in shards
            if canonical_url(shard.url, job.storage) == f"{output}{shard.name}/"
        ),
        None,
    )
    if replaced is not None:
        yield job.problem(
            "output.path",
            f"the labels of {replaced.url} would replace the input file itself",
            "write them to another folder",
        )


def _footers(
    job: Job, files: Sequence[Shard], kept: Footers
) -> list[tuple[Shard, Footer | None, str | None]]:
    """`_footer` of each. A few that the store does not give are left out like those that are
    broken; where it gives none, or more than UNREACHABLE are missing, raises `TryAgainError`.
    """
    found: list[tuple[Shard, Footer | None, str | None]] = []
    unreachable = 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        tasks = [pool.submit(_footer, job, shard, kept) for shard in files]
        for shard, task in zip(files, tasks, strict=True):
            try:
                found.append((shard, task.result(), None))
            except UnreadableError as error:
                found.append((shard, None, first_line(error)))
            except TryAgainError as error:
                unreachable += 1
                found.append((shard, None, str(error)))
                if unreachable == min(len(files), UNREACHABLE):
                    pool.shutdown(cancel_futures=True)
                    raise
    return found


def _footer(job: Job, shard: Shard, kept: Footers) -> Footer:
    """Raises `UnreadableError` for what the file holds, and `UserError` or `TryAgainError` where
    the store does not give it: that says nothing about the file.
    """
    if (known := kept.get(shard.identity)) is not None:
        return known
    fs, path = filesystem(shard.url, job.storage)
    with plain_errors(shard.url):
        return format_of(shard.url).footer(
            fs, path, shard.size, template_columns(job.input.content)
        )


def _with_footers(job: Job, found: Sequence[tuple[Shard, Footer]]) -> list[tuple[Shard, pa.Schema]]:
    """The shards with their rows, and the schemas they are read with."""
    schemas = common([(shard.url, footer.schema) for shard, footer in found])
    return [
        (_with_footer(job, shard, footer, schema), schema)
        for (shard, footer), schema in zip(found, schemas, strict=True)
    ]


def _with_footer(job: Job, shard: Shard, footer: Footer, schema: pa.Schema) -> Shard:
    content = (
        schema.field(job.input.content).type if schema.names.count(job.input.content) == 1 else None
    )
    return replace(
        shard,
        row_groups=footer.row_groups,
        content_bytes=footer.content_bytes,
        conversation=is_conversation(content),
        # A column of the file counts, not the part of the path of the same name.
        partitions=tuple(
            (key, value) for key, value in shard.partitions if key not in schema.names
        ),
        schema=format_of(shard.url).given(schema),
    )
