"""What a machine has run out of: room on a disk, a quota, open files; and disks that only read."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moderay.core.errors import ModerayError, NoRoomError, UserError, first_line

# Full: there is nothing to change in the job, and after room was made the run goes on.
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENFILE: "the machine has no more open files to give",
}
# Settings: of a mount, a file system, a process. They do not change by themselves.
_SETTINGS = (errno.EROFS, errno.EFBIG, errno.EMFILE)
# Errors of the machine that a call is made on: they say nothing about the file or the store, and
# the same call fails again.
OF_THE_MACHINE = frozenset((*_FULL, *_SETTINGS))


# What the names of folders for files in the making begin with.
_SCRATCH = "moderay-"


class DiskError(OSError):
    """An error of a disk that says where and for how many bytes.

    Attributes:
        folder: Where it was to be written.
        needed: Bytes that were to be written; None where that is not known.
    """

    folder = ""
    needed: int | None = None


@contextmanager
def on_disk(folder: str | os.PathLike[str], needed: int | None = None) -> Iterator[None]:
    """What is written in here is written below a folder of this machine.

    Args:
        folder: The folder, which need not be there yet.
        needed: How many bytes are written, where that is known.

    Raises:
        DiskError: The machine's limits (`OF_THE_MACHINE`) are met; other errors pass as they are.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        located = DiskError(error.errno, error.strerror)
        located.folder = os.fspath(folder)
        located.needed = needed
        raise located from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this machine for files in the making; gone with them afterwards.

    Raises:
        UserError: No folder for such files can be written.
        DiskError: The disk is full.
    """
    try:
        with on_disk(tempfile.gettempdir()):
            folder = tempfile.TemporaryDirectory(prefix=_SCRATCH)
    except FileNotFoundError as error:  # none of the folders that Python tries
        raise UserError(
            f"{os.uname().nodename}: no folder for temporary files can be written "
            f"({first_line(error)}): make room there, or have TMPDIR name one"
        ) from None
    with folder as name:
        yield Path(name)


def exhausted(url: str, error: BaseException) -> ModerayError | None:
    """What to say where a machine met its limits.

    Args:
        url: What was read or written, as it may be shown; empty where that is not known.
        error: What was raised.

    Returns:
        None where that is not the trouble.
    """
    if not isinstance(error, OSError) or error.errno not in OF_THE_MACHINE:
        return None
    folder = _folder(url, error)
    host = os.uname().nodename
    where = f"{folder or url or 'a disk'} on {host}"
    if error.errno in _FULL:
        needed = error.needed if isinstance(error, DiskError) else None
        room = _room(folder, needed) if folder and error.errno != errno.ENFILE else ""
        return NoRoomError(f"{where}: {_FULL[error.errno]}{room}; {_way_out(folder)}")
    if error.errno == errno.EROFS:
        return UserError(
            f"{where} is read-only: mount it so that it can be written, or name another folder"
        )
    if error.errno == errno.EFBIG:
        return UserError(
            f"{where}: a file may not be that large there: it is a limit of the file system, or of "
            "`ulimit -f`"
        )
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UserError(
        f"{where}: this process may open no more than {most:,} files at once: raise it "
        "(`ulimit -n 65536`) where Ray and the run are started"
    )


def _way_out(folder: str) -> str:
    """Scratch files may go elsewhere; an output may not."""
    is_scratch = tempfile.tempdir and folder.startswith(f"{tempfile.tempdir}/{_SCRATCH}")
    other = ", or have TMPDIR name another disk" if is_scratch else ""
    return f"make room{other}: what is complete is saved, and the same command goes on"


def _folder(url: str, error: OSError) -> str:
    """The folder of this machine that an error is about; empty where it is none."""
    if isinstance(error, DiskError):
        return error.folder
    if isinstance(error.filename, str):
        return os.path.dirname(error.filename)
    return url.removeprefix("file://") if "://" not in url.removeprefix("file://") else ""


def _room(folder: str, needed: int | None) -> str:
    """How much of the folder's disk is free."""
    while not os.path.isdir(folder) and (above := os.path.dirname(folder)) != folder:
        folder = above
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return f" ({first_line(error)})"
    wanted = f", and {size_text(needed)} more are needed" if needed else ""
    if disk.f_files and not disk.f_favail:
        return f": it can hold no more files (0 of {disk.f_files:,} inodes are free)"
    free, total = (blocks * disk.f_frsize for blocks in (disk.f_bavail, disk.f_blocks))
    return f": {size_text(free)} of {size_text(total)} are free{wanted}"


def size_text(count: int) -> str:
    """A number of bytes for people."""
    if count >= 1e9:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"
