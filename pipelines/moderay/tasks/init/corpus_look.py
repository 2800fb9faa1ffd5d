"""A look at somebody's files: which columns there are, and which of them holds what is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from moderay.config.job import Input, Job, Output
from moderay.core.errors import Problems, UserError, inert
from moderay.core.sql.refusal import SqlRefusedError
from moderay.core.sql.row_expression import POLARS_ERRORS
from moderay.corpus.columns import content_problems, is_conversation
from moderay.corpus.content import template_columns
from moderay.corpus.formats import FORMATS, NoType, common, format_of
from moderay.corpus.inputs import input_files
from moderay.corpus.scan import scan
from moderay.corpus.shard import Shard, shard_errors
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
        columns: What can be carried over: None for all columns, else their names.
        where: A condition that fits the columns; empty where none was found.
    """

    path: str
    content: str
    rows: int
    columns: list[str] | None
    where: str


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
        content = _only_text(path, schema, first)
    names = [name for name in dict.fromkeys(schema.names) if _is_carried(schema, name, policy)]
    job = _job(path, content, output).model_copy(
        update={"output": Output(path=output, columns=names)}
    )
    scanned = scan(job, [policy])
    if scanned.problems:
        raise Problems(scanned.problems)
    conditions = _conditions(schema, first, content)
    return CorpusLook(
        path,
        content,
        scanned.rows,
        None if names == schema.names else names,
        next((where for where in conditions if _holds_for(where, schema)), ""),
    )


def _job(path: str, content: str, output: str) -> Job:
    return Job(
        input=Input(path=path, content=content), output=Output(path=output), policies=["policy"]
    )


def _first_rows(path: str, output: str) -> tuple[pa.Schema, pa.Table]:
    """The columns of the first file, and how its rows begin."""
    job = _job(path, "content", output)
    inputs = input_files(job)
    if not inputs.shards:
        raise Problems(inputs.problems)
    shard = inputs.shards[0]
    try:
        return _rows_of(shard)
    except UserError as error:
        ends = ", ".join(end for each in FORMATS for end in each.suffixes)
        raise UserError(f"{error}; what is read ends in {ends}") from None


def _rows_of(shard: Shard) -> tuple[pa.Schema, pa.Table]:
    fs, path = shard.located({})
    format_ = format_of(shard.url)
    with shard_errors(shard):
        footer = format_.footer(fs, path, shard.state, [])
        [schema] = common([(shard.url, footer.schema)])
        names = [name for name in schema.names if named_once(schema, name)]
        explicit = format_.explicit_schema(schema)
        table = next(iter(format_.tables(fs, path, names, explicit, rows=FIRST)), None)
    if table is None:
        table = pa.table({name: pa.nulls(0) for name in names})
    return schema, table.slice(0, FIRST)


def _only_text(path: str, schema: pa.Schema, first: pa.Table) -> str:
    """The column that is judged, where it can be but one."""
    fit = [name for name in schema.names if not [*content_problems(name, schema)]]
    if talks := [name for name in fit if is_conversation(schema.field(name).type)]:
        fit = talks
    if len(fit) == 1:
        return fit[0]
    if not fit:
        raise UserError(
            f"{path} has no column of text or of conversations; it has {', '.join(schema.names)}"
        )
    listed = "".join(f"\n    {inert(name)}: {_excerpt(first, name)}" for name in fit)
    raise UserError(f"--content is missing: {path} has several columns of text:{listed}")


def _excerpt(first: pa.Table, name: str) -> str:
    """How the first value of a column begins."""
    values = first.column(name).drop_null().slice(0, 1).to_pylist()
    if not values:
        return "nothing in the first rows"
    value = values[0].decode("utf-8", "replace") if isinstance(values[0], bytes) else values[0]
    text: str = inert(" ".join(str(value).split()))
    return json.dumps(text[:EXCERPT], ensure_ascii=False) + ("..." if len(text) > EXCERPT else "")


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
