"""Who of an executor's workers holds a GPU.

Spark gives a GPU to a task, and not to the worker that happens to run it: one whose engine is on a
GPU may be idle, or be given another GPU, while a new worker is given this one. A lock on a file for
each GPU says whose it is, for as long as the process lives, and who waits for it leaves word.
"""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from moderay.core.events import event
from moderay.tasks.spark.task import local_folder

# Seconds between two tries for a GPU that another worker holds.
RETRY_S = 0.5


class Claim:
    """Some GPUs, held by this process.

    Attributes:
        descriptors: Of open files: the GPUs are free when no process has them any more.
    """

    def __init__(self, gpus: Sequence[str]) -> None:
        """Wait until all of them are free. `gpus`: their addresses."""
        folder = Path(local_folder() or tempfile.gettempdir())
        # In one order for all, so that no two wait for each other.
        names = [folder / f"moderay-gpu-{quote(gpu, safe='')}" for gpu in sorted(gpus)]
        self._wanted = [name.with_name(f"{name.name}.wanted") for name in names]
        self._files = [name.open("w") for name in names]
        self.descriptors = [file.fileno() for file in self._files]
        for descriptor, wanted in zip(self.descriptors, self._wanted, strict=True):
            _lock(descriptor, wanted)

    def is_wanted(self) -> bool:
        """Whether another worker waits for one of them."""
        return any(wanted.exists() for wanted in self._wanted)

    def release(self) -> None:
        """Leave them to others."""
        for file in self._files:
            fcntl.flock(file, fcntl.LOCK_UN)
            file.close()


def _lock(descriptor: int, wanted: Path) -> None:
    is_told = False
    while not _is_locked(descriptor):
        if not is_told:
            event("waits for a GPU that another worker holds")
            is_told = True
        wanted.touch()
        time.sleep(RETRY_S)
    if is_told:
        wanted.unlink(missing_ok=True)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
