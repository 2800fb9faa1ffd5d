"""How far a run is: lines as it starts, then a bar on a terminal or lines; and JSON lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from moderay.core.errors import inert
from moderay.core.events import event
from moderay.core.verdicts import RETRYABLE, Status
from moderay.core.wording import counted, duration
from moderay.pipeline.messages.units import UnitDone

if TYPE_CHECKING:
    from moderay.pipeline.control.board import BoardState

# Columns of a terminal from which on the bar's line has room for all rates.
WIDE = 110
FAILED = [status.value for status in Status if status not in (Status.OK, Status.EMPTY)]


class Rate(NamedTuple):
    """Of one policy.

    Attributes:
        rows_per_s: Rows judged a second.
        tokens_per_s: Tokens a second, prompts and answers together.
    """

    rows_per_s: float
    tokens_per_s: float


class Progress:
    """Counts what has been judged, and shows it.

    Attributes:
        log: Where the driver's events go, the lines of progress among them.
        rows: Judged so far.
        reused: Verdicts that were taken from before.
        restarts: Engines that were built again.
        usage: What the engines did, as `engines.usage.Usage` counts.
        last: When the last unit was saved, in monotonic seconds.
    """

    def __init__(
        self, console: Console | None, interval: float = 10.0, log: Path | None = None
    ) -> None:
        """How it is shown.

        Args:
            console: Where to; None is silent.
            interval: Seconds between two lines, where the console is no terminal.
            log: Where the driver's events go.
        """
        self._console = console
        self._interval = interval
        self.log = log
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self.rows = 0
        self.reused = 0
        self.restarts = 0
        self.usage: Counter[str] = Counter()
        self.last = 0.0
        self._total = 0
        self._left = 0
        self._saved = 0
        self._engines = 0
        self._ready = 0
        self._told: set[str] = set()  # ways to P
        self._flagged = 0
        self._forced = 0
        self._failed = 0
        # By policy.
        self._tokens: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()
        self._doubtful: Counter[str] = Counter()
        self._invalid: Counter[str] = Counter()
        self._began = time.monotonic()
        self._shown = self._began

    def anew(self) -> Progress:
        """One that is shown in the same way, and has counted nothing yet."""
        return Progress(self._console, self._interval, self.log)

    def start(self, total: int, engines: int = 0, model: str = "") -> None:
        """Begin to count.

        Args:
            total: Rows of the ranges that are left, before any selection.
            engines: That are started at most.
            model: What they load.
        """
        self._total = total
        self._engines = engines
        if engines and total:
            self.stage(f"starting {counted(engines, 'engine')}: {model}")
        self._began = time.monotonic()
        self._shown = self._began
        self._remain(total)
        if self._console is not None and self._console.is_terminal and total:
            # In this order and so short that 80 columns hold all of it.
            columns = (
                TextColumn("{task.completed} of {task.total} rows"),
                BarColumn(bar_width=8),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Bar(*columns, console=self._console)
            self._bar.start()
            self._task = self._bar.add_task(self._line(), total=total)

    def add(self, unit: UnitDone) -> None:
        """Count a unit that came back; one that failed or was skipped counts for nothing.

        Of a golden set, only what the engine did counts: its cases are no rows.
        """
        if unit.error is not None or unit.skipped:
            return
        self.restarts += unit.restarts
        self.usage.update(unit.usage)
        if unit.gate is not None:
            self.last = time.monotonic()
            return
        start, end = unit.rows
        self._remain(self._left - (end - start))
        self.rows += unit.selected
        self.reused += unit.reused
        self._flagged += unit.flagged
        self._forced += sum(policy["forced"] for policy in unit.counts.values())
        self._failed += sum(policy[name] for policy in unit.counts.values() for name in FAILED)
        is_first = not self.last
        self.last = time.monotonic()
        for name, policy in unit.counts.items():
            failed = sum(policy[status] for status in RETRYABLE)
            self._doubtful[name] += failed + policy["forced"]
            self._judged[name] += failed + policy[Status.OK.value]
            self._invalid[name] += policy[Status.INVALID.value]
            self._tokens[name] += policy["prompt_tokens"] + policy["output_tokens"]
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=end - start, description=self._line())
        if is_first or time.monotonic() - self._shown >= self._interval:
            self._show()

    def look(self, seen: BoardState) -> None:
        """Show what goes on where no unit has come back for a while."""
        self._saved = seen.saved
        more = len(seen.starts) - self._ready
        self._ready += more
        if more and not (self.last and self._engines == 1):  # it has told of itself by its rows
            of = f", {self._ready:,} of {self._engines:,}" if self._engines > 1 else ""
            self.stage(f"{counted(more, 'engine')} ready after {duration(max(seen.starts))}{of}")
        for way in sorted(set(seen.probability_by) - self._told):
            self.stage(f"P of a label comes {way}")
        self._told.update(seen.probability_by)
        if time.monotonic() - self._shown >= self._interval:
            self._show()
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=self._line())

    def stage(self, text: str) -> None:
        """Something that takes a while begins, or has ended."""
        event("stage", stage=text)
        if self._console is not None:
            print(inert(text), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Something to know that ends nothing."""
        event("note", note=text)
        if self._console is not None:
            print(inert(f"note: {text}"), file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Show how it ended."""
        if self._bar is not None:
            self._bar.stop()
        if self.rows:
            self._show()
        self._remain(0)

    def _remain(self, rows: int) -> None:
        self._left = rows
        from moderay.pipeline.control import metrics  # noqa: PLC0415  late: it needs Ray

        metrics.rows_left(rows)

    def rates(self) -> dict[str, Rate]:
        """By policy id, since the engines were asked for, their start included."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return {
            name: Rate(round(self.rows / seconds, 1), round(tokens / seconds, 1))
            for name, tokens in self._tokens.items()
        }

    def doubtful(self) -> dict[str, tuple[int, int]]:
        """By policy id, rows that the model failed at or was forced to, of how many judged."""
        return {name: (self._doubtful[name], judged) for name, judged in self._judged.items()}

    def invalid(self) -> int:
        """Rows that hold nothing that can be judged, such as a line that is no JSON object."""
        return max(self._invalid.values(), default=0)

    def state(self) -> Mapping[str, Any]:
        """What an event of progress says."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return {
            "rows": self.rows,
            "read": self._total - self._left,
            "of": self._total,
            "rows_per_s": round(self.rows / seconds, 1),
            "tokens_per_s": round(self._tokens.total() / seconds, 1),
            "flagged": self._flagged,
            "failed": self._failed,
            "forced": self._forced,
            "reused": self.reused,
            "engine_restarts": self.restarts,
        }

    def _line(self) -> str:
        """All but how many rows have been read."""
        now = self.state()
        if not self.last:
            waiting = "reading" if self._ready else "engines are starting"
            saved = f", {counted(self._saved, 'row')} saved" if self._saved else ""
            return f"{waiting}, {time.monotonic() - self._began:.0f} s{saved}"
        is_selected = now["read"] > self.rows
        is_narrow = self._bar is not None and self._bar.console.width < WIDE
        parts = [f"{self.rows:,} selected"] if is_selected else []
        if not is_narrow or not is_selected:
            parts.append(f"{now['rows_per_s']:.0f} rows/s")
        if not is_narrow:
            parts.append(f"{now['tokens_per_s']:.0f} tokens/s")
        parts += [f"{now['flagged']:,} flagged", f"{now['failed']:,} failed"]
        rare = (
            (self._unheard(now["read"]), "more saved"),
            (self._forced, "forced"),
            (self.reused, "reused"),
            (self.restarts, counted(self.restarts, "engine restart").partition(" ")[2]),
        )
        return ", ".join([*parts, *(f"{count:,} {name}" for count, name in rare if count)])

    def _unheard(self, read: int) -> int:
        """Rows that are saved without a word so far, where no unit has come back for a while."""
        is_quiet = time.monotonic() - self.last >= self._interval
        return max(0, self._saved - read) if is_quiet else 0

    def _show(self) -> None:
        self._shown = time.monotonic()
        state = self.state()
        event("progress", **state)
        if self._console is not None and self._bar is None:
            read = f"{state['read']:,} of {counted(self._total, 'row')}"
            print(f"{read}: {self._line()}", file=sys.stderr, flush=True)
