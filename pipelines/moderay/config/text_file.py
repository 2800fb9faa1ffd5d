"""Files that people write, or have from others, read within bounds."""

from __future__ import annotations

from pathlib import Path

from moderay.core.errors import Problem, Problems

# Characters of a job file, of a policy and of its rules. The longest in use have some ten thousand.
LONGEST = 2**20


def read_text(path: Path, longest: int = LONGEST, hint: str = "") -> str:
    """A file's text in UTF-8, without a byte order mark.

    Args:
        path: The file. No more than `longest` of it is read, so it may be a device.
        longest: Characters it may have.
        hint: What to do where it has more.

    Raises:
        FileNotFoundError: There is no such file.
        Problems: It cannot be read, or is longer.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(longest + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no name of a file
        raise Problems([Problem(str(path), None, f"cannot be read: {error}")]) from None
    if len(text) > longest:
        raise Problems([Problem(str(path), None, f"longer than {longest:,} characters", hint)])
    return text
