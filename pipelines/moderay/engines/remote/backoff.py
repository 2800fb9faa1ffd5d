"""How long everybody leaves an endpoint alone that cannot answer now, and when a run gives up."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping

from moderay.core.errors import StoppedError
from moderay.engines.base import NotNowError

# Seconds that everybody waits where the endpoint does not say how long, at first.
PAUSE_S = 0.5
# Doubled from time to time up to this.
LONGEST_S = 30.0
# Seconds in which the endpoint must answer somebody; else the run ends, and goes on another time.
PATIENCE_S = 600.0


class Backoff:
    """When the endpoint may be asked again, and since when it has answered nobody."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._resume = 0.0
        self._pause = PAUSE_S
        self._failing_since: float | None = None

    @property
    def remaining(self) -> float:
        """Seconds until the endpoint may be asked again; 0 or less: now."""
        return self._resume - time.monotonic()

    def answered(self) -> None:
        """Somebody was answered."""
        self._pause = PAUSE_S
        self._failing_since = None

    def failing_seconds(self) -> float:
        """Seconds since the first failure that no answer followed; this may be it."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        return now - self._failing_since

    def refusal(self) -> NotNowError:
        """For a request that comes before the endpoint may be asked again."""
        return NotNowError("the endpoint asked for a pause", _jittered(self.remaining))

    def put_off(self, message: str, retry_after: float | None = None) -> NotNowError | StoppedError:
        """Everybody waits, not just the one who was refused.

        Args:
            message: What the endpoint says, or how the request failed.
            retry_after: Seconds the endpoint asks for; None where it does not say.

        Returns:
            What the failed request is raised as: `StoppedError` where patience is at its end.
        """
        if retry_after is not None and retry_after > PATIENCE_S:
            return StoppedError(
                f"the endpoint asks to come back in {retry_after:,.0f} s ({message}); what was "
                "judged is saved, and the same command goes on then",
                3,
            )
        if retry_after is None and self.remaining <= 0:
            self._pause = min(LONGEST_S, 2 * self._pause)
        seconds = self._pause if retry_after is None else retry_after
        self._resume = max(self._resume, time.monotonic() + seconds)
        if self.failing_seconds() > PATIENCE_S:
            return StoppedError(
                f"the endpoint answered nobody for {PATIENCE_S:g} s (at last: {message}); what was "
                "judged is saved, and the same command goes on",
                3,
            )
        return NotNowError(message, _jittered(seconds))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, which the header gives as such or as a date; None without one."""
    value = headers.get("Retry-After", "").strip()
    try:
        return max(PAUSE_S, float(value))
    except ValueError:
        pass
    try:
        return max(PAUSE_S, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _jittered(seconds: float) -> float:
    """A little longer, each a little else: not all come back at once."""
    return seconds * random.uniform(1, 1.2)
