"""Schedules of scheduled jobs: five fields, as KubeRay reads them."""

from __future__ import annotations

import re

from croniter import CroniterError, croniter

from moderay.core.errors import UserError

# What the fields are, and the lowest and highest number of each. Sunday is 0, and 7 is no day.
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
# An element of a field's list. croniter reads more, such as L and mon#1, which KubeRay refuses.
_ELEMENT = re.compile(r"(\*|\w+)(-\w+)?(/\d+)?", re.ASCII)


def checked_cron(schedule: str) -> str:
    """A schedule of minute, hour, day, month and weekday, its fields a blank apart.

    Raises:
        UserError: KubeRay would refuse it, or it names a day that never comes.
    """
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        raise UserError(
            f"--cron {schedule!r}: five fields are wanted (minute, hour, day, month, weekday), "
            "such as '0 2 * * *' for every night at two"
        )
    for position, field in enumerate(fields):
        title, low, high = _FIELDS[position]
        if not all(_is_read(element, position) for element in field.split(",")):
            raise UserError(
                f"--cron {schedule!r}: {field!r} is no {title}: numbers from {low} to {high}, *, "
                "ranges 1-5, steps */10, lists 1,3"
            )
    if not croniter.is_valid(schedule, strict=True):
        raise UserError(f"--cron {schedule!r}: no month that it names has such a day")
    return " ".join(fields)


def _is_read(element: str, position: int) -> bool:
    """Whether KubeRay reads an element of a field's list."""
    match = _ELEMENT.fullmatch(element)
    if match is None:
        return False
    try:
        first = _lowest(match[1], position)
        # croniter would go round the end: with 6-2 from 22 over midnight, with 1-7 over Sunday.
        rises = _lowest(element, position) == first
    except CroniterError:
        return False
    return rises and (not match[1].isdecimal() or first == int(match[1]))


def _lowest(element: str, position: int) -> int:
    """The lowest number that an element stands for. Raises `CroniterError` where it is none."""
    fields = ["*"] * len(_FIELDS)
    fields[position] = element
    number = croniter.expand(" ".join(fields))[0][position][0]
    if number == "*":
        return _FIELDS[position][1]
    if not isinstance(number, int):
        raise CroniterError(f"{element}: not a number")
    return number
