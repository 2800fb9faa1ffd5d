"""Rows -> what an engine needs to be asked: contents as token ids, beside what is known of them.

In order of cost: an earlier verdict on the same content, then the judges on columns (rules,
screen), and token ids for what is left. Too long is known here, before any engine sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.job import Job
from moderay.core.verdicts import CONTENT_HASH, VERDICTS, Status, filled, structs, valid
from moderay.corpus.content import Content
from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.judges.cascade import Cascade
from moderay.judges.safeguard import content_ids
from moderay.judges.settle import Settled, settle_columns
from moderay.labels.overruling import ANSWER, given_by_people
from moderay.labels.reuse import ReadAlong
from moderay.pipeline.messages.units import audited_column, known_column, prepared_schema

# The row's position in its shard; a name no input column has.
POSITION = "\x00row"


def prepared(  # noqa: PLR0913, PLR0917  # the rows, and all that is known of what judges them
    table: pa.Table,
    contents: Sequence[Content],
    job: Job,
    cascades: Sequence[Cascade],
    vocab: Vocabulary,
    earlier: ReadAlong | None = None,
) -> pa.Table:
    """Rows of the input -> rows of `units.prepared_schema`.

    Args:
        table: The input's columns that rules read, and the rows' `POSITION`.
        contents: Of these rows.
        job: For its windows.
        cascades: The judges of each policy.
        vocab: What makes token ids.
        earlier: Where the contents may have verdicts already.
    """
    hashes = [content.hash for content in contents]
    is_ok = np.array([content.status is Status.OK for content in contents], bool)
    texts = _texts(contents, cascades)
    reused = {} if earlier is None else earlier.find(hashes)
    settled: list[Settled] = []
    is_open = np.zeros(len(contents), bool)
    for cascade in cascades:
        known = reused.get(cascade.policy.id, pa.nulls(len(contents), VERDICTS))
        settled.append(settle_columns(cascade, texts, table, hashes, known))
        is_open |= is_ok & (~valid(settled[-1].verdicts) | settled[-1].audited)
    return pa.Table.from_arrays(
        [
            table.column(POSITION),
            pa.array(hashes, pa.string()),
            *_ids(contents, is_open, job, vocab),
            *[one.verdicts for one in settled],
            *[pa.array(one.audited) for one in settled],
        ],
        schema=prepared_schema([cascade.policy.id for cascade in cascades]),
    )


def under_all(table: pa.Table, policies: Sequence[str]) -> pa.Table:
    """Prepared rows of some policies as rows of `units.prepared_schema` of all, with none known."""
    missing = {known_column(policy): pa.nulls(len(table), VERDICTS) for policy in policies} | {
        audited_column(policy): pa.array(np.zeros(len(table), bool)) for policy in policies
    }
    schema = prepared_schema(policies)
    columns = [
        table.column(name) if name in table.column_names else missing[name] for name in schema.names
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def with_answers(
    table: pa.Table, answers: Mapping[str, pa.Table], policies: Sequence[str]
) -> pa.Table:
    """A prepared unit in which people settle what no judge has settled and they have answered.

    Args:
        table: The unit.
        answers: By policy, rows of `overruling.ANSWER`.
        policies: All of the unit's.
    """
    hashes = structs(table.column(CONTENT_HASH.name))
    is_open = np.zeros(len(table), bool)
    for policy in policies:
        said = answers.get(policy, ANSWER.empty_table())
        answer = pc.index_in(hashes, said.column("content_hash"))
        if answer.null_count < len(answer):
            table = with_known(table, {policy: given_by_people(said.take(answer))})
            asked = audited(table, policy) & ~valid(answer)
            column = table.schema.get_field_index(audited_column(policy))
            table = table.set_column(column, table.field(column), pa.array(asked))
        is_open |= ~valid(known(table, policy)) | audited(table, policy)
    column = table.schema.get_field_index("ids")
    ids = pc.if_else(pa.array(is_open), structs(table.column("ids")), None)
    return table.set_column(column, table.field(column), ids)


def known(table: pa.Table, policy: str) -> pa.StructArray:
    """A policy's verdicts that are there already, null where there is none."""
    return structs(table.column(known_column(policy)))


def audited(table: pa.Table, policy: str) -> np.ndarray:
    """Bool: which of these known verdicts the last judge is asked for all the same."""
    return np.asarray(table.column(audited_column(policy)).to_numpy())


def open_rows(table: pa.Table) -> int:
    """Rows of a prepared unit of which an engine is to be asked, as far as is known."""
    return len(table) - int(table.column("ids").null_count)


def with_known(table: pa.Table, more: Mapping[str, pa.StructArray]) -> pa.Table:
    """A prepared unit with further known verdicts, by policy, parallel to its rows."""
    for policy, column in more.items():
        name = known_column(policy)
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.field(index), filled(known(table, policy), column))
    return table


def _texts(contents: Sequence[Content], cascades: Sequence[Cascade]) -> pa.Array:
    """The contents that can be judged, null elsewhere.

    All null where no judge on columns would read them, since it is a copy of all.
    """
    if not any(cascade.on_columns for cascade in cascades):
        return pa.nulls(len(contents), pa.large_string())
    texts = [content.text if content.status is Status.OK else None for content in contents]
    return pa.array(texts, pa.large_string())


def _ids(
    contents: Sequence[Content], is_open: np.ndarray, job: Job, vocab: Vocabulary
) -> list[pa.Array]:
    """Token ids, status and detail of every row."""
    ids: list[list[int] | None] = [None] * len(contents)
    statuses = [None if content.status is Status.OK else content.status for content in contents]
    details = [content.detail for content in contents]
    for row in np.flatnonzero(is_open).tolist():
        ids[row] = content_ids(contents[row].text, job.windows, vocab)
        if ids[row] is None:
            statuses[row] = Status.TOO_LONG
            details[row] = _too_long(contents[row], job)
    return [
        pa.array(ids, pa.large_list(pa.int32())),
        pa.array(statuses, pa.string()),
        pa.array(details, pa.string()),
    ]


def _too_long(content: Content, job: Job) -> str:
    return (
        f"{len(content.text):,} characters are more than {job.windows.max} windows of "
        f"{job.windows.tokens} tokens hold"
    )
