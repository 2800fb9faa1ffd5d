"""The input's columns: which are read, which carried, and what content may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import nearest
from moderay.corpus.content import template_columns
from moderay.corpus.where import Wrong, named_once, where_columns


def read_columns(job: Job, rule_columns: Iterable[str] = ()) -> list[str]:
    """The columns that judging reads: the content's, those of `where`, and those of rules."""
    content = template_columns(job.input.content)
    return list(dict.fromkeys([*content, *where_columns(job.input.where), *rule_columns]))


def output_columns(job: Job, schema: pa.Schema) -> list[str]:
    """Names of the input columns that are carried over, in order.

    Those that the job names and the input has not are among them.
    """
    return list(schema.names) if job.output.columns == "all" else list(job.output.columns)


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
