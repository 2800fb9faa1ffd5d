"""Files that people write, or have from others, read within bounds."""

from __future__ import annotations

import codecs
from pathlib import Path

from moderay.core.errors import Problem, Problems

# Characters of a job file, of a policy and of its rules. The longest in use have some ten thousand.
LONGEST = 2**20
# Of a character in UTF-8.
_MOST_BYTES = 4
# Bytes in which what is no text mostly has a zero.
_BEGINNING = 1000


def read_text(path: Path, longest: int = LONGEST, hint: str = "", pipes: bool = False) -> str:
    """A file's text in UTF-8, without a byte order mark.

    Args:
        path: The file. No more than `longest` of it is read, so it may be a device.
        longest: Characters it may have.
        hint: What to do where it has more.
        pipes: Whether it may be a pipe, on which this waits for whoever writes to it.

    Raises:
        FileNotFoundError: There is no such file.
        Problems: It cannot be read, or is longer.
    """
    try:
        if not pipes and path.is_fifo():
            raise ValueError("it is a pipe, not a file")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES * longest + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a pipe, or no name of a file
        raise Problems([Problem(str(path), None, f"cannot be read: {_why_not(error)}")]) from None
    too_long = len(data) > _MOST_BYTES * longest
    text = "" if too_long else _decoded(path, data)
    if too_long or len(text) > longest:
        raise Problems([Problem(str(path), None, f"longer than {longest:,} characters", hint)])
    if "\0" in text[:_BEGINNING]:
        raise _no_text(path)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _why_not(error: OSError | ValueError) -> str:
    match error:
        case IsADirectoryError():
            return "it is a folder, not a file"
        case NotADirectoryError():
            return "a part of its path is a file, not a folder"
        case PermissionError():
            return "permission denied"
        case OSError():
            return str(error.strerror or error).lower()
    return str(error)


def _no_text(path: Path) -> Problems:
    message = "cannot be read: it is no text in UTF-8"
    return Problems([Problem(str(path), None, message, "name another file, or save it as UTF-8")])


def _decoded(path: Path, data: bytes) -> str:
    """Bytes as UTF-8, without a byte order mark. Raises `Problems` with the line of a wrong one."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = "cannot be read: it is UTF-16, not UTF-8"
        raise Problems([Problem(str(path), None, message, "save it as UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data[:_BEGINNING]:
            raise _no_text(path) from None
        line = data.count(b"\n", 0, error.start) + 1
        message = f"cannot be read: byte 0x{data[error.start]:02x} is no UTF-8"
        raise Problems([Problem(str(path), line, message, "save it as UTF-8")]) from None
