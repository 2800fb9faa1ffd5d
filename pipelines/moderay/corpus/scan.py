"""Sources -> shards: footers read once, columns checked, and what a run must know of each file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from moderay.config.job import Job
from moderay.core import wording
from moderay.core.errors import Problem, TryAgainError, UserError, first_line
from moderay.core.storage import (
    HASHED,
    ChangedError,
    content_version,
    details,
    file_size,
    is_local,
    plain_errors,
    version,
)
from moderay.corpus.columns import is_conversation
from moderay.corpus.content import template_columns
from moderay.corpus.formats import Footer, UnreadableError, common, label_file
from moderay.corpus.formats.table_schema import misfits, plain_fields
from moderay.corpus.inputs import Inputs, first_names, input_files
from moderay.corpus.schemas import Agreement, check_columns
from moderay.corpus.shard import Footers, Shard
from moderay.corpus.source import UNKNOWN
from moderay.corpus.tables.snapshot import TableVersion

# Footers read at once: enough to hide a store's latency, few enough not to be throttled.
PARALLEL = 16
# Footers that a store may fail or refuse to give before the store is taken for the trouble, and not
# the files.
UNREACHABLE = 20


@dataclass(frozen=True)
class Scan:
    """What the input holds.

    Attributes:
        shards: The files that can be read, by name.
        schemas: Of each shard, what it is read with.
        columns: The carried fields, in order.
        unreadable: (file, reason) of the others, and of folders that cannot be looked into.
        problems: What `check` reports.
        footers: Of files that had to be read for them.
        notes: What a person should know of it, a sentence each.
        roots: As `Inputs.roots`.
        tables: As `Inputs.tables`.
    """

    shards: tuple[Shard, ...]
    schemas: tuple[pa.Schema, ...]
    columns: pa.Schema
    unreadable: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]
    footers: Footers = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    tables: tuple[TableVersion, ...] = ()

    @property
    def files(self) -> list[tuple[Shard, pa.Schema]]:
        """Shards with their schemas."""
        return list(zip(self.shards, self.schemas, strict=True))

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    def without(self, odd: Mapping[str, str]) -> Scan:
        """The same with some files among the unreadable ones, by name, each with the reason."""
        kept = [(shard, schema) for shard, schema in self.files if shard.file not in odd]
        return replace(
            self,
            shards=tuple(shard for shard, _ in kept),
            schemas=tuple(schema for _, schema in kept),
            unreadable=tuple(sorted((*self.unreadable, *odd.items()))),
        )

    def gone(self, labels: Iterable[str]) -> list[str]:
        """Those of some label files whose input is not there any more, in order.

        Of what cannot be read, or lies in a folder that cannot be looked into, nobody knows.
        """
        there = {shard.name for shard in self.shards}
        there |= {label_file(file) for file, _ in self.unreadable}
        folders = tuple(f"{file}/" for file, _ in self.unreadable)
        return sorted(
            label for label in labels if label not in there and not label.startswith(folders)
        )


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
    inputs = input_files(job)
    counted = any(shard.format.counted for shard in inputs.shards)
    read = _read_footers(job, inputs.shards, kept() if counted else {})
    with_footer = [(file.shard, file.footer) for file in read if file.footer is not None]
    broken = {file.shard.file: file.error for file in read if file.footer is None}
    good = _with_schemas(job, with_footer)
    problems = list(inputs.problems)
    agreed = check_columns(job, good, policy_ids) if good else Agreement(pa.schema([]), {}, (), ())
    problems += agreed.problems
    is_empty = not sum(shard.rows for shard, _ in good)
    if good and is_empty and not job.may_be_empty:
        hint = "where that is no mistake: input.allow_empty: true"
        problems.append(job.problem("input.path", "the input has no rows", hint))
    if broken and not good:
        first = next(iter(broken.values()))
        message = f"none of {wording.counted(len(broken), 'file')} can be read; the first: {first}"
        problems.append(job.problem("input.path", message))
    every = Scan(
        shards=tuple(shard for shard, _ in good),
        schemas=tuple(schema for _, schema in good),
        columns=agreed.carried,
        unreadable=tuple({**inputs.lost, **broken}.items()),
        problems=tuple(problems),
        footers={shard.identity: footer for shard, footer in with_footer if shard.format.counted},
        notes=tuple(_notes(inputs, [file.shard for file in read], agreed, is_empty)),
        roots=inputs.roots,
        tables=inputs.tables,
    )
    return every.without({good[number][0].file: why for number, why in agreed.odd.items()})


def _notes(
    inputs: Inputs, shards: Sequence[Shard], agreed: Agreement, is_empty: bool
) -> Iterator[str]:
    yield from map(str, inputs.tables)
    if is_empty:
        yield f"the input is empty: {wording.counted(len(inputs.shards), 'file')}, no rows"
    if inputs.passed_over:
        yield f"passed over, as hidden or of another kind: {first_names(inputs.passed_over)}"
    if hashed := [shard.file for shard in shards if shard.version.startswith(HASHED)]:
        yield (
            "the store does not say whether these files change, so that each is read as a whole to "
            f"compare it, at every start and as it is published: {first_names(hashed)}"
        )
    if agreed.uncarried:
        yield f"columns not carried, as not every file has them: {first_names(agreed.uncarried)}"


def _read_footers(job: Job, files: Sequence[Shard], kept: Footers) -> list[_FileRead]:
    """The footer of each; a few that the store does not give are left out like broken ones.

    Raises:
        TryAgainError: The store gives none, or more than UNREACHABLE are missing.
        UserError: It refuses as many.
    """
    read: list[_FileRead] = []
    unreachable = 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        tasks = [pool.submit(_read, job, shard, kept) for shard in files]
        for shard, task in zip(files, tasks, strict=True):
            try:
                read.append(_FileRead(*task.result()))
            except UnreadableError as error:
                read.append(_FileRead(shard, None, first_line(error)))
            except (TryAgainError, UserError) as error:
                unreachable += 1
                read.append(_FileRead(shard, None, str(error)))
                if unreachable == min(len(files), UNREACHABLE):
                    pool.shutdown(cancel_futures=True)
                    raise
    return read


def _read(job: Job, shard: Shard, kept: Footers) -> tuple[Shard, Footer]:
    """A file with what its listing may not have said, and its footer.

    Raises:
        UnreadableError: For what the file holds, or that nobody here may read it.
        UserError: The store refuses it, which says nothing about the file.
        TryAgainError: The store does not give it, which says nothing about the file.
    """
    fs, path = shard.located(job.storage)
    content = template_columns(job.input.content)
    with plain_errors(shard.url):
        try:
            shard = _told_apart(shard, fs, path)
            known = kept.get(shard.identity) if shard.format.counted else None
            if known is not None:
                return shard, known
            return shard, shard.format.footer(fs, path, shard.state, content)
        except FileNotFoundError:
            raise UnreadableError("it has gone since it was listed") from None
        except (ChangedError, io.UnsupportedOperation) as error:
            raise UnreadableError(first_line(error)) from None
        except PermissionError:
            if not is_local(fs):
                raise
            raise UnreadableError("access denied") from None


def _told_apart(shard: Shard, fs: Any, path: str) -> Shard:
    """A shard with the size and the version that its listing did not say."""
    if shard.size == UNKNOWN:
        info = details(fs, path)
        shard = replace(shard, size=file_size(info, path), version=version(info))
    if not shard.version:
        shard = replace(shard, version=content_version(fs, path))
    return shard


def _with_schemas(job: Job, files: Sequence[tuple[Shard, Footer]]) -> list[tuple[Shard, pa.Schema]]:
    """The shards with their rows, and the schemas they are read with.

    Raises:
        UserError: A table's file has not the table's columns.
    """
    _assert_of_tables(files)
    schemas = [
        schema if shard.schema is None else plain_fields(shard.schema)
        for (shard, _), schema in zip(
            files, common([(shard.url, footer.schema) for shard, footer in files]), strict=True
        )
    ]
    return [
        (_described(job, shard, footer, schema), schema)
        for (shard, footer), schema in zip(files, schemas, strict=True)
    ]


def _assert_of_tables(files: Sequence[tuple[Shard, Footer]]) -> None:
    for shard, footer in files:
        if shard.schema is not None:
            for why in misfits(footer.schema, shard.schema):
                raise UserError(
                    f"{shard.url} does not fit the table it is of: {why}; rewrite the file (Delta: "
                    "OPTIMIZE; Iceberg: rewrite_data_files), or write a copy of the table"
                )


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
        schema=shard.schema if shard.schema is not None else shard.format.explicit_schema(schema),
    )
