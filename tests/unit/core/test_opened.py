"""A file that is read by ranges is one file, whatever is put in its place meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moderay.core.errors import TryAgainError
from moderay.core.storage import (
    ChangedError,
    FileState,
    RemoteFile,
    details,
    filesystem,
    plain_errors,
    version,
)

FIRST = b"first " * 1000
OTHER = b"other " * 1000


def listed(fs: Any, path: str) -> FileState:
    info = details(fs, path)
    return FileState(info["size"], version(info), info.get("ctime_ns"))


def moved_in(path: Path) -> None:
    """Another file of the same size and time, put in the file's place."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(OTHER)
    path.rename(path.with_name("away"))
    other.rename(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def written_in_place(path: Path) -> None:
    before = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut_short(path: Path) -> None:
    os.truncate(path, 100)


@pytest.mark.parametrize("change", [moved_in, written_in_place, cut_short])
def test_local_file_that_changed_since_it_was_listed_is_not_read(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(FIRST)
    fs, name = filesystem(str(path))
    state = listed(fs, name)
    with RemoteFile(fs, name, state) as file:
        assert file.read() == FIRST
    change(path)
    with RemoteFile(fs, name, state) as file, pytest.raises(ChangedError, match="same command"):
        file.read(10)


def test_local_file_that_is_moved_away_and_back_gives_no_byte_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FIRST)
    fs, name = filesystem(str(path))
    with RemoteFile(fs, name) as file:
        parts = [file.read(1000)]
        moved_in(path)
        parts.append(file.read(1000))
        (tmp_path / "away").rename(path)
        parts.append(file.read())
    assert b"".join(parts) == FIRST


def test_local_file_that_is_written_to_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FIRST)
    fs, name = filesystem(str(path))
    with RemoteFile(fs, name, listed(fs, name)) as file:
        assert file.read(1000) == FIRST[:1000]
        written_in_place(path)
        with pytest.raises(ChangedError):
            file.read(1000)


@pytest.mark.parametrize("other", [OTHER, OTHER[:100]])
def test_object_that_is_replaced_while_it_is_read_is_noticed(bucket: str, other: bytes) -> None:
    fs, path = filesystem(f"{bucket}/file")
    fs.pipe_file(path, FIRST)
    state = listed(fs, path)
    with RemoteFile(fs, path, state) as file:
        assert file.read(1000) == FIRST[:1000] and state.version and state.ctime_ns is None
        fs.pipe_file(path, other)
        with pytest.raises(ChangedError):
            file.read(1000)
    with RemoteFile(fs, path, state) as file, pytest.raises(ChangedError):
        file.read()
    fs.pipe_file(path, FIRST)  # the same bytes are the same version
    with RemoteFile(fs, path, state) as file:
        assert file.read() == FIRST
    fs.rm_file(path)
    with RemoteFile(fs, path, state) as file, pytest.raises(FileNotFoundError):
        file.read()


def test_change_is_told_as_one_and_not_as_a_store_that_does_not_answer() -> None:
    with pytest.raises(TryAgainError) as caught, plain_errors("s3://bucket/file"):
        raise ChangedError("changed while it was read: run the same command again")
    assert str(caught.value) == (
        "s3://bucket/file changed while it was read: run the same command again"
    )


def test_file_of_any_other_store_is_looked_up_after_each_read() -> None:
    fs, path = filesystem("memory://opened/file")
    fs.pipe_file(path, FIRST)
    with RemoteFile(fs, path) as file:
        assert file.read(1000) == FIRST[:1000]
        fs.pipe_file(path, OTHER)
        with pytest.raises(ChangedError):
            file.read(1000)
