"""Fenced blocks of the documents, and the commands in those that show a console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.project import ROOT

ROOMS = ("docs", "infra", "jobs", "pipelines", "policies", "tests")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(file for room in ROOMS for file in ROOT.glob(f"{room}/*.md"))]
)


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line of a console block, with what it must print and the status it must end with."""

    text: str
    output: str
    status: int


def blocks(file: Path, *languages: str) -> list[Block]:
    text = file.read_text(encoding="utf-8")
    fenced = [Block(*match) for match in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]
    return [block for block in fenced if not languages or block.language in languages]


def commands(file: Path) -> Iterator[Command]:
    """The commands of a document's console blocks, in order."""
    for block in blocks(file, "console"):
        for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            shown = re.sub(r"\\\n\s*", "", part)
            text, _, output = shown.partition("\n")
            status = re.search(r"^# exit status (\d)$", output, re.M)
            output = re.sub(r"^# exit status \d$", "", output, flags=re.M)
            yield Command(text, output, int(status[1]) if status else 0)


def expected(output: str) -> re.Pattern[str]:
    """What matches an output: its words, whatever space is between them; `...` is anything."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in output.split("..."))
    return re.compile(".*?".join(parts), re.S)
