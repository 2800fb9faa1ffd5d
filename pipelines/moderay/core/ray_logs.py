"""What Ray says at length: never on a terminal, always in a file that our sentence names."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from moderay.core.errors import ModerayError, first_line
from moderay.core.ray_loss import RayLostError
from moderay.core.redaction import shown


class RayTaskFailedError(ModerayError):
    """Something that nobody expected was raised in a task or an actor: a bug, here or elsewhere."""


def logs_folder() -> Path | None:
    """Where the Ray that this process is connected to logs on this machine; None without one."""
    node: Any = ray._private.worker._global_node
    if node is None:
        return None
    folder = Path(node.get_logs_dir_path())
    return folder if folder.is_dir() else None


@contextmanager
def told_with_logs() -> Iterator[None]:
    """What Ray raises in here, as a sentence that names where the full text lies.

    Raises:
        RayLostError: as it was raised in here.
        RayTaskFailedError: instead of any other error of Ray's, whose text is a traceback.
    """
    folder = logs_folder()
    try:
        yield
    except RayLostError as error:
        raise RayLostError(f"{error}; {_full_text(error, folder)}") from error
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise RayTaskFailedError(
            f"a task failed as nobody expected: {type(cause).__name__}: {first_line(cause)}; what "
            f"is complete is saved; {_full_text(error, folder)}"
        ) from error


def _full_text(error: Exception, folder: Path | None) -> str:
    """Write an error down with its traceback; where it lies, for people."""
    folder = folder or logs_folder() or Path(tempfile.gettempdir())
    file = folder / f"moderay-{os.getpid()}.log"
    text = shown("".join(traceback.format_exception(error)))
    try:
        with file.open("a", encoding="utf-8") as log:
            log.write(text)
    except OSError as full:
        return f"Ray's logs are in {folder} (no traceback could be written there: {full.strerror})"
    return f"the full text is in {file}, beside Ray's own logs"
