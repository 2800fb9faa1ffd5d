"""The index of verdicts: what it finds, what it forgets, and that nothing is taken that does not
lie there.
"""

import asyncio
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.storage import remove
from moderay.core.verdicts import ROW, Status, Verdict, label_fields, unit_schema, verdict_array
from moderay.corpus.content import content_hash
from moderay.judges.glance import Band
from moderay.labels.decisions import decide, flagged
from moderay.labels.earlier_outputs import LabelFile
from moderay.labels.index import Index
from moderay.labels.index_loading import start_loading
from moderay.labels.label_file import file_version, run_note
from moderay.labels.layout import Layout
from moderay.labels.lookup import Payloads
from moderay.labels.partition import File, Hits, Partition, Source, hash_keys, hits, policy_masks
from moderay.labels.reuse import entries
from moderay.labels.unit_file import unit_bytes

POLICIES = ("harassment", "spam")
KEY = "0123456789abcdef"
OK = Status.OK


def hashes_of(texts: Sequence[str | None]) -> list[str | None]:
    return [None if text is None else content_hash([text]) for text in texts]


def verdict(
    text: str, status: Status = OK, decided_by: str = "reason", violates: float = 0.2
) -> Verdict:
    scores = [1 - violates, 0.0, violates]
    return Verdict(
        status,
        scores if status is OK else None,
        rationale=text,
        answer="SP2",
        decided_by=decided_by,
        origin="judged",
        windows=1,
    )


def unit_of(
    rows: Sequence[int], texts: Sequence[str | None], given: dict[str, list[Verdict]]
) -> pa.Table:
    columns = [verdict_array(given[policy], 3) for policy in given]
    return pa.Table.from_arrays(
        [pa.array(rows, pa.int64()), pa.array(hashes_of(texts), pa.string()), *columns],
        schema=unit_schema(given),
    )


def save_unit(layout: Layout, shard: str, start: int, end: int, unit: pa.Table) -> None:
    rows = (start, end)
    layout.write(layout.unit(shard, rows, KEY), unit_bytes(unit, rows))


def publish(layout: Layout, shard: str, unit: pa.Table, run: int = -1, groups: int = 7) -> None:
    """The label file of a judged unit, with an input column carried over."""
    policies = [name for name in unit.schema.names if name in POLICIES]
    spam = load_policy(ROOT / "policies/spam").rule
    rules = [replace(spam, policy=name) for name in policies]
    decisions = [decide(unit.column(rule.policy).combine_chunks(), rule) for rule in rules]
    columns = [unit.column(0), unit.column(0), unit.column(1), flagged(decisions), *decisions]
    table = pa.Table.from_arrays(
        columns, schema=pa.schema([pa.field("n", pa.int64()), *label_fields(rules)])
    )
    Path(layout.label(shard)).parent.mkdir(parents=True, exist_ok=True)
    noted = table.replace_schema_metadata(run_note(run))
    pq.write_table(noted, layout.label(shard), row_group_size=groups)


def found_in(
    folder: File, texts: Sequence[str | None], rows: Sequence[int], masks: Sequence[int]
) -> Hits:
    """Hits as an index would give them that has heard just this."""
    count = len(texts)
    return Hits(
        hashes_of(texts),
        (folder,),
        np.zeros(count, np.int64),
        np.array(rows, np.int64),
        np.array(masks, np.uint64),
    )


def rationales(column: pa.StructArray) -> list[str | None]:
    return [None if value is None else value["rationale"] for value in column.to_pylist()]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "out"))


@pytest.fixture
def spread(joined_ray: None) -> Callable[[int], Index]:
    partition = ray.remote(Partition).options(num_cpus=0, max_restarts=-1)
    return lambda count: Index([partition.remote() for _ in range(count)], POLICIES)


def soon(is_true: Callable[[], bool]) -> bool:
    """Killing and coming back take a moment."""
    last = time.monotonic() + 60
    while not (now := is_true()) and time.monotonic() < last:
        time.sleep(0.1)
    return now


keys = st.integers(0, 40)
batch = st.lists(
    st.tuples(keys, st.integers(0, 2**33 - 1).map(lambda n: n >> 1), st.integers(1, 7)), max_size=30
)


@settings(deadline=None)
@given(batches=st.lists(batch, max_size=25), request=st.lists(st.integers(0, 60), max_size=30))
def test_partition_finds_the_newest_entry_with_the_most_policies(
    batches: list[list[tuple[int, int, int]]], request: list[int]
) -> None:
    partition, oracle = Partition(), dict[int, tuple[File, int, int]]()
    spaced = np.uint64(2**57)
    for number, rows in enumerate(batches):
        folder = File(Source(0, f"shard-{number % 3}", KEY), number, number + 1)
        columns = np.array(rows, np.uint64).reshape(-1, 3)
        partition.add(folder, columns[:, 0] * spaced, columns[:, 1], columns[:, 2])
        for key, row, mask in rows:
            if key not in oracle or mask.bit_count() >= oracle[key][2].bit_count():
                oracle[key] = (folder, row, mask)
    actual = partition.find(np.array(request, np.uint64) * spaced)
    got = {
        int(at): (actual.files[file], int(row), int(mask))
        for at, file, row, mask in zip(actual.at, actual.file, actual.row, actual.mask, strict=True)
    }
    assert got == {at: oracle[key] for at, key in enumerate(request) if key in oracle}


def test_entries_of_a_hundred_thousand_rows_cost_less_than_forty_bytes_each() -> None:
    partition, rng = Partition(), np.random.default_rng(0)
    for start in range(0, 100_000, 100):
        folder = File(Source(0, "date=2026-11-20/part-000.parquet", KEY), start, start + 100)
        partition.add(
            folder,
            rng.integers(0, 2**64, 100, np.uint64),
            np.arange(start, start + 100),
            np.ones(100, np.uint64),
        )
    size = partition.size()
    assert size.entries == 100_000 and size.bytes <= 100_000 * 25
    assert len(pickle.dumps(partition)) < 100_000 * 40


@settings(deadline=None)
@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(0, 5))
def test_key_is_the_first_half_of_a_hash(hashes: list[bytes], skip: int) -> None:
    column = pa.array([value.hex() for value in hashes], pa.string()).slice(skip)
    assert hash_keys(column).tolist() == [
        int.from_bytes(value[:8], "big") for value in hashes[skip:]
    ]


@pytest.mark.parametrize("text", ["", "ab", "z" * 32, "0" * 31, "ä" * 16])
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        hash_keys(pa.array([text]))


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=70))
def test_masks_hold_the_first_64_policies(columns: list[list[bool]]) -> None:
    masks = policy_masks([np.array(column) for column in columns], 3)
    assert [
        [bool(int(mask) >> bit & 1) for mask in masks] for bit in range(min(64, len(columns)))
    ] == columns[:64]


def test_index_over_actors_finds_what_units_added(spread, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    index: Index = spread(3)
    texts: list[str | None] = [None if i % 10 == 0 else f"text {i}" for i in range(200)]
    status = [Status.TIMEOUT if i % 3 == 0 else OK for i in range(200)]
    given = {
        name: [verdict(name, state if name == "spam" else OK) for state in status]
        for name in POLICIES
    }
    source = Source(0, "a.parquet", KEY)
    index.wait(index.add_unit(source, (0, 200), unit_of(range(200), texts, given)))
    hit = index.find([*hashes_of(texts), *hashes_of(["new", None])])
    assert [
        int(row) if file >= 0 else None for file, row in zip(hit.file, hit.row, strict=True)
    ] == [None if text is None else i for i, text in enumerate(texts)] + [None, None]
    assert hit.files == (File(source, 0, 200),)
    assert [int(m) for m in hit.mask[:4]] == [0, 0b11, 0b11, 0b01] and int(hit.mask[-1]) == 0
    assert index.find([]).files == () and index.find([None]).file.tolist() == [-1]


def test_index_answers_in_a_thread_of_an_asyncio_actor(spread, layout: Layout) -> None:  # type: ignore[no-untyped-def]
    class Judge:
        async def known(self, index: Index, hashes: list[str | None]) -> list[int]:
            actual: list[int] = (await asyncio.to_thread(index.find, hashes)).row.tolist()
            return actual

    index = spread(2)
    texts: list[str | None] = ["a", "b", "c"]
    index.wait(
        index.add(
            File(Source(0, "a")),
            pa.array(hashes_of(texts)),
            np.array([5, 6, 7]),
            np.ones(3, np.uint64),
        )
    )
    judge = ray.remote(Judge).options(num_cpus=0).remote()
    assert ray.get(judge.known.remote(index, hashes_of(["c", "a"]))) == [7, 5]
    ray.kill(judge)


@pytest.mark.parametrize("comes_back", [False, True])
def test_lost_partition_gives_no_hits_and_no_error(spread, monkeypatch, comes_back: bool) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("moderay.labels.index.QUIET_S", 1.0)
    index = spread(2)
    texts: list[str | None] = [f"text {i}" for i in range(100)]
    column, rows, masks = pa.array(hashes_of(texts)), np.arange(100), np.ones(100, np.uint64)
    index.wait(index.add(File(Source(0, "a")), column, rows, masks))
    upper = np.array([hash is not None and hash[0] in "89abcdef" for hash in hashes_of(texts)])
    assert np.array_equal(index.find(hashes_of(texts)).row, rows) and 0 < upper.sum() < 100

    def known() -> list[bool]:
        actual: list[bool] = (index.find(hashes_of(texts)).file >= 0).tolist()
        return actual

    def told_again() -> bool:
        index.wait(index.add(File(Source(0, "b")), column, rows, masks))
        return all(known())

    ray.kill(index.partitions[0], no_restart=not comes_back)
    assert soon(lambda: known() == upper.tolist())
    if comes_back:
        assert soon(told_again)
    else:
        assert not told_again() and known() == upper.tolist()


def test_partition_that_does_not_answer_gives_no_hits_and_is_left_alone(
    spread, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    class Hanging(Partition):
        def find(self, keys: Any) -> Any:
            time.sleep(60)

    monkeypatch.setattr("moderay.labels.index.ANSWER_S", 0.5)
    hanging = ray.remote(Hanging).options(num_cpus=0).remote()
    index = Index([hanging, *spread(1).partitions], POLICIES)
    texts: list[str | None] = [f"text {i}" for i in range(50)]
    index.wait(
        index.add(
            File(Source(0, "a")), pa.array(hashes_of(texts)), np.arange(50), np.ones(50, np.uint64)
        )
    )
    upper = [hash is not None and hash[0] in "89abcdef" for hash in hashes_of(texts)]
    for _ in range(2):
        assert (index.find(hashes_of(texts)).file >= 0).tolist() == upper
    ray.kill(hanging)


def test_verdicts_are_read_from_the_unit_and_then_from_the_label_file(layout: Layout) -> None:
    source = Source(0, "a.parquet", KEY, 5)
    rows = range(
        3, 63, 2
    )  # as with `where`: the position in the input is not the place in the file
    texts: list[str | None] = [f"text {i}" for i in rows]
    unit = unit_of(rows, texts, {name: [verdict(f"{name} {i}") for i in rows] for name in POLICIES})
    save_unit(layout, "a.parquet", 0, 70, unit)
    request: list[str | None] = ["text 61", "text 3", "text 31", "text 3"]
    hit = found_in(File(source, 0, 70), request, [61, 3, 31, 3], [3, 3, 1, 2])
    expected = {
        "harassment": ["harassment 61", "harassment 3", "harassment 31", None],
        "spam": ["spam 61", "spam 3", None, "spam 3"],
    }
    reader = Payloads([layout], POLICIES)
    from_unit = reader.read(hit)
    assert {name: rationales(column) for name, column in from_unit.items()} == expected
    publish(layout, "a.parquet", unit, run=5)
    remove(layout.fs, layout.unit("a.parquet", (0, 70), KEY))
    for later in (reader, Payloads([layout], POLICIES)):
        from_labels = later.read(hit)
        assert {name: column.to_pylist() for name, column in from_labels.items()} == {
            name: column.to_pylist() for name, column in from_unit.items()
        }
    assert {value["origin"] for value in from_labels["spam"].to_pylist() if value} == {"duplicate"}
    assert [value["run"] for value in from_labels["spam"].to_pylist() if value] == [3, 3, 3]


def test_label_file_of_another_run_is_not_believed(layout: Layout) -> None:
    publish(
        layout,
        "a.parquet",
        unit_of([0], ["text"], {"spam": [verdict("another judge's")]}),
        run=4,
    )
    source = Source(0, "a.parquet", KEY, 5)
    assert Payloads([layout], ["spam"]).read(found_in(File(source, 0, 9), ["text"], [0], [1]))[
        "spam"
    ].to_pylist() == [None]


def test_verdicts_of_several_outputs_come_in_the_order_asked_for(tmp_path: Path) -> None:
    outputs = [Layout(str(tmp_path / name)) for name in ("one", "two")]
    partition, answers = Partition(), []
    texts: list[str | None] = [f"text {i}" for i in range(60)]
    for number, layout in enumerate(outputs):
        for folder, shard in enumerate(("a.parquet", "day=1/b.parquet")):
            mine = [i for i in range(60) if i % 4 == 2 * number + folder]
            publish(
                layout,
                shard,
                unit_of(
                    range(len(mine)),
                    [texts[i] for i in mine],
                    {"spam": [verdict(f"said {i}") for i in mine]},
                ),
            )
            for source, hashes, rows, masks in entries(
                layout, LabelFile(number, shard, {"spam": {"reason": None}}), ["spam"]
            ):
                partition.add(File(source), hash_keys(hashes), rows, masks)
    request = [texts[i] for i in (59, 1, 30, 2, 1)]
    answers.append((np.arange(5), partition.find(hash_keys(pa.array(hashes_of(request))))))
    read = Payloads(outputs, ["spam"]).read(hits(hashes_of(request), answers))["spam"]
    assert rationales(read) == ["said 59", "said 1", "said 30", "said 2", "said 1"]
    assert {value["origin"] for value in read.to_pylist()} == {"reused"}


@pytest.mark.parametrize("published", [False, True])
@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 12),
            st.sampled_from([OK, Status.TIMEOUT, Status.EMPTY]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_only_this_very_content_with_status_ok_is_taken(
    tmp_path_factory, published: bool, request: list[tuple[int, int, Status]]
) -> None:  # type: ignore[no-untyped-def]
    """Whatever an index says: rows with other contents, rows that are not there, rows that were not
    judged.
    """
    layout = Layout(str(tmp_path_factory.mktemp("out")))
    texts: list[str | None] = [None if i == 9 else f"text {i % 4}" for i in range(10)]
    states = [OK if i == 9 else request[i % len(request)][2] for i in range(10)]
    unit = unit_of(
        range(10), texts, {"spam": [verdict(f"said {i}", state) for i, state in enumerate(states)]}
    )
    if published:
        publish(layout, "a.parquet", unit, run=5, groups=3)
    else:
        save_unit(layout, "a.parquet", 0, 10, unit)
    hit = found_in(
        File(Source(0, "a.parquet", KEY, 5), 0, 10),
        [f"text {text}" for text, _, _ in request],
        [row for _, row, _ in request],
        [1] * len(request),
    )
    read = Payloads([layout], ["spam"]).read(hit)["spam"]
    true = [
        f"said {row}" if row < 9 and row % 4 == text and states[row] is OK else None
        for text, row, _ in request
    ]
    assert rationales(read) == true


@pytest.mark.parametrize("break_it", ["gone", "garbage", "again", "empty"])
def test_label_file_that_is_not_what_was_indexed_gives_nothing(
    layout: Layout, break_it: str
) -> None:
    unit = unit_of([0, 1], ["a", "b"], {"spam": [verdict("said a"), verdict("said b")]})
    publish(layout, "a.parquet", unit)
    source = Source(0, "a.parquet", version=file_version(layout, "a.parquet"))
    hit = found_in(File(source), ["a", "b"], [0, 1], [1, 1])
    reader, file = Payloads([layout], ["spam"]), Path(layout.label("a.parquet"))
    assert rationales(reader.read(hit)["spam"]) == ["said a", "said b"]
    if break_it == "gone":
        file.unlink()
    elif break_it == "garbage":
        file.write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    elif break_it == "empty":
        publish(layout, "a.parquet", unit.slice(2))
    else:
        # The same contents in the same rows, of another judge.
        publish(
            layout,
            "a.parquet",
            unit_of(
                [0, 1], ["a", "b"], {"spam": [verdict("another says a"), verdict("another says b")]}
            ),
        )
    assert Payloads([layout], ["spam"]).read(hit)["spam"].to_pylist() == [None, None]


def test_unit_that_cannot_be_read_gives_nothing(layout: Layout) -> None:
    layout.write(layout.unit("a.parquet", (0, 5), KEY), b"ARROW1 and then nothing")
    reader = Payloads([layout], POLICIES)
    read = reader.read(
        found_in(File(Source(0, "a.parquet", KEY), 0, 5), ["a", None], [0, 1], [3, 3])
    )
    assert {name: column.to_pylist() for name, column in read.items()} == {
        name: [None, None] for name in POLICIES
    }


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["rules", "glance", "reason"]),
            st.floats(0, 1, width=32),
            st.sampled_from([OK, Status.UNPARSED]),
        ),
        max_size=20,
    ),
    st.sampled_from([None, Band(), Band(below=0.25), Band(above=0.75), Band(0.25, 0.75)]),
)
def test_only_verdicts_of_allowed_judges_outside_their_bands_are_indexed(
    tmp_path_factory, rows, band
) -> None:  # type: ignore[no-untyped-def]
    layout = Layout(str(tmp_path_factory.mktemp("out")))
    given = {
        name: [verdict(name, status, judge, p) for judge, p, status in rows] for name in POLICIES
    }
    publish(
        layout,
        "a.parquet",
        unit_of(range(len(rows)), [f"text {i}" for i in range(len(rows))], given),
    )
    file = LabelFile(
        0, "a.parquet", {"spam": {"glance": band, "reason": None}, "absent": {"reason": None}}
    )
    masks = [
        int(mask) for *_, part in entries(layout, file, ["absent", *POLICIES]) for mask in part
    ]
    sure = [
        judge == "reason" or (judge == "glance" and (band is None or band.settles(p)))
        for judge, p, _ in rows
    ]
    assert masks == [
        0b100 if fits and status is OK else 0
        for fits, (_, _, status) in zip(sure, rows, strict=True)
    ]


def test_earlier_outputs_load_into_an_index_and_say_what_they_could_not_read(
    spread, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    index, layout = spread(2), Layout(str(tmp_path / "earlier"))
    names = [f"part-{number}.parquet" for number in range(20)]
    for number, name in enumerate(names):
        texts: list[str | None] = [f"text {number} {i}" for i in range(10)]
        publish(
            layout,
            name,
            unit_of(range(10), texts, {"spam": [verdict(text or "") for text in texts]}),
        )
    Path(layout.label("part-3.parquet")).write_text("no label file")
    pq.write_table(pa.table({ROW.name: [0]}), layout.label("part-4.parquet"))
    loading = start_loading(
        index,
        [layout],
        [LabelFile(0, name, {"spam": {"reason": None}}) for name in [*names, "missing.parquet"]],
    )
    loading.wait()
    loaded = loading.so_far()
    assert loaded.rows == 180 and set(loaded.unreadable) == {
        "part-3.parquet",
        "part-4.parquet",
        "missing.parquet",
    }
    request: list[str | None] = ["text 7 9", "text 3 0", "text 19 0", "new"]
    read = Payloads([layout], POLICIES).read(index.find(hashes_of(request)))
    assert (
        rationales(read["spam"]) == ["text 7 9", None, "text 19 0", None]
        and rationales(read["harassment"]) == [None] * 4
    )
