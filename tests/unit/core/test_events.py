"""Events of a run: what is written of a retry and of an end."""

import io
import json
import logging
from pathlib import Path

import pytest

from moderay.core import events
from moderay.core.errors import UserError
from moderay.core.storage import patiently


def test_an_event_is_not_shown_by_a_handler_of_the_root_logger(tmp_path: Path) -> None:
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logging.getLogger().addHandler(handler)
    try:
        events.event("engine died", logging.WARNING)
        with events.of_run("nightly", 7, tmp_path / "events.jsonl"):
            events.event("alarm", logging.WARNING, alarm="spam: look at it")
    finally:
        logging.getLogger().removeHandler(handler)
    assert shown.getvalue() == ""
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line)["alarm"] == "spam: look at it"


def test_a_retry_of_storage_and_the_end_of_a_run_are_events(tmp_path: Path) -> None:
    class ThrottledError(Exception):
        response = {"ResponseMetadata": {"HTTPStatusCode": 503}}

    tries = iter([ThrottledError("key=SECRET"), None])

    def call() -> None:
        if (error := next(tries)) is not None:
            raise error

    with (
        pytest.raises(UserError),
        events.of_run("nightly", 7, tmp_path / "events.jsonl"),
        events.about(shard="a", unit=(0, 10)),
    ):
        patiently(object(), call)
        raise UserError("the bucket is gone")
    events.event("not of this run any more")
    retried, stopped = [
        json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()
    ]
    assert (retried["event"], retried["kind"], retried["shard"], retried["unit"]) == (
        "storage retried",
        "ThrottledError",
        "a",
        [0, 10],
    )
    assert (stopped["event"], stopped["level"], stopped["reason"], stopped["run"]) == (
        "run stopped",
        "error",
        "the bucket is gone",
        7,
    )
    assert "SECRET" not in (tmp_path / "events.jsonl").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_disk_that_is_full_ends_the_events_and_not_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with events.of_run("nightly", 7, Path("/dev/full")):
        for number in range(3):
            events.event("progress", rows=number)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("note: no more events are written to /dev/full: ") and "No space" in line


def test_file_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "none/events.jsonl"
    refused = pytest.raises(UserError, match=f"events cannot be written to {file}: ")
    with refused, events.of_run("nightly", 7, file):
        pass
