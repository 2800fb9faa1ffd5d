"""`${VAR}` in a job file: the environment's values, and the days of a nightly scan.

Only a job file is filled in. A policy and its rules may come from others, and could so ask for a
secret of the environment.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from moderay.config.yaml_document import VARIABLE, Document


def fill(
    document: Document, keep: Collection[str] = (), days: Mapping[str, str] | None = None
) -> None:
    """Put the environment's values for `${VAR}`; one that is not set is a problem, and stays.

    Args:
        document: Changed in place.
        keep: Sections whose variables stay as they are written, without being a problem.
        days: DATE and YESTERDAY; by default `nights()`.
    """
    known = {**os.environ, **(nights() if days is None else days)}

    def filled(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {
                name: filled(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()
            }
        if isinstance(value, list):
            return [filled(inner, f"{key}.{i}") for i, inner in enumerate(value)]
        if isinstance(value, str):
            return VARIABLE.sub(_variable(document, key, known), value)
        return value

    document.data.update(
        filled({name: value for name, value in document.data.items() if name not in keep}, "")
    )


def nights() -> dict[str, str]:
    """DATE, today (UTC), and YESTERDAY, the day before DATE; the environment's own come first."""
    date = os.environ.get("DATE", str(datetime.datetime.now(datetime.UTC).date()))
    try:
        before = str(datetime.date.fromisoformat(date) - datetime.timedelta(days=1))
    except ValueError:
        return {"DATE": date}
    return {"DATE": date, "YESTERDAY": os.environ.get("YESTERDAY", before)}


def _variable(
    document: Document, key: str, known: Mapping[str, str]
) -> Callable[[re.Match[str]], str]:
    """The replacement of a variable in the value at `key`."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            document.wrong(
                key,
                f"environment variable {match[1]} is not set",
                f"{match[1]}=... before the command, or --set {key}=...",
            )
        return known.get(match[1], match[0])

    return value
