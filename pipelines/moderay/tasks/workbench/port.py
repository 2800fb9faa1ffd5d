"""Where a served workbench is met: a port of loopback, and the file with its token."""

from __future__ import annotations

import os
from pathlib import Path

HOST = "127.0.0.1"


def token_file(port: int) -> Path:
    """Where the token for a port lies."""
    cache = Path(os.environ.get("MODERAY_CACHE") or Path.home() / ".cache/moderay")
    return cache / "ports" / str(port)
