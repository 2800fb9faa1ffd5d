"""A look at somebody's files: which columns there are, and which of them holds what is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from moderay.config.job import Input, Job, Output
from moderay.core.errors import Problem, Problems, UserError, first_line, inert
from moderay.core.sql.refusal import SqlRefusedError
from moderay.core.sql.row_expression import POLARS_ERRORS
from moderay.core.storage import plain_errors
from moderay.corpus.columns import content_problems, is_conversation
from moderay.corpus.content import template_columns
from moderay.corpus.formats import FORMATS, NoType, common
from moderay.corpus.inputs import input_files
from moderay.corpus.scan import scan
from moderay.corpus.shard import Shard
from moderay.corpus.where import named_once, row_condition
from moderay.tasks.init.policy import RESERVED

# Rows that are looked at.
FIRST = 100
# Characters of a value that are shown.
EXCERPT = 40
# Characters of a condition that is proposed.
LONGEST_WHERE = 60


@dataclass(frozen=True)
class CorpusLook:
    """What a job needs to know of its input.

    Attributes:
        path: As the job may name it.
        content: The column, or the template of columns, that is judged.
        rows: In all files.
        columns: Names of those that can be carried over.
        left: Names of the others.
        where: A condition that fits the columns; empty where none was found.
    """

    path: str
    content: str
    rows: int
    columns: list[str]
    left: list[str]
    where: str


def only_text(path: str, option: str) -> str:
    """The column of the files that a path names which is judged, where it can be but one.

    Args:
        path: File, folder, glob or URL; absolute.
        option: The command's, by which another is named.

    Raises:
        UserError: It can be several or none, or nothing can be read.
        Problems: The same, with several reasons.
    """
    return _only_text(path, *_first_rows(path, ""), option)


def look_at(path: str, content: str | None, output: str, policy: str) -> CorpusLook:
    """Look at the files that a path names.

    Args:
        path: File, folder, glob or URL; absolute.
        content: The column, or the template of columns; by default the only one that it can be.
        output: Where the labels go.
        policy: Id of the policy, a name that no carried column may have.

    Raises:
        UserError: The content is not known, or nothing can be read.
        Problems: The same, with several reasons.
    """
    schema, first = _first_rows(path, output)
    if content is None:
        content = _only_text(path, schema, first, "--content")
    names = [name for name in dict.fromkeys(schema.names) if _is_carried(schema, name, policy)]
    job = _job(path, content, output).model_copy(
        update={"output": Output(path=output, columns=names)}
    )
    scanned = scan(job, [policy])
    refuse(scanned.problems)
    conditions = _conditions(schema, first, content)
    return CorpusLook(
        path,
        content,
        scanned.rows,
        names,
        [name for name in dict.fromkeys(schema.names) if name not in names],
        next((where for where in conditions if _holds_for(where, schema)), ""),
    )


def _job(path: str, content: str, output: str) -> Job:
    return Job(
        input=Input(path=path, content=content), output=Output(path=output), policies=["policy"]
    )


def refuse(problems: Sequence[Problem]) -> None:
    """Raises `Problems`, where there are any: of the input, since nobody wrote the job yet."""
    if problems:
        raise Problems([replace(problem, file="", line=None) for problem in problems])


def _first_rows(path: str, output: str) -> tuple[pa.Schema, pa.Table]:
    """The columns of the first file, and how its rows begin."""
    job = _job(path, "content", output)
    inputs = input_files(job)
    if not inputs.shards:
        refuse(inputs.problems)
    shard = inputs.shards[0]
    try:
        with plain_errors(shard.url):
            return _rows_of(shard)
    except pa.ArrowException as error:
        ends = ", ".join(end for each in FORMATS for end in each.suffixes)
        raise UserError(
            f"{shard.url} cannot be read: {first_line(error)}; names of what can be end in {ends}"
        ) from None


def _rows_of(shard: Shard) -> tuple[pa.Schema, pa.Table]:
    fs, path = shard.located({})
    format_ = shard.format
    footer = format_.footer(fs, path, shard.state, [])
    [schema] = common([(shard.url, footer.schema)])
    names = [name for name in schema.names if named_once(schema, name)]
    pieces: list[pa.Table] = []
    for piece in format_.tables(fs, path, names, format_.explicit_schema(schema), rows=FIRST):
        pieces.append(piece)
        if sum(map(len, pieces)) >= FIRST:
            break
    first = pa.concat_tables(pieces) if pieces else pa.table({name: pa.nulls(0) for name in names})
    return schema, first.slice(0, FIRST)


def _only_text(path: str, schema: pa.Schema, first: pa.Table, option: str) -> str:
    """The column that is judged, where it can be but one."""
    fit: list[str] = [name for name in schema.names if not [*content_problems(name, schema)]]
    if talks := [name for name in fit if is_conversation(schema.field(name).type)]:
        fit = talks
    if len(fit) == 1:
        return fit[0]
    if not fit:
        raise UserError(
            f"{path} has no column of text or of conversations; it has {', '.join(schema.names)}"
        )
    listed = "".join(f"\n    {inert(name)}: {_excerpt(first, name)}" for name in fit)
    raise UserError(f"{option} is missing: {path} has several columns of text:{listed}")


def _excerpt(first: pa.Table, name: str) -> str:
    """How the first value of a column begins."""
    values = first.column(name).drop_null().slice(0, 1).to_pylist()
    if not values:
        return "nothing in the first rows"
    value = values[0].decode("utf-8", "replace") if isinstance(values[0], bytes) else values[0]
    text = inert(" ".join(str(value).split()))
    return f"{json.dumps(text[:EXCERPT], ensure_ascii=False)}{'...' * (len(text) > EXCERPT)}"


def _is_carried(schema: pa.Schema, name: str, policy: str) -> bool:
    """Whether an output can have this column too."""
    return (
        name not in (*RESERVED, policy)
        and named_once(schema, name)
        and not isinstance(schema.field(name).type, NoType)
    )


def _conditions(schema: pa.Schema, first: pa.Table, content: str) -> Iterator[str]:
    """Conditions on columns, the likeliest first, that may fit or not."""
    judged = template_columns(content)
    for name in [name for name in first.column_names if name in schema.names]:
        values = [] if name in judged else first.column(name).drop_null().to_pylist()
        kinds = {str(value) for value in values}
        if values and isinstance(values[0], str) and 2 * len(kinds) <= len(values):
            yield f"{name} = '{values[0]}'"
    for name in first.column_names:
        if pa.types.is_integer(first.schema.field(name).type):
            yield f"{name} > 0"
    yield from (f"LENGTH({name}) > 20" for name in judged)


def _holds_for(where: str, schema: pa.Schema) -> bool:
    """Whether a condition is one that the columns answer, and fits into a line of a job."""
    # A job file takes ${NAME} for a variable.
    if len(where) > LONGEST_WHERE or inert(where) != where or "$" in where:
        return False
    try:
        condition = row_condition(where)
        if not all(named_once(schema, name) for name in condition.columns):
            return False
        fields = [schema.field(name) for name in condition.columns]
        return bool(condition.kind(pa.schema(fields)) == pl.Boolean)
    except (SqlRefusedError, *POLARS_ERRORS):
        return False
