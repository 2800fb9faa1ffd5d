"""Tables in a pipe and in a terminal: nothing is cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from moderay.cli import console, tables
from moderay.labels.manifest_record import GateFigure, Manifest, RunRecord, Selection
from moderay.labels.records import LeaseRecord
from moderay.tasks.output_status import OutputStatus, Writer, status_json

HOST = "gpu-node-0017.rack-42.cluster.example.internal"


def run(number: int, **fields: Any) -> RunRecord:
    return RunRecord(
        run=number,
        status="finished",
        host=HOST,
        started="2026-11-26T20:15:36+00:00",
        ended="2026-11-26T23:15:36+00:00",
        seconds=10_800,
        judged=1_234_567_890,
        **fields,
    )


@pytest.fixture
def status() -> OutputStatus:
    """Two runs of parts, and one that is about to begin."""
    manifest = Manifest(
        name="nightly",
        complete=False,
        input_shards=1,
        cascade_key="",
        selection=Selection(content="text", where=None, sample=None),
        policies={},
        shards=1,
        rows=1,
        alarms=("spam: 100.00% of 600 verdicts of 2026-11-26 were forced",),
        runs=(run(0, part=(1, 1000)), run(1, part=(2, 1000))),
    )
    claim = LeaseRecord(id="x", run=2, part=(3, 1000), host=HOST, machine="m", pid=1)
    return OutputStatus(manifest, 1, 1, 0, (Writer(claim, 3.2),))


def test_a_table_in_a_pipe_has_a_line_for_each_row_and_is_not_cut(
    status: OutputStatus,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    golden: Callable[[str, str], None],
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    tables.show_output_status("s3://labels/a-rather-long-name-of-an-output/date=2026-11-26", status)
    shown = capsys.readouterr()
    golden("status", shown.out + shown.err)


def test_a_table_in_a_narrow_terminal_folds_and_is_not_cut(
    status: OutputStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = console.CommandConsole(
        file=screen, force_terminal=True, width=80, height=24, color_system=None
    )
    for module in (console, tables):
        monkeypatch.setattr(module, "out", terminal)
    tables.show_output_status("labels", status)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in screen.getvalue()
    assert "   3.0 h   1,234,567,890" in screen.getvalue()


def test_status_for_machines_has_the_runs_that_have_not_begun_yet(status: OutputStatus) -> None:
    record = status_json("labels", status)
    assert [(each["run"], each["part"], each["status"]) for each in record["runs"]] == [
        (0, "1/1000", "finished"),
        (1, "2/1000", "finished"),
        (2, "3/1000", "starting"),
    ]
    assert record["alarms"] == list(status.manifest.alarms) and not record["complete"]


@pytest.mark.parametrize("not_judged", [0, 3])
def test_gate_fits_a_terminal_of_80_columns(
    not_judged: int, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    screen = io.StringIO()
    terminal = console.CommandConsole(
        file=screen, force_terminal=True, width=80, height=24, color_system=None
    )
    for module in (console, tables):
        monkeypatch.setattr(module, "out", terminal)
    figure = {"n": 123, "low": 0.81, "high": 1.0, "floor": 0.925, "not_judged": not_judged}
    tables.show_gate(
        [
            GateFigure(
                policy="prompt_injection", figure=name, k=110, value=0.891, passed=passed, **figure
            )
            for name, passed in (("recall", False), ("precision", True))
        ]
        + [
            GateFigure(
                policy="spam", figure="precision", k=0, n=0, value=None, low=0, high=1,
                floor=0.5, passed=False,
            )
        ]
    )  # fmt: skip
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in screen.getvalue()
    assert all(name in screen.getvalue() for name in ("prompt_injection ", " precision "))
    golden(f"gate-table-{not_judged}", "\n".join(line.rstrip() for line in lines) + "\n")
