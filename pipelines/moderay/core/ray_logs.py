"""What Ray says at length: never on a terminal, always in a file that our sentence names."""

from __future__ import annotations

import os
import re
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

# How Ray colours its texts.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


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
        where = _full_text(error, folder)
        if (reason := _in_constructor(error)) is not None:
            raise RayTaskFailedError(_unexpected(reason, where)) from error
        raise RayLostError(f"{_COLOUR.sub('', str(error))}; {where}") from error
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = f"{type(cause).__name__}: {_COLOUR.sub('', first_line(cause))}"
        raise RayTaskFailedError(_unexpected(reason, _full_text(error, folder))) from error


def _in_constructor(error: RayLostError) -> str | None:
    """What an actor raised as it was made; None where it died otherwise.

    Ray hands that on as the text of a traceback alone, after whose frames, which are indented, the
    error stands.
    """
    died = error.__cause__
    while died is not None and not isinstance(died, ray.exceptions.ActorDiedError):
        died = getattr(died, "cause", None) or died.__cause__
    if died is None or not died.actor_init_failed:
        return None
    lines = _COLOUR.sub("", str(died)).splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    told = lines[frames[-1] + 1 :] if frames else lines
    return next((line for line in told if line.strip()), None)


def _unexpected(reason: str, where: str) -> str:
    return f"a task failed as nobody expected: {shown(reason)}; what is complete is saved; {where}"


def _full_text(error: Exception, folder: Path | None) -> str:
    """Write an error down with its traceback; where it lies, for people."""
    folder = folder or logs_folder() or Path(tempfile.mkdtemp(prefix="moderay-"))
    file = folder / f"moderay-{os.getpid()}.log"
    text = shown("".join(traceback.format_exception(error)))
    try:
        with file.open("a", encoding="utf-8") as log:
            log.write(text)
    except OSError as full:
        return f"Ray's logs are in {folder} (no traceback could be written there: {full.strerror})"
    return f"the full text is in {file}, beside Ray's own logs"
