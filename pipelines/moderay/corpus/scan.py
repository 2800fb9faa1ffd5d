"""Sources -> shards: footers read once, columns checked, and what a run must know of each file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import Problem, TryAgainError, first_line
from moderay.core.storage import ChangedError, filesystem, plain_errors
from moderay.corpus.columns import check_columns, is_conversation
from moderay.corpus.content import template_columns
from moderay.corpus.formats import Footer, UnreadableError, common, format_of
from moderay.corpus.shard import Footers, Shard
from moderay.corpus.sources import input_files

# Footers read at once: enough to hide a store's latency, few enough not to be throttled.
PARALLEL = 16
# Footers that a store may fail to give before the store is taken for the trouble, and not the
# files.
UNREACHABLE = 20


@dataclass(frozen=True)
class Scan:
    """What the input holds.

    Attributes:
        shards: The files that can be read, by name.
        schemas: Of each shard, what it is read with.
        columns: The carried fields, in order.
        unreadable: (file, reason) of the others.
        problems: What `check` reports.
        footers: Of files that had to be read for them.
    """

    shards: tuple[Shard, ...]
    schemas: tuple[pa.Schema, ...]
    columns: pa.Schema
    unreadable: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]
    footers: Footers = field(default_factory=dict)

    @property
    def files(self) -> list[tuple[Shard, pa.Schema]]:
        """Shards with their schemas."""
        return list(zip(self.shards, self.schemas, strict=True))

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class _FileRead:
    """A file with its footer, or with the reason why there is none."""

    shard: Shard
    footer: Footer | None
    error: str = ""


def scan(job: Job, policy_ids: Sequence[str], kept: Callable[[], Footers] = dict) -> Scan:
    """Find the shards and check their columns.

    Args:
        job: The job.
        policy_ids: Names that no carried column may have.
        kept: Gives the footers that an earlier run had to read files for; asked only where there
            are such files.

    Raises:
        UserError: The storage refuses.
        TryAgainError: The storage does not answer.
    """
    files, problems = input_files(job)
    counted = any(format_of(shard.url).counted for shard in files)
    read = _read_footers(job, files, kept() if counted else {})
    with_footer = [(file.shard, file.footer) for file in read if file.footer is not None]
    unreadable = tuple((file.shard.file, file.error) for file in read if file.footer is None)
    good = _with_schemas(job, with_footer)
    carried = pa.schema([])
    if good:
        carried, wrong = check_columns(job, good, policy_ids)
        problems += wrong
        if not sum(shard.rows for shard, _ in good):
            problems.append(job.problem("input.path", "the input has no rows"))
    elif files:
        message = f"none of {len(files)} files can be read; the first: {unreadable[0][1]}"
        problems.append(job.problem("input.path", message))
    return Scan(
        shards=tuple(shard for shard, _ in good),
        schemas=tuple(schema for _, schema in good),
        columns=carried,
        unreadable=unreadable,
        problems=tuple(problems),
        footers={
            shard.identity: footer for shard, footer in with_footer if format_of(shard.url).counted
        },
    )


def _read_footers(job: Job, files: Sequence[Shard], kept: Footers) -> list[_FileRead]:
    """The footer of each; a few that the store does not give are left out like broken ones.

    Raises:
        TryAgainError: The store gives none, or more than UNREACHABLE are missing.
    """
    read: list[_FileRead] = []
    unreachable = 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        tasks = [pool.submit(_footer, job, shard, kept) for shard in files]
        for shard, task in zip(files, tasks, strict=True):
            try:
                read.append(_FileRead(shard, task.result()))
            except UnreadableError as error:
                read.append(_FileRead(shard, None, first_line(error)))
            except TryAgainError as error:
                unreachable += 1
                read.append(_FileRead(shard, None, str(error)))
                if unreachable == min(len(files), UNREACHABLE):
                    pool.shutdown(cancel_futures=True)
                    raise
    return read


def _footer(job: Job, shard: Shard, kept: Footers) -> Footer:
    """One file's footer.

    Raises:
        UnreadableError: For what the file holds.
        UserError: The store refuses it, which says nothing about the file.
        TryAgainError: The store does not give it, which says nothing about the file.
    """
    if (known := kept.get(shard.identity)) is not None:
        return known
    fs, path = filesystem(shard.url, job.storage)
    content = template_columns(job.input.content)
    with plain_errors(shard.url):
        try:
            return format_of(shard.url).footer(fs, path, shard.state, content)
        except ChangedError as error:
            raise UnreadableError(str(error)) from None


def _with_schemas(job: Job, files: Sequence[tuple[Shard, Footer]]) -> list[tuple[Shard, pa.Schema]]:
    """The shards with their rows, and the schemas they are read with."""
    schemas = common([(shard.url, footer.schema) for shard, footer in files])
    return [
        (_described(job, shard, footer, schema), schema)
        for (shard, footer), schema in zip(files, schemas, strict=True)
    ]


def _described(job: Job, shard: Shard, footer: Footer, schema: pa.Schema) -> Shard:
    """The shard with what its footer says."""
    name = job.input.content
    content = schema.field(name).type if schema.names.count(name) == 1 else None
    # A column of the file counts, not the part of the path of the same name.
    partitions = [(key, value) for key, value in shard.partitions if key not in schema.names]
    return replace(
        shard,
        row_groups=footer.row_groups,
        content_bytes=footer.content_bytes,
        conversation=is_conversation(content),
        partitions=tuple(partitions),
        schema=format_of(shard.url).explicit_schema(schema),
    )
