"""What happens in a run, as JSON lines.

A line is an event, with its job and run, and the shard and unit it happened to. Workers write them
to stderr, which Ray keeps in its session's log folder; the driver to the file of `run --progress`.
Names, figures and reasons, never contents or secrets.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from moderay.core.errors import ModerayError
from moderay.core.redaction import shown

_package = logging.getLogger("moderay")
_events = logging.getLogger("moderay.events")
_events.addHandler(logging.NullHandler())  # where nobody records events, none is shown
_about: ContextVar[dict[str, Any]] = ContextVar("_about", default={})  # noqa: B039 (never changed in place)
_run: dict[str, Any] = {}  # of this process


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Record an event.

    Args:
        name: What happened, such as "unit saved".
        level: Of the standard library's logging.
        fields: More about it: JSON, and nothing that a stranger may not read.
    """
    _events.log(level, name, extra={"fields": {**_about.get(), **fields}})


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Events in here, and in tasks and threads begun in here, are about this: `shard`, `unit`."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


@contextmanager
def of_run(job: str, run: int, file: Path | None) -> Iterator[None]:
    """In the driver: its events are of this run, and are added to `file`.

    A `ModerayError` that ends the run is one of them.
    """
    _run.update(job=job, run=run)
    handler = None if file is None else _recording(logging.FileHandler(file, encoding="utf-8"))
    try:
        yield
    except ModerayError as error:
        event("run stopped", logging.ERROR, reason=str(error))
        raise
    finally:
        if handler is not None:
            _package.removeHandler(handler)
            handler.close()


def in_worker(job: str, run: int, **fields: Any) -> None:
    """In a task or actor: its events are of this run and about this, and go to stderr."""
    _run.update(job=job, run=run)
    _about.set(fields)
    _to_stderr()


@functools.cache
def _to_stderr() -> logging.Handler:
    """Once in each process, however many tasks it runs."""
    return _recording(logging.StreamHandler(sys.stderr))


def _recording(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(_JsonLines())
    _package.addHandler(handler)
    _package.setLevel(logging.INFO)
    return handler


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if record.name == _events.name:
            message = {"event": record.msg, **record.__dict__["fields"]}
        else:
            message = {"event": "message", "text": record.getMessage()}
        head = {"time": round(record.created, 1), "level": record.levelname.lower()}
        return shown(json.dumps({**head, **_run, **message}, default=str))
