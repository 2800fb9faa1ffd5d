"""New files, none of which takes the place of another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from moderay.core.errors import Problem, Problems
from moderay.core.storage import plain_errors


def filled(template: str, **values: str) -> str:
    """A template of this folder with its `$names` filled in."""
    text = (files("moderay.tasks.init") / "templates" / template).read_text(encoding="utf-8")
    return Template(text).substitute(values) if values else text


def create(new: Mapping[Path, str]) -> list[Path]:
    """Write new files, and the folders that they need.

    Returns:
        What was created, folders before what is in them.

    Raises:
        Problems: Something of one of these names is there already; nothing is written then.
        UserError: A folder cannot be written.
    """
    taken = [
        Problem(str(file), None, "is there already", "move it away, or name another folder")
        for file in new
        if os.path.lexists(file)
    ]
    if taken:
        raise Problems(taken)
    created: list[Path] = []
    try:
        for file, text in new.items():
            with plain_errors(str(file)):
                for folder in reversed([f for f in file.parents if not f.exists()]):
                    folder.mkdir()
                    created.append(folder)
                # Not even what came meanwhile is overwritten.
                with file.open("x", encoding="utf-8", newline="\n") as stream:
                    created.append(file)
                    stream.write(text)
    except BaseException:
        remove(created)
        raise
    return created


def remove(created: list[Path]) -> None:
    """Take back what `create` created."""
    for path in reversed(created):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
