"""What ends a run early and in good order.

Too many failures, lost actors, no progress, a budget, a time, or a signal.
"""

from __future__ import annotations

import datetime
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from moderay.config.job import Limits
from moderay.core.errors import StoppedError
from moderay.pipeline.control.board import BoardState
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.control.tracker import Tracker

# Rows after which the share of failures is believed.
ENOUGH = 2000
# Engine actors that may be lost one after the other with nothing saved between them.
HOPELESS = 10

_GO_ON = "what is complete is saved, and the same command goes on from there"


class Brakes:
    """The limits of a run, held against its progress all the time."""

    def __init__(
        self, limits: Limits, gpus: int, engines: int, progress: Progress, rows: float
    ) -> None:
        """Limits for a run that begins now.

        Args:
            limits: Of the job.
            gpus: Of the cluster, for the budget of GPU hours.
            engines: Actors that the run wants at most.
            progress: Of the run.
            rows: That the run judges, at most; of a sample, about.
        """
        self._limits = limits
        self._rows = rows
        self._gpus = gpus
        self._engines = engines
        self._progress = progress
        self._began = time.monotonic()
        self._stopped: tuple[StoppedError, float] | None = None  # why, and since when
        self._signalled = False
        self._saved = (0, 0.0)  # rows that the board knew of last, and since when
        self._actors = (0, (0.0, 0))  # started when something was saved last, and what that was

    @property
    def stopping(self) -> bool:
        """The run is to end: nothing new is begun."""
        return self._stopped is not None

    def stop(self, reason: StoppedError) -> None:
        """Have the run end in good order; what is in judging has a grace time."""
        if self._stopped is None:
            self._stopped = (reason, time.monotonic())

    def check(self, seen: BoardState, tracker: Tracker) -> None:
        """Hold the run against its limits.

        Args:
            seen: The board, as it was looked at last.
            tracker: What has not come back, to say what a run that stands still waits for.

        Raises:
            StoppedError: A limit is reached.
        """
        now = time.monotonic()
        if seen.saved != self._saved[0]:
            self._saved = (seen.saved, now)
        self._check_failures()
        self._check_actors(seen)
        if self._stopped is not None and now - self._stopped[1] > self._limits.grace_s:
            self.end()
        self._check_until()
        self._check_gpu_hours(now)
        if now - max(self._began, self._progress.last, self._saved[1]) > self._limits.stall_s:
            raise StoppedError(
                f"nothing was saved for {self._limits.stall_s:g} s (limits.stall_s); "
                f"{_stuck(seen, tracker)}: {_GO_ON}",
                3,
            )

    def end(self) -> NoReturn:
        """End the run after it was stopped.

        When nothing is in judging any more, or the grace time is over.

        Raises:
            StoppedError: Always.
        """
        assert self._stopped is not None
        raise self._stopped[0]

    def _check_until(self) -> None:
        until = self._limits.until
        if until is not None and datetime.datetime.now().astimezone() >= until.astimezone():
            raise StoppedError(f"stopped at {until.isoformat()} (limits.until): {_GO_ON}", 3)

    def _check_gpu_hours(self, now: float) -> None:
        most = self._limits.gpu_hours
        if most is not None and self._gpus * (now - self._began) / 3600 >= most:
            raise StoppedError(f"stopped after {most:g} GPU hours (limits.gpu_hours): {_GO_ON}", 3)

    def _check_failures(self) -> None:
        most = self._limits.max_failed
        # Of all rows, not of those so far: they cost nothing, come first, and lie together.
        invalid = self._progress.invalid()
        if self._rows >= ENOUGH and invalid > most * self._rows:
            raise StoppedError(
                f"stopped: {invalid:,} of {self._rows:,.0f} rows hold nothing that can be judged "
                f"(invalid), and limits.max_failed is {most:.0%}: mend the input, or raise the "
                f"limit; {_GO_ON}",
                1,
            )
        for policy, (doubtful, judged) in self._progress.doubtful().items():
            if judged >= ENOUGH and doubtful / judged > most:
                raise StoppedError(
                    f"stopped after {judged:,} rows: under {policy} {doubtful / judged:.0%} "
                    "failed, did not parse or were forced, and limits.max_failed is "
                    f"{most:.0%}: look at some with `moderay run JOB --limit 20 --show`; {_GO_ON}",
                    1,
                )

    def _check_actors(self, seen: BoardState) -> None:
        if (saved := (self._progress.last, seen.saved)) != self._actors[1]:
            self._actors = (seen.actors, saved)
        lost = seen.actors - max(self._actors[0], self._engines)
        if lost > HOPELESS:
            raise StoppedError(
                f"{lost} engine actors were lost one after the other and nothing was saved: look "
                f"at memory and at Ray's logs; {_GO_ON}",
                3,
            )

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM, which a spot notice sends, and Ctrl-C end the run after a grace time.

        A second one ends it at once.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._signalled:
            raise StoppedError(f"stopped by a second {name}: {_GO_ON}", 3)
        self._signalled = True
        self.stop(StoppedError(f"stopped by {name}: {_GO_ON}", 3))


def _stuck(seen: BoardState, tracker: Tracker) -> str:
    """What the run waits for: units in judging by name, or what comes before them."""
    if seen.at_work:
        named = [
            f"{_rows(work.unit)} in {work.actor} for {work.seconds:.0f} s" for work in seen.oldest
        ]
        others = seen.at_work - len(seen.oldest)
        more = f" and {others} more" if others else ""
        return f"in judging: {'; '.join(named)}{more}"
    missing = tracker.first_missing()
    if missing is None:
        return "shards to be published"
    stage = "reading" if seen.actors else "an engine actor to start"
    return f"waiting for {stage}; first, {_rows(missing)}; {tracker.outstanding:,} rows in all"


def _rows(unit: tuple[str, tuple[int, int]]) -> str:
    return f"{unit[0]} rows {unit[1][0]:,}-{unit[1][1]:,}"
