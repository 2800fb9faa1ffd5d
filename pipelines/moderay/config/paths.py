"""Paths in a job file: relative to the file's folder, absolute in the `Job`.

The types here resolve a path while the job is validated with `context=beside(folder)`. Without a
context, as where a `Job` is made in Python, paths stay as they are.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

# What begins `model.source` where a file of scripted answers stands for a model.
SCRIPTED = "scripted:"
# What begins the path or URL of a Delta table's folder.
_DELTA = "delta://"
_FOLDER = "folder"


def beside(folder: Path) -> dict[str, Any]:
    """The validation context of a job file in this folder, which is absolute."""
    return {_FOLDER: folder}


def absolute_path(path: str, folder: Path) -> str:
    """A path as seen from a folder; URLs and what begins with an unfilled `${VAR}` stay."""
    if path.startswith(_DELTA) and len(path) > len(_DELTA):
        return _DELTA + absolute_path(path.removeprefix(_DELTA), folder)
    if "://" in path or path.startswith("${"):
        return path
    return os.path.normpath(folder / path)


def absolute_source(source: str, folder: Path) -> str:
    """`model.source` as seen from a folder.

    A hub id looks like a relative path: it is one only where there is such a folder, or where it
    begins with a dot or a slash.
    """
    if source.startswith(SCRIPTED):
        return SCRIPTED + str(folder / source.removeprefix(SCRIPTED))
    if source == "tiny":
        return source
    is_path = source.startswith((".", "/")) or (
        "://" not in source and os.path.isdir(folder / source)
    )
    return str(folder / source) if is_path else source


def _resolved(resolve: Callable[[str, Path], str]) -> AfterValidator:
    def validate(value: str, info: ValidationInfo) -> str:
        context: Mapping[str, Any] = info.context or {}
        return resolve(value, context[_FOLDER]) if _FOLDER in context else value

    return AfterValidator(validate)


JobPath = Annotated[str, _resolved(absolute_path)]
ModelSource = Annotated[str, _resolved(absolute_source)]
