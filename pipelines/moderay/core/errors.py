"""Errors, named by what the person who meets them has to do.

`UserError`: change something (exit status 2). `TryAgainError`: run the same command again (exit
status 3). `StoppedError`: a limit was reached. Each prints as one sentence: what, where, what to
do. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from moderay.core.redaction import shown


class ErrorMessage(NamedTuple):
    """An error on its way between processes, which Ray would hand on as a text alone.

    Attributes:
        kind: The name of its class.
        text: What it says.
        exit_status: The process's, where the error ends it.
    """

    kind: str
    text: str
    exit_status: int


class ModerayError(Exception):
    """Base of what a person is told without a traceback, and without secrets of URLs.

    Each kind can be pickled, whatever its constructor takes.

    Attributes:
        exit_status: The process's, where the error ends it.
    """

    exit_status = 1

    def __str__(self) -> str:
        """What it says; the URLs in it as they may be shown."""
        return shown(super().__str__())

    @property
    def message(self) -> ErrorMessage:
        """This error as another process is sent it."""
        return ErrorMessage(type(self).__name__, str(self), self.exit_status)

    @staticmethod
    def restored(message: ErrorMessage) -> ModerayError:
        """The error again, of its own kind where this process knows that."""
        kind = next(
            (kind for kind in _kinds(ModerayError) if kind.__name__ == message.kind), ModerayError
        )
        return kind._restored(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """What pickle needs; its own way is to call the constructor with the text alone."""
        return type(self)._restored, (self.message,), self.__dict__

    @classmethod
    def _restored(cls, message: ErrorMessage) -> Self:
        error = cls.__new__(cls, message.text)
        error.exit_status = message.exit_status
        return error


def _kinds(kind: type[ModerayError]) -> Iterator[type[ModerayError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


class UserError(ModerayError):
    """The job, a policy or the environment must be changed first."""

    exit_status = 2


class TryAgainError(ModerayError):
    """Nothing to change: the same command, later, goes on where this one stopped."""

    exit_status = 3


class StoppedError(ModerayError):
    """The run ended early and in good order."""

    def __init__(self, message: str, exit_status: int) -> None:
        """`exit_status`: 1 where something seems wrong, 3 where it just goes on."""
        super().__init__(message)
        self.exit_status = exit_status


class NoRoomError(StoppedError):
    """A disk or a quota is full: after somebody made room, the same command goes on."""

    def __init__(self, message: str) -> None:
        """`message`: where, and how much is free."""
        super().__init__(message, 3)


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file a person wrote.

    Attributes:
        file: Empty where it is in none.
        line: Counts from 1; None where it is of the whole file.
        message: What is wrong.
        hint: What would be right; empty where nothing is known.
        absent: Whether all that is wrong is that data or a folder is not there.
    """

    file: str
    line: int | None
    message: str
    hint: str = ""
    absent: bool = False

    def __str__(self) -> str:
        """`file:line: message`, and the hint on a line of its own."""
        line = "" if self.line is None else f":{self.line}"
        where = f"{nearby(self.file)}{line}: " if self.file else ""
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return shown(f"{where}{self.message}{hint}")


class Problems(UserError):  # noqa: N818  # it is several of `Problem`
    """Every problem that was found, at once.

    Attributes:
        problems: At least one.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        """`problems`: in the order in which they are told."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def _restored(cls, message: ErrorMessage) -> Self:
        """All of them as one, which says the same."""
        error = super()._restored(message)
        error.problems = (Problem("", None, message.text),)
        return error


def nearby(path: str) -> str:
    """A path below the current folder as seen from there; any other as it is."""
    try:
        below = os.path.relpath(path) if path.startswith("/") else path
    except OSError:  # the current folder has been removed
        return path
    return path if below == os.curdir or below.startswith(os.pardir) else below


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint: the nearest valid choice where one is near, else all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "valid: " + ", ".join(known)


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line without secrets; its kind where it says nothing."""
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0])


# What a terminal would obey instead of show.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """A line without what a terminal would obey.

    Contents and names of files come from other people.
    """
    return _CONTROL.sub("\ufffd", text)
