"""A shard of any schema is filtered as it is."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.storage import filesystem, version
from moderay.core.verdicts import Status, Verdict, label_fields, verdict_array
from moderay.labels.decisions import decide, flagged
from moderay.labels.layout import Layout
from moderay.labels.lease import Lease
from moderay.labels.records import ShardMarker, WrittenFile
from moderay.labels.shard_writer import ShardFailedError
from moderay.tasks.filter import shard as filter_shard
from moderay.tasks.filter.shard import FilterRule, Sifting, changed, sift

SPAM = load_policy(ROOT / "policies/spam")


KEEP = "NOT spam.violates"


KINDS = [
    *[
        pa.int64(),
        pa.string(),
        pa.large_binary(),
        pa.decimal128(12, 3),
        pa.timestamp("us", tz="Europe/Berlin"),
        pa.date32(),
        pa.bool_(),
    ],
    *[pa.float32(), pa.binary(3), pa.time64("ns"), pa.duration("ms")],
]


NESTED = st.recursive(
    st.sampled_from(KINDS),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"f{i}", kind) for i, kind in enumerate(kinds)])
        ),
    ),
    max_leaves=4,
)


ALONE = st.sampled_from([pa.dictionary(pa.int32(), pa.string()), pa.uuid()])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(NESTED, ALONE), min_size=1, max_size=4),
    st.integers(0, 30),
    st.randoms(use_true_random=False),
    st.sampled_from(["zstd", "snappy", "none"]),
)
def test_rows_of_any_schema_survive_unchanged(
    tmp_path_factory, kinds: list[pa.DataType], rows: int, rng: Any, codec: str
) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("any")
    fields = [pa.field(f"c{i}", kind, metadata={"of": str(i)}) for i, kind in enumerate(kinds)]
    table = pa.table(
        [array(kind, rows, rng) for kind in kinds],
        schema=pa.schema(fields, metadata={"pandas": "{}", "made by": "a test"}),
    )
    pq.write_table(table, folder / "a.parquet", compression=codec, row_group_size=7)
    source = pq.read_table(folder / "a.parquet")
    verdicts = [
        Verdict(Status.OK, [p, 0.0, 1 - p]) if p < 0.9 else Verdict(Status.EMPTY)
        for p in (rng.random() for _ in range(rows))
    ]
    decisions = decide(verdict_array(verdicts, 0), SPAM.rule)
    out = Layout(str(folder / "out"))
    with Lease(out) as lease:
        sift(sifting(folder, decisions, out, lease.run))
    violates = decisions.field("violates")
    for fate, mask in {
        "kept": pc.invert(violates),
        "removed": violates,
        "held": pc.is_null(violates),
    }.items():
        mask = pc.fill_null(mask, False)
        if fate == "kept" or pc.any(mask).as_py():
            actual = pq.read_table(folder / "out" / fate / "a.parquet")
            mine = actual if fate == "kept" else actual.drop_columns("moderay")
            assert mine.equals(source.filter(mask)) and mine.schema.equals(
                source.schema, check_metadata=True
            )


def test_file_that_changes_after_the_filter_looked_at_it_is_not_filtered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a quiet day"] * 20}), file)
    verdicts = [Verdict(Status.OK, [1.0, 0.0, 0.0])] * 20
    decisions = decide(verdict_array(verdicts, 0), SPAM.rule)
    out = Layout(str(tmp_path / "out"))

    def looked(*known: Any) -> str | None:
        wrong = changed(*known)
        pq.write_table(pa.table({"text": ["claim your prize"] * 20}), file)
        return wrong

    monkeypatch.setattr(filter_shard, "changed", looked)
    with Lease(out) as lease, pytest.raises(ShardFailedError, match=r"a\.parquet changed while"):
        sift(sifting(tmp_path, decisions, out, lease.run))
    assert not (tmp_path / "out/kept").exists()


def sifting(folder: Path, decisions: pa.StructArray, out: Layout, run: int) -> Sifting:
    """Of a.parquet in a folder, which is labelled with these decisions beside it."""
    rows = len(decisions)
    (folder / "labels").mkdir()
    columns = [
        pa.array(range(rows), pa.int64()),
        pa.nulls(rows, pa.string()),
        flagged([decisions]),
        decisions,
    ]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=pa.schema(label_fields([SPAM.rule]))),
        folder / "labels/a.parquet",
    )
    fs, path = filesystem(str(folder / "a.parquet"))
    info = fs.info(path)
    marker = ShardMarker(
        shard="a.parquet",
        source=path,
        identity=("a.parquet", info["size"], version(info)),
        rows=rows,
        label_file=WrittenFile(size=0, version="", digest=""),
        input_rows=rows,
        flagged=0,
        policies={},
        judges={},
        thresholds={"spam": 0.5},
        run=0,
    )
    rule = FilterRule(KEEP, (SPAM.rule,), None, False)
    labels = Layout(str(folder / "labels"))
    return Sifting(rule, labels, out, marker, "0" * 16, "1" * 16, (), run, {})


def array(kind: pa.DataType, rows: int, rng: Any) -> pa.Array:
    """Values of a type, some of them null."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array(kind.storage_type, rows, rng))
    return pa.array([value(kind, rng) for _ in range(rows)], kind)


def value(kind: pa.DataType, rng: Any) -> Any:
    if rng.random() < 0.2:
        return None
    if pa.types.is_list(kind):
        return [value(kind.value_type, rng) for _ in range(rng.randrange(3))]
    if pa.types.is_struct(kind):
        return {field.name: value(field.type, rng) for field in kind}
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        return rng.choice(["a", "", "é\x00"])
    if pa.types.is_fixed_size_binary(kind):
        return rng.randbytes(kind.byte_width)
    if pa.types.is_large_binary(kind):
        return rng.randbytes(rng.randrange(4))
    number = rng.randrange(1000)
    if pa.types.is_boolean(kind):
        return bool(number % 2)
    if pa.types.is_decimal(kind):
        return decimal.Decimal(number).scaleb(-kind.scale)
    if pa.types.is_float32(kind):
        return float(number)
    return pa.scalar(number, pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)
