"""An engine in a process of its own: it can neither draw over a page nor hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pyarrow as pa

from moderay.core.errors import ErrorMessage, ModerayError, TryAgainError
from moderay.judges.cascade import Cascade
from moderay.tasks.workbench.messages import (
    Cancel,
    Judged,
    JudgeRows,
    Message,
    Started,
    StartEngine,
    next_message,
    opened_pipe,
    packed,
)

# Seconds in which an engine may end by itself.
CLOSE_S = 5.0


class EngineGoneError(TryAgainError):
    """The engine's process ended."""


class EngineProcess:
    """A live engine elsewhere.

    Attributes:
        max_model_len: Tokens of the longest prompt with its answer.
        started: Done when the engine is warm; or why it is not.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, answers: int, max_model_len: int, log: Path
    ) -> None:
        """`start` makes one."""
        self._process = process
        self._log = log
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[pa.Table]] = {}
        self.max_model_len = max_model_len
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting for it when it fails.
        self.started.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._reading = asyncio.create_task(self._read(answers))

    @classmethod
    async def start(cls, request: StartEngine, log: Path) -> Self:
        """Begin to start an engine.

        Args:
            request: Which one.
            log: The file that what it prints is added to.
        """
        reading, writing = os.pipe()
        try:
            with log.open("ab") as file:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "moderay.tasks.workbench.engine_host", str(writing)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    pass_fds=[writing],
                    # Ctrl-C in the terminal is not for it, and its own processes end with it.
                    start_new_session=True,
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        engine = cls(process, reading, request.max_model_len, log)
        await engine._send(request)
        return engine

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended, or was never good for anything."""
        failed = self.started.done() and self.started.exception() is not None
        return failed or self._reading.done()

    async def judge(self, cascades: Sequence[Cascade], rows: pa.Table) -> pa.Table:
        """Judge rows (`prepare.prepared`), as `judge_unit` does.

        Raises:
            EngineGoneError: The process ended.
            ModerayError: What a person must mend.
        """
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._send(JudgeRows(number, cascades, rows))
            return await answer
        except asyncio.CancelledError:
            await self._send(Cancel(number))
            raise
        finally:
            del self._waiting[number]

    async def _send(self, message: Message) -> None:
        if self._reading.done():
            raise self._gone()
        assert self._process.stdin is not None, "a pipe, as it was started"
        self._process.stdin.write(packed(message))
        with contextlib.suppress(ConnectionError):  # `_read` sees the end too, and tells everybody
            await self._process.stdin.drain()

    async def _read(self, answers: int) -> None:
        stream = await opened_pipe(answers)
        while (message := await next_message(stream)) is not None:
            if isinstance(message, Started):
                _resolve(self.started, message.error and self._with_log(message.error))
            elif isinstance(message, Judged) and message.number in self._waiting:
                _resolve(self._waiting[message.number], message.outcome)
        for waiting in (self.started, *self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(self._gone())

    def _with_log(self, error: ErrorMessage) -> ErrorMessage:
        """An error with where more stands about it, if anything does."""
        if not has_text(self._log):
            return error
        return error._replace(text=f"{error.text}; what it wrote is in {self._log}")

    def _gone(self) -> EngineGoneError:
        return EngineGoneError(f"the engine's process ended; what it wrote is in {self._log}")

    async def close(self) -> None:
        """End it, with all that it started."""
        assert self._process.stdin is not None, "a pipe, as it was started"
        self._process.stdin.close()
        if self.started.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), CLOSE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading


def has_text(log: Path) -> bool:
    """Whether something stands in a log, which somebody may have tidied away."""
    return log.exists() and log.stat().st_size > 0


def _resolve(
    waiting: asyncio.Future[pa.Table] | asyncio.Future[None],
    outcome: pa.Table | ErrorMessage | None,
) -> None:
    if waiting.done():
        return
    if isinstance(outcome, ErrorMessage):
        waiting.set_exception(ModerayError.restored(outcome))
    else:
        waiting.set_result(outcome)
