"""Words that all commands share: numbers with their nouns and units, titles, alarms."""

from __future__ import annotations

MINUTE_S = 60
HOUR_S = 3600


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count and what is counted, such as `1 shard` and `2,000 shards`.

    Args:
        count: how many.
        noun: of one.
        plural: of none or several, where it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def are(count: int) -> str:
    """The verb that goes with a count."""
    return "is" if count == 1 else "are"


def was(count: int) -> str:
    """The same of what is past."""
    return "was" if count == 1 else "were"


def duration(seconds: float) -> str:
    """A time in the unit in which it is a number of a few digits."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    return f"{seconds / HOUR_S:,.1f} h"


def selected(rows: int, read: int) -> str:
    """How many rows of those that were read were to be judged."""
    return f"{rows:,} of {counted(read, 'row')} selected"


def titled(label: str, title: str | None) -> str:
    """A label's id, and behind it what it means, where that is known."""
    return f"{label} {title}" if title else label


def alarm_line(alarm: object) -> str:
    """An alarm in the one form that it has everywhere."""
    return f"ALARM {alarm}"
