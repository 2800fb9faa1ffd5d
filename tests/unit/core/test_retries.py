import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from moderay.core import events
from moderay.core.storage import patiently, retries
from moderay.core.storage.retries import FIRST_S, TRIES, is_passing

REMOTE = object()


class AnsweredError(Exception):
    """As botocore's ClientError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class HTTPClientError(Exception):
    """Named as a library's error for a broken connection."""


class ReadTimeoutError(HTTPClientError):
    pass


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for; nobody waits."""
    seen: list[float] = []
    monkeypatch.setattr(retries._RETRYING, "sleep", seen.append)
    return seen


def failing(*errors: Exception) -> Callable[[], str]:
    """A call that raises these, one after another, and then gives something."""
    left = iter(errors)

    def call() -> str:
        for error in left:
            raise error
        return "bytes"

    return call


def test_call_that_fails_in_passing_gives_its_result_after_growing_pauses(
    pauses: list[float],
) -> None:
    errors = [OSError("reset"), AnsweredError(503), AnsweredError(429), ReadTimeoutError("slow")]
    assert patiently(REMOTE, failing(*errors)) == "bytes"
    assert len(pauses) == 4
    assert all(0 <= pause <= FIRST_S * 2**n for n, pause in enumerate(pauses))


def test_pauses_differ_from_call_to_call(pauses: list[float]) -> None:
    for _ in range(20):
        patiently(REMOTE, failing(OSError("reset")))
    assert len(set(pauses)) > 10


def test_store_that_keeps_failing_raises_its_last_failure_as_oserror(pauses: list[float]) -> None:
    last = AnsweredError(500)
    with pytest.raises(OSError, match="status 500") as caught:
        patiently(REMOTE, failing(*[OSError("reset")] * (TRIES - 1), last))
    assert caught.value.__cause__ is last and len(pauses) == TRIES - 1
    with pytest.raises(TimeoutError) as same:
        patiently(REMOTE, failing(*[OSError("reset")] * (TRIES - 1), TimeoutError("late")))
    assert same.value.__cause__ is None


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("gone"),
        FileExistsError("there"),
        PermissionError("denied"),
        AnsweredError(403),
        AnsweredError(404),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_what_does_not_pass_is_raised_at_once_as_it_is(
    error: BaseException, pauses: list[float]
) -> None:
    def call() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        patiently(REMOTE, call)
    assert caught.value is error and pauses == []


def test_local_file_system_is_not_asked_twice(pauses: list[float]) -> None:
    call = failing(OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        patiently(LocalFileSystem(), call)
    assert call() == "bytes" and pauses == []


def test_every_retry_is_an_event(tmp_path: Path, pauses: list[float]) -> None:
    with events.of_run("nightly", 7, tmp_path / "events.jsonl"):
        patiently(REMOTE, failing(OSError("SECRET"), AnsweredError(503)))
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in io.StringIO((tmp_path / "events.jsonl").read_text())
    ]
    assert [(line["event"], line["attempt"], line["kind"]) for line in lines] == [
        ("storage retried", 1, "OSError"),
        ("storage retried", 2, "AnsweredError"),
    ]
    assert "SECRET" not in (tmp_path / "events.jsonl").read_text()


def test_errors_of_libraries_are_known_by_their_kinds() -> None:
    assert is_passing(ReadTimeoutError()) and not is_passing(Exception())
