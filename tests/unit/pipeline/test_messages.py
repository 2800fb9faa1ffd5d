"""Messages between the stages: what is sent is what arrives, in the schema that is declared."""

import os
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import ROOT

from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.core.errors import ErrorMessage, StoppedError, TryAgainError, UserError
from moderay.core.verdicts import Origin, Status, Verdict, verdict_array
from moderay.corpus.content import Content, texts
from moderay.corpus.shard import Shard
from moderay.judges.glance import Band
from moderay.labels.earlier_outputs import LabelFile
from moderay.labels.partition import Source
from moderay.pipeline.messages.spans import SPAN, Reading, Span, readings, span_table
from moderay.pipeline.messages.units import (
    ENDED,
    UnitDone,
    UnitRead,
    ended_table,
    message_schema,
    prepared_schema,
    unit_read,
    unit_table,
    units_done,
)
from moderay.pipeline.stages.prepare import (
    POSITION,
    audited,
    known,
    prepared,
    under_all,
    with_known,
)
from moderay.tasks.embedded_job import job_cascades

ranges = st.tuples(st.integers(0, 10**12), st.integers(0, 10**12))
counts = st.dictionaries(st.text(max_size=5), st.integers(0, 10**12), max_size=3)
probabilities = st.none() | st.floats(0, 1)
bands = st.none() | st.builds(Band, probabilities, probabilities)
label_files = st.builds(
    LabelFile,
    st.integers(0, 300),
    st.text(),
    st.dictionaries(st.text(max_size=5), st.dictionaries(st.text(max_size=5), bands, max_size=3)),
)
schemas = st.none() | st.just(pa.schema([pa.field("text", pa.string()), ("n", pa.int64())]))
shards = st.builds(
    Shard,
    url=st.text(),
    name=st.text(),
    size=st.integers(0, 2**60),
    version=st.text(),
    row_groups=st.lists(st.integers(0, 10**12), max_size=3).map(tuple),
    content_bytes=st.integers(0, 2**60),
    conversation=st.booleans(),
    partitions=st.lists(st.tuples(st.text(), st.text()), max_size=2).map(tuple),
    schema=schemas,
    store=st.text(),
    path=st.text() | st.binary().map(os.fsdecode),
    ctime_ns=st.none() | st.integers(0, 2**62),
)
numbers = st.integers(1, 10**12)
spans = st.builds(Span, shards, ranges, numbers, st.lists(ranges, max_size=3).map(tuple), numbers)
errors = st.builds(ErrorMessage, st.text(), st.text(), st.integers(0, 3))
dones = st.builds(
    UnitDone,
    shard=st.text(),
    rows=ranges,
    selected=st.integers(0, 10**12),
    counts=st.dictionaries(st.text(max_size=5), counts, max_size=3),
    flagged=st.integers(0, 10**12),
    reused=st.integers(0, 10**12),
    restarts=st.integers(0, 10),
    usage=counts,
    error=st.none() | st.text(),
    fatal=st.none() | errors,
    skipped=st.booleans(),
    gate=st.none() | st.text(),
)


@given(
    st.lists(
        st.builds(
            Reading,
            spans,
            st.text(),
            st.integers(0, 2**15),
            st.lists(label_files, max_size=2).map(tuple),
        ),
        max_size=3,
    )
)
def test_a_span_arrives_as_it_was_sent(sent: list[Reading]) -> None:
    table = span_table(sent)
    assert table.schema == SPAN
    assert list(readings(table)) == sent


@given(dones)
def test_the_end_of_a_unit_arrives_as_it_was_sent(done: UnitDone) -> None:
    table = ended_table(done)
    assert table.schema == ENDED
    assert units_done(table) == [done]


@given(dones)
def test_a_unit_that_has_ended_takes_its_end_along(done: UnitDone) -> None:
    sent = UnitRead(Source(0, done.shard, "key", 7), done.rows, None, done)
    block = unit_table(sent, ["spam", "hate"])
    assert block.schema == message_schema(["spam", "hate"])
    assert unit_read(block) == sent


@pytest.mark.parametrize("error", [UserError("a"), TryAgainError("b"), StoppedError("c", 1)])
def test_an_error_that_ends_the_run_is_raised_as_what_it_was(error: Any) -> None:
    (done,) = units_done(ended_table(UnitDone("a", (0, 5), fatal=error.message)))
    with pytest.raises(type(error), match=str(error)) as raised:
        done.raise_fatal()
    assert raised.value.exit_status == error.exit_status


JOB = Job.model_validate(
    {
        "input": {"path": "", "content": "text"},
        "output": {"path": ""},
        "policies": ["spam", "harassment"],
        "windows": {"tokens": 64, "overlap": 8, "max": 2},
        "cascade": ["rules", {"glance": {"below": 0.1, "above": 0.9}}, "reason"],
        "audit": 0.5,
    }
)
POLICIES = [load_policy(ROOT / "policies" / name) for name in ("spam", "harassment")]
IDS = [policy.id for policy in POLICIES]
CASCADES = job_cascades(JOB, POLICIES)
VOCABULARY = CASCADES[0].last.safeguard.vocab


def rows_of(contents: list[Content]) -> pa.Table:
    numbers = pa.table({POSITION: pa.array(range(len(contents)), pa.int64())})
    return prepared(numbers, contents, JOB, CASCADES, VOCABULARY)


@given(st.lists(st.none() | st.text() | st.just("word " * 500), max_size=12))
def test_what_is_prepared_has_always_the_same_schema(values: list[str | None]) -> None:
    column = pa.chunked_array([pa.array(values, pa.string())])
    table = rows_of(texts(column))
    assert table.schema == prepared_schema(IDS)
    sent = UnitRead(Source(0, "a", "key", 7), (0, len(values)), table)
    block = unit_table(sent, IDS)
    assert block.schema == message_schema(IDS)
    arrived = unit_read(block)
    assert arrived.table is not None and arrived.table.equals(table)
    assert arrived.table.schema == table.schema
    assert (arrived.source, arrived.rows, arrived.done) == (sent.source, sent.rows, None)


def test_a_unit_of_a_golden_set_arrives_with_its_policy_in_the_schema_of_all() -> None:
    contents = texts(pa.chunked_array([["one", None, "word " * 500]]))
    numbers = pa.table({POSITION: pa.array([4, 7, 9], pa.int64())})
    alone = prepared(numbers, contents, JOB, CASCADES[1:], VOCABULARY)
    table = under_all(alone, IDS)
    assert table.schema == prepared_schema(IDS)
    assert table.select(alone.column_names).equals(alone)
    assert known(table, "spam").null_count == 3 and not audited(table, "spam").any()
    sent = UnitRead(Source(0, "golden set of harassment"), (4, 10), table, gate="harassment")
    arrived = unit_read(unit_table(sent, IDS))
    assert (arrived.gate, arrived.rows, arrived.source) == ("harassment", (4, 10), sent.source)
    assert arrived.table is not None and arrived.table.equals(table)


def test_an_empty_unit_and_one_in_chunks_arrive() -> None:
    table = rows_of(texts(pa.chunked_array([["one", None, "three"]])))
    for sent in (table.slice(0, 0), pa.concat_tables([table, table.slice(1, 1), table])):
        arrived = unit_read(unit_table(UnitRead(Source(0, "a"), (0, 9), sent), IDS)).table
        assert arrived is not None and arrived.equals(sent)


def test_known_verdicts_are_added_where_there_is_none() -> None:
    table = rows_of(texts(pa.chunked_array([["one", "two", "three"]])))
    verdict = Verdict(Status.OK, [0.9, 0.1], answer="SP0", origin=Origin.REUSED)
    none = pa.nulls(1, verdict_array([verdict], 0).type)
    more = pa.concat_arrays([none, verdict_array([verdict], 0), none])
    filled = with_known(table, {"spam": more})
    assert filled.schema == prepared_schema(IDS)
    assert [row is not None for row in known(filled, "spam").to_pylist()] == [False, True, False]
    assert known(filled, "harassment").null_count == 3
    assert not audited(filled, "spam").any()
