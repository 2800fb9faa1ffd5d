"""Values of any input column, as JSON can hold them."""

from __future__ import annotations

import math
from typing import Any

from pydantic import JsonValue


def plain(value: Any) -> JsonValue:
    """A value of a carried column: itself where JSON knows it, else as people write it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value)
