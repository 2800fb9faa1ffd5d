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

from moderay.core.errors import ModerayError, UserError, first_line, inert
from moderay.core.redaction import shown

_package = logging.getLogger("moderay")
_events = logging.getLogger("moderay.events")
_events.addHandler(logging.NullHandler())  # where nobody records events, none is shown
_events.propagate = False  # a handler of the root logger, as Ray has one, would show them
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

    Raises:
        UserError: The file cannot be opened.
    """
    _run.update(job=job, run=run)
    handler = None if file is None else _recording(_event_file(file))
    try:
        yield
    except ModerayError as error:
        event("run stopped", logging.ERROR, reason=str(error))
        raise
    finally:
        if handler is not None:
            for logger in (_package, _events):
                logger.removeHandler(handler)
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


class _EventFile(logging.FileHandler):
    """Events in a file; where no more can be written, the run goes on and says so once."""

    _is_full = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the library's name)
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._give_up(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # of what was left in its buffer
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self._is_full:
            self._is_full = True
            note = f"note: no more events are written to {self.baseFilename}: {first_line(error)}"
            print(inert(note), file=sys.stderr, flush=True)


def _event_file(file: Path) -> logging.Handler:
    try:
        return _EventFile(file, encoding="utf-8")
    except OSError as error:
        raise UserError(f"events cannot be written to {file}: {first_line(error)}") from None


def _recording(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(_JsonLines())
    for logger in (_package, _events):
        logger.addHandler(handler)
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
