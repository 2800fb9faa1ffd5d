"""A machine that has run out of something: what a person is told, and that nobody tries again."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from fsspec.implementations.local import LocalFileSystem
from support.endpoint import served_beside

from moderay.core.errors import ModerayError, NoRoomError, UserError
from moderay.core.storage import (
    create,
    filesystem,
    on_disk,
    patiently,
    plain_errors,
    put_bytes,
    put_file,
    retries,
    scratch_folder,
)
from moderay.core.storage.disks import DiskError, exhausted
from moderay.core.storage.retries import is_passing

FULL = "/dev/full"
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no /dev/full")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """No file of this process may be longer, as on a file system with such a limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], LocalFileSystem]:
    """A disk that runs out of something as what was written is to stay on it."""

    def with_error(number: int) -> LocalFileSystem:
        def refuse(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse)
        return LocalFileSystem()

    return with_error


def sentence(url: str, error: BaseException) -> ModerayError:
    """What a person is told of an error on the way to `url`."""
    with pytest.raises(ModerayError) as caught, plain_errors(url):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("number", "kind", "status", "text"),
    [
        (errno.ENOSPC, NoRoomError, 3, "the disk is full: "),
        (errno.EDQUOT, NoRoomError, 3, "the disk quota is used up: "),
        (errno.ENFILE, NoRoomError, 3, "no more open files to give; "),
        (errno.EROFS, UserError, 2, "is read-only: mount it"),
        (errno.EFBIG, UserError, 2, "a file may not be that large there"),
        (errno.EMFILE, UserError, 2, "files at once: raise it (`ulimit -n 65536`)"),
    ],
)
def test_limit_of_a_machine_is_a_sentence_with_what_to_do(
    tmp_path: Path, number: int, kind: type[ModerayError], status: int, text: str
) -> None:
    told = sentence(str(tmp_path), OSError(number, os.strerror(number)))
    assert type(told) is kind and told.exit_status == status
    assert text in str(told) and f"{tmp_path} on {os.uname().nodename}" in str(told)
    assert "does not answer" not in str(told) and "\n" not in str(told)


def test_full_disk_says_how_much_is_free_and_how_much_is_needed(
    tmp_path: Path, full_disk: Callable[[int], LocalFileSystem]
) -> None:
    fs, scratch = full_disk(errno.ENOSPC), tmp_path / "out/_moderay/tmp"
    with pytest.raises(NoRoomError) as caught, plain_errors(str(tmp_path / "out")):
        put_bytes(fs, str(tmp_path / "out/a.json"), bytes(2_500_000), str(scratch))
    disk = os.statvfs(tmp_path)
    total = disk.f_blocks * disk.f_frsize / 1e9
    assert f"of {total:,.1f} GB are free, and 2.5 MB more are needed" in str(caught.value)
    assert str(scratch) in str(caught.value) and "goes on" in str(caught.value)
    assert list(scratch.iterdir()) == [], "half a file is in the way of whoever makes room"
    assert not (tmp_path / "out/a.json").exists()


def test_label_file_that_does_not_fit_leaves_nothing_behind(
    tmp_path: Path, full_disk: Callable[[int], LocalFileSystem]
) -> None:
    local = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"row": range(1000)}), local)
    fs, scratch = full_disk(errno.EDQUOT), tmp_path / "out/_moderay/tmp"
    with pytest.raises(DiskError) as caught:
        put_file(fs, str(local), str(tmp_path / "out/labels.parquet"), str(scratch))
    assert caught.value.needed == local.stat().st_size
    assert list(scratch.iterdir()) == [] and not (tmp_path / "out/labels.parquet").exists()


@needs_full
@pytest.mark.parametrize("writer", ["file", "parquet", "fsspec"])
def test_full_device_is_known_whoever_writes(writer: str) -> None:
    def write() -> None:
        if writer == "file":
            with open(FULL, "wb") as file:
                file.write(b"1")
        elif writer == "parquet":
            with pq.ParquetWriter(FULL, pa.schema([("a", pa.int64())])) as into:
                into.write_table(pa.table({"a": range(10)}))
        else:
            LocalFileSystem().pipe_file(FULL, b"1")

    full = pytest.raises(NoRoomError, match="the disk is full")
    with full, plain_errors("s3://bucket/out"), on_disk("/dev"):
        write()


def test_scratch_disk_is_named_and_not_the_output(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    full = pytest.raises(NoRoomError)
    with full as caught, plain_errors("s3://a/out"), scratch_folder() as folder, on_disk(folder):
        raise error
    assert f"{folder} on " in str(caught.value) and "s3://" not in str(caught.value)
    assert "or have TMPDIR name another disk" in str(caught.value) and not folder.exists()


def test_no_folder_for_scratch_files_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where every disk that Python tries is full or read-only."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    refused = pytest.raises(UserError, match="have TMPDIR name one")
    with refused, plain_errors("s3://bucket/out"), scratch_folder():
        pass


def test_real_limit_on_file_sizes_reaches_the_person(tmp_path: Path) -> None:
    fs, path = filesystem(str(tmp_path / "out/a.json"))
    refused = pytest.raises(UserError, match="`ulimit -f`")
    with refused, plain_errors(str(tmp_path / "out")), file_size_limit(1000):
        put_bytes(fs, path, bytes(5000), str(tmp_path / "out/_moderay/tmp"))
    assert list((tmp_path / "out/_moderay/tmp").iterdir()) == []


def test_claim_that_does_not_fit_is_no_claim(tmp_path: Path) -> None:
    fs, path = filesystem(str(tmp_path / "epoch-0"))
    with file_size_limit(10), pytest.raises(DiskError):
        create(fs, path, bytes(5000))
    assert list(tmp_path.iterdir()) == []


def test_real_limit_on_open_files_is_no_storage_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    fs, path = filesystem(str(tmp_path / "a"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    with pytest.raises(UserError, match="may open no more than"), plain_errors(str(tmp_path)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        taken = []
        try:
            with pytest.raises(OSError, match="Too many"):
                while True:
                    taken.append(os.dup(0))
            fs.cat_file(path)
        finally:
            for number in taken:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("kind", [NotADirectoryError, IsADirectoryError, FileExistsError])
def test_file_where_a_folder_must_be_is_the_persons_to_mend(
    kind: type[OSError], tmp_path: Path
) -> None:
    told = sentence(str(tmp_path), kind(20, "Not a directory"))
    assert isinstance(told, UserError) and "move it away, or name another path" in str(told)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE])
def test_nobody_tries_again_what_fails_again(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retries._RETRYING, "sleep", pauses.append)
    error = OSError(number, os.strerror(number))

    def call() -> None:
        raise error

    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        patiently(object(), call)
    assert caught.value is error and pauses == [] and not is_passing(error)


def test_what_a_disk_said_arrives_from_a_worker(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught, on_disk(tmp_path, 17):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert (arrived.errno, arrived.folder, arrived.needed) == (errno.ENOSPC, str(tmp_path), 17)
    assert str(exhausted("s3://bucket", arrived)) == str(exhausted("s3://bucket", caught.value))


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    for error in (FileNotFoundError(2, "none"), OSError(errno.EIO, "broken"), ValueError("a bug")):
        with pytest.raises(type(error)) as caught, on_disk(tmp_path):
            raise error
        assert caught.value is error and exhausted(str(tmp_path), error) is None


async def full_store(request: web.Request) -> web.Response:
    """An S3 store that takes nothing more, as MinIO answers when its drives are full."""
    await request.read()
    body = "<Error><Code>XMinioStorageFull</Code><Message>Please delete some</Message></Error>"
    return web.Response(status=507, text=body, content_type="application/xml")


def test_full_store_is_told_as_full_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retries._RETRYING, "sleep", pauses.append)
    full = pytest.raises(NoRoomError, match="the store is full")
    with served_beside(full_store) as url:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }.items():
            monkeypatch.setenv(name, value)
        fs, path = filesystem("s3://full/out/a.json")
        with full as caught, plain_errors("s3://full/out"):
            put_bytes(fs, path, b"{}", "s3://full/out/tmp")
    assert "Please delete some" in str(caught.value) and pauses == []
