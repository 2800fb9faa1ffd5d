"""Whether a folder can be written is seen by writing there, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import AS_ANYBODY

from moderay.core.errors import ModerayError, UserError
from moderay.core.storage import assert_writable, filesystem


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("path", ["out", "a/b/c/out", "there", "there/", "there/deep"])
def test_nothing_is_left_behind_on_a_disk(path: str, tmp_path: Path) -> None:
    (tmp_path / "there/_moderay").mkdir(parents=True)
    before = tree(tmp_path)
    assert_writable(str(tmp_path / path), {}, "_moderay")
    assert tree(tmp_path) == before


def test_nothing_is_left_behind_in_a_store(bucket: str) -> None:
    assert_writable(f"{bucket}/labels/", {}, "_moderay")
    fs, path = filesystem(bucket)
    fs.invalidate_cache()
    assert fs.find(path) == []


@pytest.mark.parametrize("path", ["file", "file/labels", "there"])
def test_file_in_the_way_is_named(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/_moderay").write_text("x")
    with pytest.raises(UserError, match="is a file, and must be a folder"):
        assert_writable(str(tmp_path / path), {}, "_moderay")
    assert (tmp_path / "file").read_text() == "x"


def test_missing_bucket_is_named(bucket: str) -> None:
    with pytest.raises(UserError, match="no-such-bucket/labels: no such bucket or folder"):
        assert_writable("s3://no-such-bucket/labels", {}, "_moderay")


PROBE = """
import sys
from moderay.core.errors import ModerayError
from moderay.core.storage import assert_writable
try:
    assert_writable(sys.argv[1], {}, "_moderay")
except ModerayError as error:
    print(error)
"""


def test_folder_that_this_user_may_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir(mode=0o555)
    command = [*AS_ANYBODY, sys.executable, "-c", PROBE, str(tmp_path / "labels/x")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "labels cannot be written: you have no right to" in result.stdout, result.stderr
    assert tree(tmp_path) == ["labels"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(
    ("mount", "word"),
    [(["-o", "ro"], "read-only"), (["-o", "size=4k,nr_inodes=1"], "full")],
)
def test_disk_that_only_reads_or_is_full_says_so(
    mount: list[str], word: str, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs "$@" none "$DISK" && {sys.executable} -c \'{PROBE}\' "$DISK/labels" 0'
    result = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "bash", *mount],
        env=os.environ | {"DISK": str(tmp_path / "disk")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if result.returncode:
        pytest.skip(f"no mounts here: {result.stderr}")
    assert word in result.stdout, result.stdout


def test_store_that_lets_nothing_be_removed_says_so(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("AccessDenied")

    monkeypatch.setattr("moderay.core.storage.probe.remove", refuse)
    with pytest.raises(ModerayError, match="can be written, but nothing removed there"):
        assert_writable(bucket, {}, "_moderay")


def test_option_that_a_store_does_not_take_and_the_web_are_refused(bucket: str) -> None:
    for options in ({"colour": 1}, {"client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}):
        with pytest.raises(UserError, match=r"does not take the option .* see storage: in the job"):
            assert_writable(bucket, options, "_moderay")
    with pytest.raises(UserError, match="can be read and not written"):
        assert_writable("https://127.0.0.1:9/labels", {}, "_moderay")
