"""The process of a workbench's engine: messages in on its input, and out on a pipe of their own.

Its output is a log, for whatever the engine and its libraries print.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
import time
import traceback
from functools import partial

from cachetools import LRUCache

from moderay.core.errors import ModerayError, TryAgainError, first_line
from moderay.engines.base import (
    Counted,
    EngineDeadError,
    EngineSpec,
    Request,
    RequestFailedError,
)
from moderay.engines.from_job import engine_here
from moderay.engines.host import EngineHost
from moderay.engines.vllm.engine import VllmSpec
from moderay.judges.cascade import Cascade
from moderay.pipeline.stages.judge_unit import judge_unit
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

# Seconds in which it may end in good order.
CLOSE_S = 5.0
# Seconds for asking a warm engine nothing.
NOTHING_S = 60.0
# Policies of which it is known that the engine has read them.
KEPT_POLICIES = 1000


def main() -> None:
    """Serve until the input ends."""
    source, sink = os.dup(0), int(sys.argv[1])
    # Not for the engine's own processes: the end of this one must be seen at the other end.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.set_inheritable(sink, False)
    threading.Thread(target=_end_without_parent, args=(source,), daemon=True).start()
    asyncio.run(_serve(source, sink))
    sys.stdout.flush()
    sys.stderr.flush()
    # The engine is closed; to take apart all that vLLM imported takes seconds, and somebody waits.
    os._exit(0)


def _end_without_parent(source: int) -> None:
    """End this process and those it started when nobody is left at the other end.

    It may be busy loading a model for minutes then, or hang.
    """
    gone = select.poll()
    gone.register(source, 0)  # that the other end is closed is told unasked
    gone.poll()
    time.sleep(CLOSE_S)
    os.killpg(0, signal.SIGKILL)


async def _serve(source: int, sink: int) -> None:
    stream = await opened_pipe(source)
    first = await next_message(stream)
    if not isinstance(first, StartEngine):
        return
    output = _Output(sink)
    try:
        judging = _Judging(engine_here(first.job, first.max_model_len), output)
    except ModerayError as error:
        output.send(Started(error.message))
        return
    starting = asyncio.create_task(judging.start())
    requests: dict[int, asyncio.Task[None]] = {}
    try:
        while (message := await next_message(stream)) is not None:
            if isinstance(message, JudgeRows):
                task = asyncio.create_task(judging.judge(message))
                requests[message.number] = task
                task.add_done_callback(partial(_forget, requests, message.number))
            elif isinstance(message, Cancel) and message.number in requests:
                requests[message.number].cancel()
    finally:
        starting.cancel()
        judging.close()


def _forget(requests: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    del requests[number]


class _Output:
    """Where messages go. One at a time, since this is one thread."""

    def __init__(self, sink: int) -> None:
        self._sink = sink

    def send(self, message: Message) -> None:
        data = memoryview(packed(message))
        while data:
            data = data[os.write(self._sink, data) :]


class _Judging:
    """The engine at work on requests."""

    def __init__(self, spec: EngineSpec, output: _Output) -> None:
        self._host = EngineHost(spec)
        self._output = output
        self._has_prefix_cache = isinstance(spec, VllmSpec)
        self._begun: LRUCache[str, asyncio.Task[None]] = LRUCache(KEPT_POLICIES)

    async def start(self) -> None:
        """Build the engine before it is asked for anything."""

        async def nothing(_: Counted) -> None:
            return None

        try:
            await self._host.run("", nothing, NOTHING_S)
        except ModerayError as error:
            self._output.send(Started(error.message))
        except EngineDeadError as error:
            self._output.send(Started(_dead(error).message))
        else:
            self._output.send(Started())

    async def judge(self, request: JudgeRows) -> None:
        """Judge rows, and send what came of it."""
        try:
            if self._has_prefix_cache:
                await asyncio.gather(*map(self._policy_read, request.cascades))
            judged = await judge_unit(self._host, request.cascades, request.rows, 0)
        except ModerayError as error:
            self._output.send(Judged(request.number, error.message))
        except EngineDeadError as error:
            self._output.send(Judged(request.number, _dead(error).message))
        except Exception as error:
            # A bug: its traceback is in the log, and whoever waits must hear of it.
            traceback.print_exc()
            failed = ModerayError(f"the engine's process failed: {first_line(error)}")
            self._output.send(Judged(request.number, failed.message))
        else:
            self._output.send(Judged(request.number, judged))

    async def _policy_read(self, cascade: Cascade) -> None:
        """Wait until the engine has read a new policy once.

        All rows come at the same time. Without this each would bring the policy along to be read,
        since none finds it in the prefix cache yet.
        """
        key = cascade.last.key
        if key not in self._begun:
            self._begun[key] = asyncio.create_task(self._read_policy(cascade))
        # Whoever does not wait any more must not end it for the others.
        await asyncio.shield(self._begun[key])

    async def _read_policy(self, cascade: Cascade) -> None:
        safeguard = cascade.last.safeguard

        async def read(engine: Counted) -> None:
            await engine.generate(Request(safeguard.prompt.render(()), 1))

        # The rows themselves tell what the engine cannot do.
        with contextlib.suppress(RequestFailedError, TimeoutError):
            await self._host.run(cascade.last.key, read, safeguard.request_s)

    def close(self) -> None:
        """End the engine."""
        self._host.close()


def _dead(error: EngineDeadError) -> ModerayError:
    return TryAgainError(f"the engine died: {first_line(error)}")


if __name__ == "__main__":
    main()
