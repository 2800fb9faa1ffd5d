"""Patience with a store: which failures pass, and how often and how late to try again."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from moderay.core.errors import first_line
from moderay.core.events import event
from moderay.core.storage.disks import OF_THE_MACHINE
from moderay.core.storage.urls import is_local

T = TypeVar("T")

# A call that fails in passing is tried TRIES times, with a pause of up to FIRST_S seconds after the
# first, twice that after the second, and so on: some ten seconds, in which a store that throttles
# comes round. Under it s3fs tries each call five times by itself, within two seconds.
TRIES = 6
FIRST_S = 0.3

# What the libraries under fsspec raise, beside OSError, when a connection or an answer breaks. By
# name, since none of these libraries need be installed.
_BROKEN = {
    "HTTPClientError",
    "ConnectionError",
    "ClientPayloadError",
    "IncompleteRead",
    "ResponseParserError",
    "ServerDisconnectedError",
}
# Codes of S3 stores that are full; AWS's own never is.
_FULL = {
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "QuotaExceeded",
    "EntityQuotaExceeded",
}
# Answers, not failures, although they are OSErrors.
_ANSWERS = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    io.UnsupportedOperation,
)


def patiently(fs: Any, call: Callable[[], T]) -> T:
    """What `call` gives, tried again where a store that is not local fails in passing.

    That is: throttled, reset, cut off, out of order. Pauses grow and are of random length, so that
    workers that were throttled together do not come back together.

    Raises:
        OSError: It kept failing; whatever library the last failure is of.
        Exception: What does not pass, and what a local file system raises, at once and as it is.
    """
    if is_local(fs):
        return call()
    try:
        return _RETRYING(call)
    except Exception as error:
        if is_passing(error) and not isinstance(error, OSError):
            raise OSError(first_line(error)) from error
        raise


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, _ANSWERS) or getattr(error, "errno", None) in OF_THE_MACHINE:
        return False
    if is_full(error):
        return False
    if answer := _answer(error):
        return _status(answer) >= 500 or _status(answer) in (408, 429)
    return isinstance(error, OSError) or any(
        kind.__name__ in _BROKEN for kind in type(error).__mro__
    )


def is_full(error: BaseException) -> bool:
    """Whether a store answered that nothing more fits, or may be kept, there."""
    answer = _answer(error) or _answer(error.__cause__)  # botocore's, which s3fs hands on as cause
    code = answer.get("Error", {}).get("Code")
    return code in _FULL or _status(answer) == HTTPStatus.INSUFFICIENT_STORAGE


def _answer(error: BaseException | None) -> Mapping[str, Any]:
    """What a store answered, of botocore's ClientError; nothing of other errors."""
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, Mapping) else {}


def _status(answer: Mapping[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _record(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    event("storage retried", attempt=state.attempt_number, kind=type(error).__name__)


# One for all calls and threads: its state is each call's and each thread's own. It costs a call
# that succeeds some 10 µs, where a request to a store takes milliseconds; local files go past it.
_RETRYING = Retrying(
    retry=retry_if_exception(is_passing),
    stop=stop_after_attempt(TRIES),
    wait=wait_random_exponential(multiplier=FIRST_S),
    before_sleep=_record,
    reraise=True,
)
