"""The documents are read: blocks that cannot run here, links, messages, and what is made from code.

How blocks are written: tests/README.md.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import command_line, programs, unknown_word
from support.documents import DOCUMENTS, blocks, commands, name_of
from support.project import ROOT

from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.config.reference import job_reference
from moderay.judges.rules_file import load_rules

LANGUAGES = {"bash", "console", "json", "markdown", "python", "text", "yaml"}
SKELETON: dict[str, Any] = {
    "input": {"path": "in", "content": "text"},
    "output": {"path": "out"},
    "policies": ["policies/spam"],
}


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_blocks_say_what_they_are(file: Path) -> None:
    assert {block.language for block in blocks(file)} <= LANGUAGES
    fences = re.findall(r"^\s*```", file.read_text(encoding="utf-8"), re.M)
    assert len(fences) == 2 * len(blocks(file))


def _lines(file: Path) -> Iterator[str]:
    """Command lines of a document: of its blocks, and what stands in the text as code."""
    for command in commands(file):
        yield command.text
    for block in blocks(file, "bash"):
        yield from re.sub(r"\\\n\s*", "", block.text).splitlines()
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
    for code in re.findall(r"`((?:moderay|make) [^`]+)`", text):
        yield code.replace("[", " ").replace("]", " ").replace("...", "")


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_commands_and_options_exist(file: Path) -> None:
    group = command_line()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in _lines(file):
        for words in programs(line):
            assert unknown_word(words, group, targets) is None, line


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("moderay jugde job.yaml", "no command jugde"),
        ("X=1 .venv/bin/moderay run job.yaml --limt 5", "no option --limt"),
        ("true && make dmeo", "no target dmeo"),
        ("moderay run job.yaml --limit 5 | cat", None),
        ("moderay --version", None),
        ("moderay --vresion", "no option --vresion"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, wrong: str | None) -> None:
    shown = [unknown_word(words, command_line(), {"demo"}) for words in programs(line)]
    assert next(filter(None, shown), None) == wrong


@pytest.mark.parametrize("file", [f for f in DOCUMENTS if blocks(f, "yaml")], ids=name_of)
def test_yaml_blocks_are_accepted(file: Path, tmp_path: Path) -> None:
    for block in blocks(file, "yaml"):
        data = yaml.safe_load(re.sub(r"\$\{DATE\}", "2026-11-20", block.text))
        if "rules" in data:
            shutil.copytree(ROOT / "policies" / "spam", tmp_path, dirs_exist_ok=True)
            (tmp_path / "rules.yaml").write_text(block.text)
            load_rules(load_policy(tmp_path), tmp_path)
        else:
            Job.model_validate({**SKELETON, **data})


@pytest.mark.parametrize("file", [f for f in DOCUMENTS if blocks(f, "markdown")], ids=name_of)
def test_policy_blocks_are_accepted(file: Path, tmp_path: Path) -> None:
    for block in blocks(file, "markdown"):
        (tmp_path / "policy.md").write_text(block.text)
        load_policy(tmp_path)


def _anchors(file: Path) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_links_lead_to_files(file: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_the_rooms_that_are_named_exist() -> None:
    text = (ROOT / "pipelines" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_/-]+(?:\.py|\.yaml|/))`", text)
    assert len(named) > 30
    assert [name for name in named if not (ROOT / "pipelines" / "moderay" / name).exists()] == []


def test_the_job_reference_says_what_the_models_say() -> None:
    assert (ROOT / "docs" / "job-reference.md").read_text(encoding="utf-8") == job_reference()


def test_the_readme_names_every_command() -> None:
    lines = list(_lines(ROOT / "README.md"))
    named = {words[1] for line in lines for words in programs(line) if words[:1] == ["moderay"]}
    assert set(command_line().commands) - named == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_messages_that_are_explained_are_still_said() -> None:
    source = "".join(file.read_text() for file in (ROOT / "pipelines").rglob("*.py"))
    source = re.sub(r'"\s*f?"', "", source)  # texts that go on in the next line
    rows = re.findall(
        r"^\| (`.*?`) \|.*\|.*\|$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M
    )
    messages = [
        part for row in rows for code in re.findall("`(.*?)`", row) for part in code.split("...")
    ]
    assert len(messages) > 60
    assert [part for part in messages if part.strip(" ,:;") not in source] == []
