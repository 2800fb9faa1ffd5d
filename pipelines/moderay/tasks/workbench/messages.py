"""What goes between the workbench and the process of its engine: pickles, each with its length."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import ErrorMessage
from moderay.judges.cascade import Cascade

# Bytes of the length before each message.
_HEAD = 8


@dataclass(frozen=True)
class StartEngine:
    """The first message: which engine.

    Attributes:
        job: For its model.
        max_model_len: Tokens of the longest prompt with its answer.
    """

    job: Job
    max_model_len: int


@dataclass(frozen=True)
class Started:
    """The engine is warm, or cannot be built.

    Attributes:
        error: Why it cannot.
    """

    error: ErrorMessage | None = None


@dataclass(frozen=True)
class JudgeRows:
    """Rows to judge.

    Attributes:
        number: Of the request.
        cascades: Under which policies.
        rows: As `prepare.prepared` gives them.
    """

    number: int
    cascades: Sequence[Cascade]
    rows: pa.Table


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for a request any more.

    Attributes:
        number: Of the request.
    """

    number: int


@dataclass(frozen=True)
class Judged:
    """What a request came to.

    Attributes:
        number: Of the request.
        outcome: Rows of `verdicts.unit_schema`, or an error.
    """

    number: int
    outcome: pa.Table | ErrorMessage


Message = StartEngine | Started | JudgeRows | Cancel | Judged


def packed(message: Message) -> bytes:
    """A message with its length before it."""
    data = pickle.dumps(message)
    return len(data).to_bytes(_HEAD) + data


async def opened_pipe(reading: int) -> asyncio.StreamReader:
    """The end of a pipe from which messages are read; it is closed where they end."""
    stream = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(stream)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(reading, "rb"))
    return stream


async def next_message(stream: asyncio.StreamReader) -> Message | None:
    """The next message; None where the other process has ended."""
    try:
        size = int.from_bytes(await stream.readexactly(_HEAD))
        message: Message = pickle.loads(await stream.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return message
