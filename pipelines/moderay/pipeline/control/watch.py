"""What the driver does next while units come in: decisions without Ray, threads or a clock.

`flow` asks before each wait and after it, and does what it hears. Everything that it saw stands in
the arguments, so that any course of a run can be written down as a test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto

from moderay.pipeline.control.incoming import Quiet

# Seconds between two looks at the board.
LOOK_S = 2.0


class Action(Enum):
    """Something for the driver to do."""

    STOP_BOARD = auto()
    """Have the board let no further unit begin."""
    LOOK = auto()
    """See what the board knows."""
    CHECK = auto()
    """Hold the run against its limits."""
    WAIT = auto()
    """Go on waiting."""
    END_STOPPED = auto()
    """End the run as one that a signal stopped."""
    FINISH = auto()
    """Nothing comes any more: the run is over."""


@dataclass(frozen=True)
class Watch:
    """What the driver remembers from one turn to the next.

    Attributes:
        stopping: The board was told to let nothing begin.
        looked: When the board was looked at last, in monotonic seconds.
    """

    stopping: bool = False
    looked: float = -math.inf

    def before_wait(
        self, now: float, *, outstanding: bool, signalled: bool
    ) -> tuple[Watch, tuple[Action, ...]]:
        """What to do before the next unit is waited for, in this order.

        The board is looked at every `LOOK_S` seconds, and each time while the run is stopping: the
        end then hangs on who is still at work. Where no row is outstanding there is nothing to stop
        and nothing to limit: what is left is to be handed on.

        Args:
            now: In monotonic seconds.
            outstanding: Rows have not come back.
            signalled: A signal asks the run to stop.

        Returns:
            What to remember, and the steps.
        """
        if not outstanding:
            return self, ()
        is_stopping = self.stopping or signalled
        is_due = is_stopping or now - self.looked > LOOK_S
        steps = (
            *([Action.STOP_BOARD] if is_stopping and not self.stopping else []),
            *([Action.LOOK] if is_due else []),
            Action.CHECK,
        )
        return replace(self, stopping=is_stopping, looked=now if is_due else self.looked), steps

    def after_quiet(self, quiet: Quiet, *, outstanding: bool, at_work: bool) -> Action:
        """What to do where no unit came.

        Args:
            quiet: Whether one may still come.
            outstanding: Rows have not come back.
            at_work: Units are in judging, as of the last look at the board.
        """
        if quiet is Quiet.NOTHING_YET:
            # While the run is stopping, what was read and not begun never comes.
            return Action.WAIT if at_work or not self.stopping else Action.END_STOPPED
        # Rows that are missing at the end were passed over, if the run is stopping. If it is not,
        # they are lost, and the tracker says so.
        return Action.END_STOPPED if self.stopping and outstanding else Action.FINISH
