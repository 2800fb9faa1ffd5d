"""`moderay label`: a text, lines of files and of stdin, several policies, whatever they hold."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.project import ROOT

Cli = Callable[..., subprocess.CompletedProcess[str]]
LINES = b"a prize\n\nbad \xff byte\nnul \x00 here\r\nfailing\n  \nlast, without an end"
STATUSES = ["ok", "empty", "invalid", "ok", "engine_error", "empty", "ok"]


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def records(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_one_text_under_one_policy_gives_its_verdict(policy: Path, model: str, cli: Cli) -> None:
    result = cli("label", policy, "--content", "a prize", "--model", model)
    assert (result.returncode, result.stderr) == (0, "")
    verdict = json.loads(result.stdout)
    assert (verdict["label"], verdict["violates"], verdict["rationale"]) == (
        "SP4",
        True,
        "A prize.",
    )


@pytest.mark.parametrize("how", ["-", "--file -", "--file"])
def test_lines_get_a_record_each_whatever_they_hold(
    how: str,
    policy: Path,
    model: str,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "lines.txt").write_bytes(LINES)
    stdin(monkeypatch, LINES)
    options = how.split() if how.endswith("-") else [how, str(tmp_path / "lines.txt")]
    result = cli("label", policy, *options, "--model", model)
    # 1: a line has no verdict although it has a content.
    assert (result.returncode, result.stderr) == (1, "")
    rows = records(result)
    assert [row["line"] for row in rows] == [*range(1, 8)]
    assert [row["policies"]["spam"]["status"] for row in rows] == STATUSES
    assert [row["flagged"] for row in rows] == [True, None, None, False, None, None, False]
    assert rows[2]["content"] == "bad \ufffd byte" and rows[3]["content"] == "nul \x00 here"


def test_several_policies_judge_each_text_on_one_engine(policy: Path, model: str, cli: Cli) -> None:
    other = ROOT / "policies/private_data"
    result = cli("label", policy, other, "--content", "my shop", "--model", model)
    assert result.returncode in (0, 1)
    [record] = records(result)
    assert list(record["policies"]) == ["spam", "private_data"] and record["flagged"] is True
    result = cli("label", policy, policy, "--content", "x", "--model", model)
    assert result.returncode == 2 and "two policies have the id 'spam'" in result.stderr


def test_a_line_without_an_end_is_too_long_and_costs_no_more_than_it_must(
    policy: Path, model: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"a prize\n" + b"x" * 2**26 + b"\nmy shop\n")
    result = cli("label", policy, "-", "--model", model)
    statuses = [record["policies"]["spam"]["status"] for record in records(result)]
    assert (result.returncode, statuses) == (0, ["ok", "too_long", "ok"])


def test_lines_of_a_slow_pipe_are_judged_as_they_come(policy: Path, model: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "moderay", "label", str(policy), "-", "--model", model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    for line in (b"a prize\n", b"hello\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["content"] == line.decode().strip()
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "--content TEXT or --file FILE is missing (- is stdin): what is judged?"),
        (["--content", "x", "--file", "y"], "--content beside --file: leave one of them out"),
        (["-", "--file", "y"], "--file y beside -: leave one of them out"),
        (["--file", "nosuch.txt"], "nosuch.txt: cannot be read: "),
        (
            ["--content", "x", "--port", "1"],
            "nothing of yours listens on port 1: start",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    options: list[str], sentence: str, policy: Path, model: str, cli: Cli
) -> None:
    result = cli("label", policy, *options, "--model", model)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_lines_without_a_policy_are_refused(cli: Cli, model: str) -> None:
    result = cli("label", "-", "--model", model)
    assert result.returncode == 2 and "no policy is named" in result.stderr
