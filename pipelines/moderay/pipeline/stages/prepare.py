"""Rows -> what an engine needs to be asked: contents as token ids, beside what is known of them
already.

In order of cost: an earlier verdict on the same content, then the judges on columns (rules,
screen), and token ids for what is left. Too long is known here, before any engine sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.job import Job
from moderay.core.verdicts import CONTENT_HASH, ROW, VERDICTS, Status, structs
from moderay.corpus.content import Content
from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.judges.cascade import Cascade
from moderay.judges.safeguard import content_ids
from moderay.labels.reuse import ReadAlong

# A unit on its way to the engine. `ids` is null where `status` says why there is nothing to judge,
# and where nobody needs to be asked. Beside these stand, for each policy, what `known` and
# `audited` give.
PREPARED = pa.schema(
    [
        ROW,
        CONTENT_HASH,
        ("ids", pa.large_list(pa.int32())),
        ("status", pa.string()),
        ("detail", pa.string()),
    ]
)

# The row's position in its shard; a name no input column has.
POSITION = "\x00row"


def known(table: pa.Table, policy: str) -> pa.StructArray:
    """A policy's verdicts that are there already, null where there is none."""
    name = _column("known", policy)
    return (
        structs(table.column(name))
        if name in table.column_names
        else pa.nulls(len(table), VERDICTS)
    )


def audited(table: pa.Table, policy: str) -> np.ndarray:
    """Bool: which of these known verdicts the last judge is asked for all the same."""
    name = _column("audit", policy)
    if name not in table.column_names:
        return np.zeros(len(table), bool)
    return np.asarray(
        pc.fill_null(structs(table.column(name)), False).to_numpy(zero_copy_only=False)
    )


def open_rows(table: pa.Table) -> int:
    """Rows of a prepared unit of which an engine is to be asked, as far as is known."""
    return len(table) - int(table.column("ids").null_count)


def with_known(table: pa.Table, more: Mapping[str, pa.StructArray]) -> pa.Table:
    """A prepared unit with further known verdicts, by policy, parallel to its rows."""
    for policy, column in more.items():
        both, name = filled(known(table, policy), column), _column("known", policy)
        table = (table.drop_columns([name]) if name in table.column_names else table).append_column(
            name, both
        )
    return table


def _column(what: str, policy: str) -> str:
    """Such columns are only there where they hold something; with a dot, which no policy id has."""
    return f"{what}.{policy}"


def prepared(
    table: pa.Table,
    found: Sequence[Content],
    job: Job,
    cascades: Sequence[Cascade],
    vocab: Vocabulary,
    earlier: ReadAlong | None = None,
) -> pa.Table:
    """Rows of the input with their `POSITION`, and their contents -> `PREPARED`, and what `known`
    and `audited` give.
    """
    hashes = [content.hash for content in found]
    judged = np.array([content.status is Status.OK for content in found], bool)
    # A copy of all contents, which only judges on columns need.
    read = any(cascade.on_columns for cascade in cascades)
    texts = pa.array(
        [content.text if read and content.status is Status.OK else None for content in found],
        pa.large_string(),
    )
    asked, beside = np.zeros(len(found), bool), dict[str, pa.Array]()
    found_before = {} if earlier is None else earlier.find(hashes)
    for cascade in cascades:
        policy = cascade.policy.id
        settled, audit = _known(cascade, texts, hashes, judged, table, found_before.get(policy))
        asked |= judged & (~valid(settled) | audit)
        beside |= {_column("known", policy): settled} if settled.null_count < len(settled) else {}
        beside |= {_column("audit", policy): pa.array(audit)} if audit.any() else {}
    columns = [
        table.column(POSITION),
        pa.array(hashes, pa.string()),
        *_ids(found, asked, job, vocab),
    ]
    made = pa.Table.from_arrays(columns, schema=PREPARED)
    for name, column in beside.items():
        made = made.append_column(name, column)
    return made


def _known(
    cascade: Cascade,
    texts: pa.Array,
    hashes: Sequence[str | None],
    judged: np.ndarray,
    table: pa.Table,
    earlier: pa.StructArray | None,
) -> tuple[pa.StructArray, np.ndarray]:
    """One policy's verdicts that cost nothing, and which of them are audited: of those settled here
    and now.
    """
    found = pa.nulls(len(texts), VERDICTS) if earlier is None else earlier
    settled = np.zeros(len(texts), bool)
    for judge in cascade.on_columns:
        if len(open_ := np.flatnonzero(judged & ~valid(found))):
            said = judge.settle(texts.take(pa.array(open_)), table.take(pa.array(open_)))
            settled[open_] = valid(said)
            found = scattered(found, said, open_)
    audited = np.zeros(len(texts), bool)
    if cascade.audit:
        audited[settled] = [cascade.audited(hashes[row] or "") for row in np.flatnonzero(settled)]
    return found, audited


def _ids(
    found: Sequence[Content], asked: np.ndarray, job: Job, vocab: Vocabulary
) -> list[pa.Array]:
    """Token ids, status and detail of every row."""
    ids: list[list[int] | None] = []
    statuses: list[str | None] = []
    details: list[str | None] = []
    for content, ask in zip(found, asked.tolist(), strict=True):
        tokens = content_ids(content.text, job.windows, vocab) if ask else None
        too_long = ask and tokens is None
        ids.append(tokens)
        statuses.append(
            Status.TOO_LONG if too_long else None if content.status is Status.OK else content.status
        )
        details.append(_too_long(content, job) if too_long else content.detail)
    return [
        pa.array(values, PREPARED.field(name).type)
        for name, values in (("ids", ids), ("status", statuses), ("detail", details))
    ]


def _too_long(content: Content, job: Job) -> str:
    return (
        f"{len(content.text):,} characters are more than {job.windows.max} windows of "
        f"{job.windows.tokens} tokens hold"
    )


def valid(column: pa.Array) -> np.ndarray:
    """Where a column is not null."""
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))


def filled(known: pa.StructArray, more: pa.StructArray) -> pa.StructArray:
    """`known`, and where it is null, `more`."""
    return pc.coalesce(known, more) if known.null_count else known


def scattered(column: pa.StructArray, values: pa.StructArray, rows: np.ndarray) -> pa.StructArray:
    """The column with these rows (distinct) replaced."""
    at = np.arange(len(column))
    at[rows] = len(column) + np.arange(len(rows))
    return pa.concat_arrays([column, values]).take(pa.array(at))
