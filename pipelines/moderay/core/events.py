"""What happens in a run, as JSON lines: an event each, with its job and run, and the shard and unit
it happened to.

Workers write them to stderr, which Ray keeps in its session's log folder; the driver to the file of
`run --progress`. Names, figures and reasons, never contents or secrets.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from moderay.core.errors import ModerayError

_package = logging.getLogger("moderay")
_events = logging.getLogger("moderay.events")
_events.addHandler(logging.NullHandler())  # where nobody records events, none is shown
_about: ContextVar[dict[str, Any]] = ContextVar("_about", default={})  # noqa: B039 (never changed in place)
_run: dict[str, Any] = {}  # of this process
_stderr: logging.Handler | None = None


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Record one. `fields` must be JSON, and nothing that a stranger may not read."""
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
    """In the driver: its events are of this run, and are added to `file`; what ends the run is one
    of them.
    """
    _of(job, run)
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
    global _stderr
    _of(job, run)
    _about.set(fields)
    _stderr = _stderr or _recording(logging.StreamHandler(sys.stderr))


def _of(job: str, run: int) -> None:
    _run.update(job=job, run=run)


def _recording(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(_JsonLines())
    _package.addHandler(handler)
    _package.setLevel(logging.INFO)
    return handler


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = (
            {"event": record.msg, **record.__dict__["fields"]}
            if record.name == _events.name
            else {"event": "message", "text": record.getMessage()}
        )
        return json.dumps(
            {"time": round(record.created, 1), "level": record.levelname.lower(), **_run, **said},
            default=str,
        )
