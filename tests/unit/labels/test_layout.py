"""Where files lie, whatever the input's names hold; and which marker speaks of which label file."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderay.labels.layout import (
    SLOTS,
    Layout,
    MarkerName,
    list_state,
    shard_name,
    slot,
    state_name,
)
from moderay.labels.records import ShardMarker, WrittenFile

KEY, DECISION = "0" * 16, "1" * 16
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=90
)
shards = st.lists(names, min_size=1, max_size=3).map("/".join)
HOSTILE = [
    "a\nb.parquet",
    f"{'n' * 230}.parquet",
    f"{'é' * 120}.parquet",
    "a.parquet::x.parquet",
    "..%2fa.parquet",
    "%2e%2e/a.parquet",
    "../../a.parquet",
    "a~b.parquet",
    "lang=de/part 0 of #2?.parquet",
    os.fsdecode(b"\xff\xfe.parquet"),
    f"a-{KEY}-{DECISION}-3-{KEY}.json",
    "tmp/0-10-0123456789abcdef.arrow",
]


def marker(shard: str, run: int = 0) -> ShardMarker:
    return ShardMarker(
        shard=shard,
        identity=(shard, 9, "v"),
        source="in",
        input_rows=1,
        rows=1,
        label_file=WrittenFile(size=1, version="", digest=""),
        flagged=0,
        policies={},
        judges={},
        thresholds={},
        run=run,
    )


@given(shards, shards)
def test_names_of_state_differ_and_fit_every_file_system(one: str, other: str) -> None:
    escaped = state_name(one)
    assert (state_name(other) == escaped) == (other == one)
    assert escaped.isascii() and escaped.isprintable()
    for part in escaped.split("/"):
        assert 0 < len(part) <= 120 and part.strip(".") and not {*part} & {*'\\:*?"<>|#'}
    assert shard_name(escaped) in (one, None)
    assert 0 <= slot(one) < SLOTS


@pytest.mark.parametrize("shard", HOSTILE)
def test_state_of_a_hostile_name_is_found_again(tmp_path: Path, shard: str) -> None:
    layout = Layout(str(tmp_path / "out"))
    name = MarkerName(KEY, DECISION, 3, KEY)
    if "\udcff" in shard:  # JSON is UTF-8: such a name stands in no marker, and is no shard's
        assert shard_name(state_name(shard)) == shard
        return
    assert layout.create(layout.marker(shard, name), marker(shard).to_json())
    layout.write(layout.unit(shard, (0, 10), KEY), b"")
    state = list_state(layout)
    assert state.markers == {shard: (name,)}
    assert state.units_of(shard) == {KEY: ((0, 10),)}
    inside = (tmp_path / "out/_moderay").resolve()
    assert all(inside in file.resolve().parents for file in tmp_path.rglob("*") if file.is_file())


def test_marker_that_speaks_of_the_file_that_is_there_counts(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "out"))
    layout.write(layout.label("a.parquet"), b"labels")
    stamp = list_state(layout).stamps["a.parquet"]
    stale = MarkerName(KEY, DECISION, 7, "f" * 16)
    true = [MarkerName(KEY, DECISION, run, stamp) for run in (3, 5)]
    for name in (stale, *true):
        layout.write(layout.marker("a.parquet", name), marker("a.parquet", name.run).to_json())
    assert list_state(layout).published("a.parquet") == true[1]
    layout.write(layout.label("a.parquet"), b"other labels")
    assert list_state(layout).published("a.parquet") is None
    Path(layout.label("a.parquet")).unlink()
    assert list_state(layout).published("a.parquet") is None


def test_other_files_in_the_folder_are_nobodys_labels(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "out"))
    layout.write(layout.label("README.md"), b"mine")
    layout.write(layout.label("sub/notes.txt"), b"mine too")
    state = list_state(layout)
    assert not state.markers and not state.units
    assert state.stamps.keys() == {"README.md", "sub/notes.txt"}
