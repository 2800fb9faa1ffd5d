"""`moderay try` in a pipe: text, JSON lines, exit statuses, and what is refused."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.workbenches import save, script_file

Cli = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = [
    "claim your prize \x1b[2J\n[bold]now[/bold]",
    "failing",
    None,
    "word " * 400,
    "奖品 \u202e prize",
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"text": TEXTS, "n": range(5)}), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_rows_are_printed_with_wrong_ones_first(
    policy: Path, model: str, data: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    """It is 1 that CI sees where a golden case is judged otherwise."""
    result = cli("try", policy, "--data", data, "--golden", "--model", model)
    assert (result.returncode, result.stderr) == (1, f"loading {model} ...\n")
    golden("try", result.stdout)


def test_json_has_a_line_for_each_row(policy: Path, model: str, cli: Cli) -> None:
    result = cli("try", policy, "--json", "--model", model)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["row"], row["label"], row["right_label"]) for row in rows] == [
        ("golden 3", "SP2", "SP0"),
        ("golden 1", "SP4", "SP4"),
        ("golden 2", "SP0", "SP0"),
    ]
    assert rows[0]["title"] == "Unwanted promotion" and rows[0]["rationale"] == "A shop."
    assert result.stderr.splitlines()[1:] == [
        "spam: 3 rows, 2 of 3 golden cases right, 1 on the wrong side"
    ]
    save(policy, "threshold: 0.5", "threshold: 0.85")
    assert cli("try", policy, "--once", "--model", model).returncode == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "moderay: {policy}/golden.jsonl has no cases yet: name rows with --data or --content"),
        (["--where", "n > 1"], "moderay: --content-column and --where are of rows of --data"),
        (["--data", "nosuch.csvx"], "no Parquet"),
        (["--content", "x", "--port", "{taken}"], "moderay: port {taken} cannot be listened on"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    options: list[str], sentence: str, policy: Path, model: str, cli: Cli, taken_port: int
) -> None:
    (policy / "golden.jsonl").write_text("")
    filled = [option.format(taken=taken_port) for option in options]
    result = cli("try", policy, *filled, "--model", model)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence.format(policy=policy, taken=taken_port) in result.stderr


def test_a_folder_without_a_policy_and_a_missing_golden_set_are_named(
    policy: Path, model: str, cli: Cli, tmp_path: Path
) -> None:
    result = cli("try", tmp_path / "span", "--content", "x", "--model", model)
    assert result.returncode == 2
    assert "no policy.md in this policy folder\n    hint: did you mean 'spam'?" in result.stderr
    (policy / "golden.jsonl").unlink()
    result = cli("try", policy, "--golden", "--model", model)
    assert result.returncode == 2 and f"{policy}: no golden.jsonl" in result.stderr
    result = cli("try", policy, "--golden")
    assert result.returncode == 2 and "--model is missing" in result.stderr
    result = cli("try", policy, "--content", "x", "--model", "./nosuch")
    assert result.returncode == 2 and "no such model folder" in result.stderr


def test_ctrl_c_ends_it_with_a_sentence(policy: Path, tmp_path: Path) -> None:
    script = script_file(tmp_path, rules=[{"content": "", "fail": "hang"}])
    command = [sys.executable, "-m", "moderay", "try", str(policy), "--model", f"scripted:{script}"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # Whoever started the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None and "loading" in process.stderr.readline()
    while not psutil.Process(process.pid).children():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 3
    assert process.stderr.read() == "moderay: stopped before all rows were judged\n"


@pytest.mark.parametrize("end", ["q", "\x03", signal.SIGTERM])
def test_a_terminal_gets_a_page_and_is_left_as_it_was(
    end: str | signal.Signals, policy: Path, model: str
) -> None:
    terminal, inside = pty.openpty()
    # Wide, so that no line is folded, however long the path of the engine's script is.
    termios.tcsetwinsize(inside, (24, 400))
    before = termios.tcgetattr(inside)
    process = subprocess.Popen(
        [sys.executable, "-m", "moderay", "try", str(policy), "--model", model],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "400", "LINES": "24"},
    )
    shown = b""
    while b"golden cases right, 1 on the" not in shown or b"rows in" not in shown:
        assert process.poll() is None, shown
        shown += os.read(terminal, 65536)
    if isinstance(end, str):
        os.write(terminal, end.encode())
    else:
        process.send_signal(end)
    while b"\x1b[?1049l" not in shown:  # the screen that was there before
        shown += os.read(terminal, 65536)
    assert process.wait(60) == 0
    assert termios.tcgetattr(inside) == before
    os.close(terminal)
    os.close(inside)


def test_a_page_whose_terminal_is_gone_ends(policy: Path, model: str) -> None:
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "moderay", "try", str(policy), "--model", model],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=os.environ | {"TERM": "xterm-256color"},
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(inside, termios.TIOCSCTTY, 0)),
    )
    os.close(inside)
    shown = b""
    while b"\x1b[?1049h" not in shown:  # the page's own screen
        shown += os.read(terminal, 65536)
    os.close(terminal)
    process.wait(60)
