"""The input's columns: which are read, which carried, and whether every shard has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import Problem, nearest
from moderay.core.sql.refusal import SqlRefusedError
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, ROW
from moderay.corpus.content import template_columns
from moderay.corpus.formats import NoType
from moderay.corpus.shard import Shard
from moderay.corpus.where import (
    File,
    Wrong,
    named_once,
    row_condition,
    where_columns,
    where_wrong,
)

Check = Callable[[Shard, pa.Schema], Iterator[Wrong]]

# Shards named for one and the same problem; of the others only the number is told.
NAMED = 3
_SCHEMA = (
    "one output has one schema: leave the column out with output.columns, or label the "
    "files in two jobs"
)


def read_columns(job: Job, rule_columns: Iterable[str] = ()) -> list[str]:
    """The columns that judging reads: the content's, those of `where`, and those of rules."""
    content = template_columns(job.input.content)
    return list(dict.fromkeys([*content, *where_columns(job.input.where), *rule_columns]))


def output_columns(job: Job, schema: pa.Schema) -> list[str]:
    """Names of the input columns that are carried over, in order.

    Those that the job names and the input has not are among them.
    """
    return list(schema.names) if job.output.columns == "all" else list(job.output.columns)


def check_columns(
    job: Job, files: Sequence[File], policy_ids: Sequence[str]
) -> tuple[pa.Schema, list[Problem]]:
    """The carried fields, as they are in the first shard, and what is wrong in any shard.

    A field is nullable where it is so in one of them.
    """
    first, reference = files[0]
    names = output_columns(job, reference)
    problems = [
        *_output_problems(job, first.file, reference),
        *_reserved(job, names, policy_ids),
    ]
    fields = {
        name: reference.field(name).remove_metadata()
        for name in names
        if named_once(reference, name)
    }
    carried = pa.schema(
        [
            field.with_nullable(any(_nullable(schema, name) for _, schema in files))
            for name, field in fields.items()
        ]
    )
    problems += _for_each(
        job,
        files,
        lambda shard, schema: content_problems(job.input.content, schema, shard.partitions),
    )
    problems += _for_each(
        job, files[1:], lambda _, schema: _carried_problems(schema, carried, first.file)
    )
    problems += _where_problems(job, files)
    return carried, list(dict.fromkeys(problems))


def is_conversation(kind: pa.DataType | None) -> bool:
    """Whether a column holds list<struct<role, content>>; other fields of a turn do not matter."""
    if kind is None or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    turn = kind.value_type
    return pa.types.is_struct(turn) and all(
        turn.get_field_index(name) >= 0 and _is_text(turn.field(name).type)
        for name in ("role", "content")
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)


def _columns_key(job: Job) -> str:
    """The key that a problem with the carried columns is about."""
    return "input.path" if job.output.columns == "all" else "output.columns"


def _output_problems(job: Job, shard: str, schema: pa.Schema) -> Iterator[Problem]:
    """Carried columns that the first shard cannot give."""
    names = output_columns(job, schema)
    key = _columns_key(job)
    for name in dict.fromkeys(names):
        if job.output.columns != "all" and names.count(name) > 1:
            yield job.problem(key, f"output.columns names {name!r} twice")
    for name in dict.fromkeys(names):
        if name not in schema.names:
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


def _for_each(job: Job, files: Sequence[File], check: Check) -> Iterator[Problem]:
    """The problems of every shard: of each kind the first `NAMED`, the rest as a number."""
    seen: Counter[Wrong] = Counter()
    for shard, schema in files:
        for wrong in dict.fromkeys(check(shard, schema)):
            seen[wrong] += 1
            if seen[wrong] <= NAMED:
                yield job.problem(wrong[0], f"{shard.file}: {wrong[1]}", wrong[2])
    for wrong, count in seen.items():
        if count > NAMED:
            yield job.problem(wrong[0], f"{count - NAMED:,} more shards: {wrong[1]}", wrong[2])


def content_problems(
    content: str, schema: pa.Schema, partitions: Iterable[tuple[str, str]] = ()
) -> Iterator[Wrong]:
    """What is wrong with a table's columns for `content`, a column or a template of columns.

    Args:
        content: `input.content`.
        schema: The table's.
        partitions: Hive keys in the table's path, with their values.
    """
    names = template_columns(content)
    is_template = names != [content]
    key = "input.content"
    parts = dict(partitions)
    for name in names:
        if name not in schema.names and name not in parts:
            yield key, f"no column {name!r}", nearest(name, {*schema.names, *parts})
        elif name not in schema.names:
            # Only a template may take a part of the path: it has one value in all rows.
            if not is_template:
                hint = nearest(name, schema.names)
                yield key, f"{name!r} is a part of the path, not a column", hint
        elif not named_once(schema, name):
            yield key, f"two columns are named {name!r}", ""
        elif not _is_text(kind := schema.field(name).type) and (
            is_template or not is_conversation(kind)
        ):
            hint = "text, bytes, or list<struct<role: string, content: string>>"
            yield key, f"column {name!r} is {kind}", hint


def _carried_problems(schema: pa.Schema, carried: pa.Schema, first: str) -> Iterator[Wrong]:
    """Against the first shard, which gives the output its schema."""
    for field in carried:
        if field.name not in schema.names:
            yield "input.path", f"no column {field.name!r}, which {first} has", _SCHEMA
        elif not named_once(schema, field.name):
            yield "input.path", f"two columns are named {field.name!r}", _SCHEMA
        elif (kind := schema.field(field.name).type) != field.type:
            message = f"column {field.name!r} is {kind}, but {field.type} in {first}"
            yield "input.path", message, _SCHEMA


def _where_problems(job: Job, files: Sequence[File]) -> Iterator[Problem]:
    """The expression by itself, then on an empty table of every shard's columns."""
    if not job.input.where:
        return
    try:
        condition = row_condition(job.input.where)
    except SqlRefusedError as error:
        yield job.problem("input.where", f"where: {error.reason}", error.hint)
        return
    yield from _for_each(job, files, lambda shard, schema: where_wrong(condition, shard, schema))


def _nullable(schema: pa.Schema, name: str) -> bool:
    return not named_once(schema, name) or bool(schema.field(name).nullable)
