"""A coverage plugin: the lines that have run are saved every second.

Ray ends its workers by a signal that Python never sees, so none of them could save at its end.
"""

import threading
import time
from typing import Any

from coverage import Coverage

SECONDS = 1.0


def coverage_init(registry: Any, options: dict[str, str]) -> None:
    """Called by coverage in each process that it begins in."""
    threading.Thread(target=_save, name="coverage saver", daemon=True).start()


def _save() -> None:
    while True:
        time.sleep(SECONDS)
        coverage = Coverage.current()
        if coverage is not None:
            coverage.save()
