"""What people expect of any command line: help, version, completion, colours, exit statuses."""

from __future__ import annotations

import importlib.metadata
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.command_line import command_line, programs, unknown_word
from support.project import ROOT

Cli = Callable[..., subprocess.CompletedProcess[str]]
# SGR sequences that set a colour.
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d)(?:;\d+)*m")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that each command is called by."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield *path, name


COMMANDS = [*commands(command_line())]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_the_command_accepts(path: tuple[str, ...], cli: Cli) -> None:
    result = cli(*path, "-h")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == cli(*path, "--help").stdout
    # On one line of its own, to be pasted.
    [example] = re.findall(r"^ Example: (.*?) *$", result.stdout, re.M)
    for words in programs(example):
        assert words[: 1 + len(path)] == ["moderay", *path]
        assert unknown_word(words, command_line(), set()) is None
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.usefixtures("narrow")
def test_help_names_the_commands_and_the_exit_statuses(
    cli: Cli, golden: Callable[[str, str], None]
) -> None:
    text = cli("--help").stdout
    golden("help", "\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    assert cli().stdout.strip() == text.strip()


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("command", ["calibrate", "label"])
def test_help_of_a_command_is_as_written(
    command: str, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    text = cli(command, "--help").stdout
    golden(f"help-{command}", "\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def test_version_is_the_installed_one(cli: Cli) -> None:
    assert cli("--version").stdout == f"moderay {importlib.metadata.version('moderay')}\n"


def test_usage_names_moderay_however_it_was_started(cli: Cli) -> None:
    result = cli("run", PATH=os.environ["PATH"])  # python -m moderay, a process of its own
    assert result.returncode == 2
    assert "Usage: moderay run" in result.stderr and "python" not in result.stderr


def test_shell_completes_commands_options_and_files(cli: Cli) -> None:
    for words, index, completed in (
        ("moderay cal", 1, "calibrate"),
        ("moderay run --lim", 2, "--limit"),
        ("moderay label policies/spam --effort h", 4, "high"),
    ):
        result = cli(_MODERAY_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(index))
        assert (result.returncode, result.stdout) == (0, f"{completed}\n"), words
    script = cli(
        "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    ).stdout
    # Where moderay knows no words, the shell goes on with names of files.
    assert "complete -o default -F _moderay_completion moderay" in script


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_keeps_colours_out_of_a_terminal(no_color: str) -> None:
    """The first says that there would be some."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", "--no-such-option"],
        env=os.environ | {"NO_COLOR": no_color, "TERM": "xterm-256color"},
        stdout=end,
        stderr=end,
    )
    os.close(end)
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # as Linux ends a terminal that nobody writes to any more
        pass
    finally:
        os.close(terminal)
    assert process.wait(60) == 2 and b"No such option" in shown
    assert bool(COLOUR.search(shown)) == (not no_color)


def test_label_has_no_model_of_its_own(cli: Cli) -> None:
    result = cli("label", ROOT / "policies/spam", "--content", "a prize")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "moderay: --model is missing: say who judges, such as openai/gpt-oss-safeguard-20b on a "
        "GPU, a checkpoint's folder, or tiny, whose labels on real content mean nothing\n"
    )
