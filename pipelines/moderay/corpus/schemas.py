"""One schema for all files: which columns are carried, and which files do not fit the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import Problem, nearest
from moderay.core.sql.refusal import SqlRefusedError
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, ROW
from moderay.core.wording import counted
from moderay.corpus.columns import content_problems, output_columns
from moderay.corpus.formats import NoType
from moderay.corpus.shard import Shard
from moderay.corpus.views import plain_type
from moderay.corpus.where import (
    File,
    Wrong,
    named_once,
    row_condition,
    where_wrong,
)

Check = Callable[[Shard, pa.Schema], Iterator[Wrong]]

# Shards named for one and the same problem; of the others only the number is told.
NAMED = 3
# Share of the files below which a schema is an exception.
FEW = 0.05
_SCHEMA = (
    "one output has one schema: leave the column out with output.columns, or label the "
    "files in two jobs"
)


@dataclass(frozen=True)
class Agreement:
    """What files have in common.

    Attributes:
        carried: The fields that are carried over; nullable where they are so in one file.
        odd: By number of a file that does not fit the others: why.
        uncarried: Columns that some files have, and others not.
        problems: What is wrong with all files, or with too many.
    """

    carried: pa.Schema
    odd: Mapping[int, str]
    uncarried: tuple[str, ...]
    problems: tuple[Problem, ...]


def check_columns(job: Job, files: Sequence[File], policy_ids: Sequence[str]) -> Agreement:
    """Compare the columns of files with what the job needs, and with each other.

    As long as fewer than half of the files are odd, they are left out: whoever may add a file must
    not take all others out. Are they more, the job is wrong.

    Args:
        job: The job.
        files: At least one.
        policy_ids: Names that no carried column may have.
    """
    kinds = _Kinds(files)
    first, reference = files[_reference(job, kinds)]
    names = output_columns(job, reference)
    fields = {
        name: _carried_field(reference.field(name)) for name in names if named_once(reference, name)
    }
    problems = [
        *_output_problems(job, first.file, reference),
        *_reserved(job, names, policy_ids),
    ]
    where, in_where = _where_check(job)
    checks: list[Check] = [
        lambda shard, schema: content_problems(job.input.content, schema, shard.partitions),
        lambda _, schema: _carried_problems(schema, fields.values(), first.file),
        *where,
    ]
    wrong = [kinds.each(check) for check in checks]
    odd = {
        number: _joined(message for _, message, _ in sum(all_of_it, start=()))
        for number, all_of_it in enumerate(zip(*wrong, strict=True))
        if any(all_of_it)
    }
    if 2 * len(odd) >= len(files):
        odd = {}
        problems += [problem for each in wrong for problem in _told(job, files, each)]
    fitting = [schema for number, schema in kinds.firsts if number not in odd]
    carried = pa.schema(
        [
            field.with_nullable(any(_nullable(schema, name) for schema in fitting))
            for name, field in fields.items()
        ]
    )
    more = {name: None for schema in fitting for name in schema.names if name not in fields}
    return Agreement(
        carried,
        odd,
        tuple(more) if job.output.columns == "all" else (),
        tuple(dict.fromkeys([*problems, *in_where])),
    )


class _Kinds:
    """Files by kind: those of one kind have one schema, and hive keys of the same names.

    There may be many files, and are few kinds.
    """

    def __init__(self, files: Sequence[File]) -> None:
        """Tells the kinds apart; metadata do not count."""
        self._files = files
        keys = [
            (
                schema.remove_metadata().serialize().to_pybytes(),
                tuple(key for key, _ in shard.partitions),
            )
            for shard, schema in files
        ]
        first = {key: number for number, key in reversed(list(enumerate(keys)))}
        self.of_file = [first[key] for key in keys]
        """By number of a file, that of the first of its kind."""

    @property
    def firsts(self) -> list[tuple[int, pa.Schema]]:
        """Number and schema of the first file of each kind, in order."""
        return [(number, self._files[number][1]) for number in dict.fromkeys(self.of_file)]

    def each(self, check: Check) -> list[tuple[Wrong, ...]]:
        """What a check says of each file; it is made once for each kind."""
        of_kind = {
            number: tuple(dict.fromkeys(check(self._files[number][0], schema)))
            for number, schema in self.firsts
        }
        return [of_kind[number] for number in self.of_file]


def _reference(job: Job, kinds: _Kinds) -> int:
    """Number of the file whose columns count.

    They are those of the first file, as long as it is no exception and all others have them: what
    is added to a data set later does not change what its output is. Else they are those that most
    files have.
    """
    columns = {
        number: frozenset(
            (field.name, plain_type(field.type), times)
            for field, times in _counted(schema)
            if job.output.columns == "all" or field.name in job.output.columns
        )
        for number, schema in kinds.firsts
    }
    files = Counter(columns[number] for number in kinds.of_file)
    first = columns[0]
    usual = files[first] >= max(2, FEW * len(kinds.of_file))
    if usual and all(first <= others for others in files):
        return 0
    most = max(files, key=files.__getitem__)
    return next(number for number, own in columns.items() if own == most)


def _counted(schema: pa.Schema) -> Iterator[tuple[pa.Field, int]]:
    """Fields, and how many there are of their names."""
    times = Counter(schema.names)
    return ((field, times[field.name]) for field in schema)


def _joined(messages: Iterable[str]) -> str:
    """A few messages as one."""
    distinct = list(dict.fromkeys(messages))
    more = f"; and {len(distinct) - NAMED:,} more" if len(distinct) > NAMED else ""
    return "; ".join(distinct[:NAMED]) + more


def _told(job: Job, files: Sequence[File], wrong: Sequence[tuple[Wrong, ...]]) -> Iterator[Problem]:
    """What is wrong in files, as problems: of each the first `NAMED`, the rest as a number."""
    seen: Counter[Wrong] = Counter()
    for (shard, _), of_file in zip(files, wrong, strict=True):
        for one in of_file:
            seen[one] += 1
            if seen[one] <= NAMED:
                yield job.problem(one[0], f"{shard.file}: {one[1]}", one[2])
    for one, count in seen.items():
        if count > NAMED:
            yield job.problem(one[0], f"{counted(count - NAMED, 'more shard')}: {one[1]}", one[2])


def _columns_key(job: Job) -> str:
    """The key that a problem with the carried columns is about."""
    return "input.path" if job.output.columns == "all" else "output.columns"


def _output_problems(job: Job, shard: str, schema: pa.Schema) -> Iterator[Problem]:
    """Carried columns that the shard whose columns count cannot give."""
    names = output_columns(job, schema)
    key = _columns_key(job)
    known = set(schema.names)
    for name in dict.fromkeys(names):
        if job.output.columns != "all" and names.count(name) > 1:
            yield job.problem(key, f"output.columns names {name!r} twice")
    for name in dict.fromkeys(names):
        if name not in known:
            message = f"output.columns: {shard} has no column {name!r}"
            yield job.problem(key, message, nearest(name, schema.names))
        elif not named_once(schema, name):
            message = f"{shard} has two columns named {name!r}"
            yield job.problem(key, message, "leave them out with output.columns")
        elif isinstance(kind := schema.field(name).type, NoType):
            message = f"{shard}: column {name!r} is {kind}"
            yield job.problem(key, message, "leave it out with output.columns")


def _reserved(job: Job, names: Sequence[str], policy_ids: Sequence[str]) -> Iterator[Problem]:
    """Carried columns named as columns of the output."""
    reserved = {ROW.name, CONTENT_HASH.name, FLAGGED.name, *policy_ids}
    for name in dict.fromkeys(names):
        if name in reserved:
            yield job.problem(
                _columns_key(job),
                f"the input's column {name!r} has the name of an output column",
                "leave it out with output.columns",
            )


def _carried_problems(
    schema: pa.Schema, carried: Iterable[pa.Field], first: str
) -> Iterator[Wrong]:
    """Against the shard that gives the output its schema."""
    known = set(schema.names)
    for field in carried:
        if field.name not in known:
            yield "input.path", f"no column {field.name!r}, which {first} has", _SCHEMA
        elif not named_once(schema, field.name):
            yield "input.path", f"two columns are named {field.name!r}", _SCHEMA
        elif (kind := plain_type(schema.field(field.name).type)) != field.type:
            message = f"column {field.name!r} is {kind}, but {field.type} in {first}"
            yield "input.path", message, _SCHEMA


def _where_check(job: Job) -> tuple[list[Check], list[Problem]]:
    """How `where` is checked on a shard, and what is wrong with it by itself."""
    if not job.input.where:
        return [], []
    try:
        condition = row_condition(job.input.where)
    except SqlRefusedError as error:
        return [], [job.problem("input.where", f"where: {error.reason}", error.hint)]
    return [lambda shard, schema: where_wrong(condition, shard, schema)], []


def _carried_field(field: pa.Field) -> pa.Field:
    return field.remove_metadata().with_type(plain_type(field.type))


def _nullable(schema: pa.Schema, name: str) -> bool:
    return not named_once(schema, name) or bool(schema.field(name).nullable)
