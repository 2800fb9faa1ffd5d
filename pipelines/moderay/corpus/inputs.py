"""All sources together: which files a job reads, and where its labels must not go."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from moderay.config.job import Job
from moderay.core.errors import Problem
from moderay.core.storage import canonical_url
from moderay.core.wording import counted
from moderay.corpus.formats import is_text
from moderay.corpus.shard import Shard
from moderay.corpus.source import Source
from moderay.corpus.sources import list_source
from moderay.corpus.tables.snapshot import TableVersion

_ONE_ROOT = "name a folder above both"
# Files named for one and the same reason; of the others only the number is told.
NAMED = 3


@dataclass(frozen=True)
class Inputs:
    """What the entries of `input.path` name together.

    Attributes:
        shards: By name, without what their footers say.
        lost: As `Source.lost`; also files that would share a label file.
        passed_over: As `Source.passed_over`.
        problems: What is wrong with the entries.
        roots: Canonical URLs below which files are input, or may be the next time.
        tables: Of the tables among them, which versions these files are of.
    """

    shards: tuple[Shard, ...]
    lost: Mapping[str, str]
    passed_over: tuple[str, ...]
    problems: tuple[Problem, ...]
    roots: tuple[str, ...]
    tables: tuple[TableVersion, ...] = ()


def input_files(job: Job) -> Inputs:
    """Every file of every source, by name, without its footer; and what is wrong with sources.

    Raises:
        UserError: A storage refuses.
        TryAgainError: A storage does not answer.
    """
    sources = [list_source(source, job) for source in job.input.paths]
    by_name: dict[str, dict[str, Shard]] = {}
    for source in sources:
        for shard in source.shards:
            by_name.setdefault(shard.name, {}).setdefault(shard.url, shard)
    groups = [tuple(same.values()) for _, same in sorted(by_name.items())]
    beside = [same for same in groups if len(same) > 1 and _in_one_folder(same)]
    apart = [same for same in groups if len(same) > 1 and not _in_one_folder(same)]
    shards = [same[0] for same in groups if len(same) == 1]
    lost = {name: why for source in sources for name, why in source.lost.items()}
    empty = [source for source in sources if not source.shards]
    # Where a folder cannot be looked into, nobody knows whether it is empty.
    problems = [_no_files(job, source) for source in empty if source.lost or not job.may_be_empty]
    if shards:
        # As broken files are: whoever may add one must not take all others out.
        lost |= {shard.file: why for same in beside for shard, why in _shared(same)}
    else:
        problems += _clashes(job, beside, "rename one of them")
    problems += _clashes(job, apart, _ONE_ROOT)
    problems += _named_twice(job, sources)
    problems += _output_problems(job, sources)
    passed_over = dict.fromkeys(name for source in sources for name in source.passed_over)
    roots = tuple(root for source in sources for root in source.roots)
    tables = tuple(source.table for source in sources if source.table is not None)
    problems += _version_problems(job, tables)
    return Inputs(tuple(shards), lost, tuple(passed_over), tuple(problems), roots, tables)


def first_names(names: Sequence[str]) -> str:
    """The first of some names, and how many there are in all."""
    more = f", ... ({len(names):,} in all)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _version_problems(job: Job, tables: Sequence[TableVersion]) -> Iterator[Problem]:
    """A version that is named of no table, or a number of several."""
    if job.input.version is None:
        return
    if not tables:
        hint = "delta://... or iceberg://CATALOG/NAMESPACE/TABLE"
        yield job.problem("input.version", "input.path names no table", hint)
    elif len(tables) > 1 and isinstance(job.input.version, int):
        message = f"one number cannot be the version of {len(tables)} tables"
        yield job.problem("input.version", message, "a time, such as 2026-11-28T06:00:00Z")


def _no_files(job: Job, source: Source) -> Problem:
    if source.table is not None:
        hint = "where that is no mistake: input.allow_empty: true"
        no_rows = job.problem("input.path", f"{source.table} has no files", hint)
        return replace(no_rows, absent=True)
    message = f"no Parquet, Arrow, JSON lines or CSV files at {source.url}"
    if source.passed_over:
        message += f"; passed over: {first_names(source.passed_over)}"
    for name, why in source.lost.items():
        message += f"; {name}: {why}"
        break
    hint = "a file, a folder, or a glob such as data/*.parquet"
    if any(map(is_text, source.passed_over)):
        hint = "plain text in a folder is read with input.text: lines, or file"
    return replace(job.problem("input.path", message, hint), absent=not source.lost)


def _in_one_folder(shards: Iterable[Shard]) -> bool:
    return len({posixpath.dirname(shard.url) for shard in shards}) == 1


def _shared(shards: Sequence[Shard]) -> Iterator[tuple[Shard, str]]:
    """Files whose labels would be one file, each with the reason why it has none."""
    for shard in shards:
        other = next(other for other in shards if other is not shard)
        yield (
            shard,
            f"it would share the label file {shard.name} with {other.file}: rename one of them",
        )


def _clashes(job: Job, groups: Sequence[Sequence[Shard]], hint: str) -> list[Problem]:
    """Files whose labels would be one file, a few of them."""
    problems = [
        job.problem(
            "input.path",
            f"{first.url} and {other.url} would share the label file {first.name}",
            hint,
        )
        for first, *others in groups[:NAMED]
        for other in others[:NAMED]
    ]
    if len(groups) > NAMED:
        message = f"{counted(len(groups) - NAMED, 'more label file')} would be shared"
        problems.append(job.problem("input.path", message, hint))
    return problems


def _named_twice(job: Job, sources: Sequence[Source]) -> list[Problem]:
    """Files that two sources name otherwise, a few of them."""
    by_url: dict[str, Shard] = {}
    twice = []
    for source in sources:
        for shard in source.shards:
            other = by_url.setdefault(shard.url, shard)
            if other.name != shard.name:
                twice.append(f"{shard.url} is in two sources, as {other.file} and as {shard.file}")
    if len(twice) > NAMED:
        twice = [*twice[:NAMED], f"{len(twice) - NAMED:,} more files are in two sources"]
    return [job.problem("input.path", message, _ONE_ROOT) for message in twice]


def _output_problems(job: Job, sources: Sequence[Source]) -> Iterator[Problem]:
    """Labels must neither become input of the next run nor replace the input."""
    if not job.output.path:
        return
    output = canonical_url(job.output.path, job.storage)
    for source in sources:
        if any(output.startswith(root) for root in source.roots):
            yield job.problem(
                "output.path",
                f"the output {job.output.path} lies inside the input {source.url}",
                "write it elsewhere",
            )
            return
    real = {place: url for source in sources for place, url in source.real.items()}
    for source in sources:
        for shard in source.shards:
            if (replaced := real.get(f"{output}{shard.name}/")) is not None:
                other = "itself" if replaced == shard.url else replaced
                yield job.problem(
                    "output.path",
                    f"the labels of {shard.url} would replace the input file {other}",
                    "write them to another folder",
                )
                return
