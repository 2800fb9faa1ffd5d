"""Command lines of moderay and make as texts show them, held against the commands there are."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import typer

from support.project import ROOT


def programs(line: str) -> Iterator[list[str]]:
    """Each program of a command line with its arguments, variables before it left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|;&()"):
            yield words
            words = []
        elif words or not re.match(r"\w+=", word):
            words.append(word)


def command_line() -> Any:
    """The commands as the command line has them, with their options."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["moderay"]
    return typer.main.get_command(importlib.import_module(script.partition(":")[0]).app)


def unknown_word(words: list[str], group: Any, targets: set[str]) -> str | None:
    """What a program is not known by, or None."""
    program = words[0].rpartition("/")[2] if words else ""
    arguments = words[1:]
    if program == "make":
        unknown = [word for word in arguments if "=" not in word and word not in targets]
        return f"no target {unknown[0]}" if unknown else None
    if program != "moderay":
        return None
    command = group
    while arguments and hasattr(command, "commands") and not arguments[0].startswith("-"):
        if arguments[0] not in command.commands:
            return f"no command {arguments[0]}"
        command = command.commands[arguments.pop(0)]
    known = {"-h", "--help", *(option for param in command.params for option in param.opts)}
    request = {word.partition("=")[0] for word in arguments if re.match(r"--?[a-z]", word)}
    unknown = sorted(request - known)
    return f"no option {unknown[0]}" if unknown else None
