"""The chain of manifests: the last one counts, and two writers come one after the other."""

import threading
import uuid
from pathlib import Path

import pytest

from moderay.core.records import RecordRefusedError
from moderay.labels.layout import Layout
from moderay.labels.manifest_record import Manifest, RunRecord, Selection
from moderay.labels.manifest_store import (
    KEPT,
    append_manifest,
    manifest_numbers,
    manifest_path,
    outputs,
    read_manifest,
)


@pytest.fixture(params=["folder", "s3"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    if request.param == "folder":
        return Layout(str(tmp_path / "out"))
    return Layout(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}")


def with_another_run(before: Manifest | None) -> Manifest:
    runs = before.runs if before else ()
    return Manifest(
        name="test",
        complete=False,
        cascade_key="",
        selection=Selection(content="text", where=None, sample=None),
        policies={},
        runs=(*runs, RunRecord(run=len(runs), status="finished")),
    )


def test_what_writers_add_at_once_is_all_there(layout: Layout) -> None:
    def write() -> None:
        for _ in range(6):
            append_manifest(layout, with_another_run)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    last = read_manifest(layout)
    assert last is not None and [run.run for run in last.runs] == list(range(24))
    numbers = manifest_numbers(layout)
    assert numbers[-1] == 24 and len(numbers) == KEPT


def test_late_writer_does_not_overwrite(layout: Layout) -> None:
    append_manifest(layout, with_another_run)
    calls = []

    def slow(before: Manifest | None) -> Manifest:
        calls.append(before)
        if len(calls) == 1:  # another driver writes while this one sleeps
            append_manifest(layout, with_another_run)
        return with_another_run(before)

    append_manifest(layout, slow)
    last = read_manifest(layout)
    assert last is not None and [run.run for run in last.runs] == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b'{"schema_version": 2}'])
def test_broken_manifest_is_a_sentence_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    layout = Layout(str(tmp_path / "out"))
    first = append_manifest(layout, with_another_run)
    layout.write(manifest_path(layout, 2), content)
    with pytest.raises(RecordRefusedError, match=r"manifest-2\.json is damaged .*: .*delete it"):
        read_manifest(layout)
    Path(manifest_path(layout, 2)).unlink()
    assert read_manifest(layout) == first


def test_outputs_are_the_folders_with_manifests(tmp_path: Path) -> None:
    for name in ("date=1", "date=2"):
        for _ in range(2):
            append_manifest(Layout(str(tmp_path / name)), with_another_run)
    (tmp_path / "date=3").mkdir()
    assert outputs(str(tmp_path / "date=*"), {}) == [
        str(tmp_path / name) for name in ("date=1", "date=2")
    ]
