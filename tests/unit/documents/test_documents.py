"""The documents: what they show is run, what cannot run here is read, and links lead somewhere.

How blocks are to be written: tests/README.md.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.config.reference import job_reference
from moderay.judges.rules_file import load_rules

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("docs", "infra", "jobs", "pipelines", "policies", "tests")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(file for room in ROOMS for file in ROOT.glob(f"{room}/*.md"))]
)
LANGUAGES = {"bash", "console", "json", "markdown", "python", "text", "yaml"}
# What starts an engine, or needs labels that one has made.
ENGINE = re.compile(r"make demo|moderay (run|label|calibrate|filter|trend)|demo/labels")
SKELETON: dict[str, Any] = {
    "input": {"path": "in", "content": "text"},
    "output": {"path": "out"},
    "policies": ["policies/spam"],
}


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
    found = [Block(*match) for match in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]
    return [block for block in found if not languages or block.language in languages]


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


class Session:
    """A shell in a copy of the repository. `export` lasts, as it does for a reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.check_output(listed, cwd=ROOT, text=True).splitlines()
        for name in names:
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
        (folder / ".venv").symlink_to(sys.prefix)
        self._exports: list[str] = []

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        script = "\n".join([*self._exports, command])
        if command.startswith("export "):
            self._exports.append(command)
        environment = {
            **os.environ,
            "COLUMNS": "100",
            "HF_HUB_OFFLINE": "1",
            # The installation is linked, not made again.
            "MAKEFLAGS": f" -- STAMP={self.folder}/.venv/bin/python",
            "PATH": f"{self.folder}/.venv/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "pipelines"),
            "RAY_ADDRESS": "local",
        }
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def follow(self, file: Path) -> None:
        """Run a document's console blocks, and compare."""
        for command in commands(file):
            done = self.run(command.text)
            told = f"{file.name}: {command.text}\n{done.stdout}"
            assert done.returncode == command.status, told
            assert expected(command.output).search(done.stdout), told


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def demo(session: Session) -> Session:
    """The session after the README, which makes the demo's labels."""
    session.follow(ROOT / "README.md")
    return session


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _shown(file: Path) -> str:
    return "\n".join(command.text for command in commands(file))


LIGHT = [file for file in DOCUMENTS if _shown(file) and not ENGINE.search(_shown(file))]
HEAVY = [file for file in DOCUMENTS if ENGINE.search(_shown(file)) and file != ROOT / "README.md"]
SCRIPTS = [file for file in DOCUMENTS if blocks(file, "python")]


@pytest.mark.parametrize("file", LIGHT, ids=_name)
def test_console_blocks_do_what_they_show(file: Path, session: Session) -> None:
    session.follow(file)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("$ echo 'one  two'; echo three\none two\n...\n", True),
        ("$ echo 'one  two'; echo three\none ... three\n", True),
        ("$ echo one\ntwo\n", False),
        ("$ exit 3\n", False),
        ("$ exit 3\n# exit status 3\n", True),
        ("$ export X=one\n$ echo \\\n  $X\none\n", True),
    ],
)
def test_console_block_holds_where_output_and_status_are_as_shown(
    text: str, holds: bool, session: Session, tmp_path: Path
) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"```console\n{text}```\n")
    if holds:
        session.follow(file)
        return
    with pytest.raises(AssertionError):
        session.follow(file)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_readme_does_what_it_shows(demo: Session) -> None:
    assert (demo.folder / "demo" / "labels" / "_moderay" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", HEAVY, ids=_name)
def test_console_blocks_do_what_they_show_after_the_demo(file: Path, demo: Session) -> None:
    demo.follow(file)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", SCRIPTS, ids=_name)
def test_python_blocks_run_as_one_script(file: Path, demo: Session) -> None:
    script = "\n".join(block.text for block in blocks(file, "python"))
    (demo.folder / "script.py").write_text(script)
    done = demo.run("python script.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", DOCUMENTS, ids=_name)
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


def _programs(line: str) -> Iterator[list[str]]:
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


def _command_line() -> Any:
    """The commands as the command line has them, with their options."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["moderay"]
    return typer.main.get_command(importlib.import_module(script.partition(":")[0]).app)


def _wrong(words: list[str], group: Any, targets: set[str]) -> str | None:
    """What a program is not known by, or None."""
    program = words[0].rpartition("/")[2] if words else ""
    arguments = words[1:]
    if program == "make":
        unknown = [word for word in arguments if "=" not in word and word not in targets]
        return f"no target {unknown[0]}" if unknown else None
    if program != "moderay" or not arguments or arguments[0] == "--help":
        return None
    if arguments[0] not in group.commands:
        return f"no command {arguments[0]}"
    known = {option for param in group.commands[arguments[0]].params for option in param.opts}
    asked = {word.partition("=")[0] for word in arguments[1:] if word.startswith("--")}
    unknown = sorted(asked - known - {"--help"})
    return f"no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("file", DOCUMENTS, ids=_name)
def test_commands_and_options_exist(file: Path) -> None:
    group = _command_line()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in _lines(file):
        for words in _programs(line):
            assert _wrong(words, group, targets) is None, line


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("moderay jugde job.yaml", "no command jugde"),
        ("X=1 .venv/bin/moderay run job.yaml --limt 5", "no option --limt"),
        ("true && make dmeo", "no target dmeo"),
        ("moderay run job.yaml --limit 5 | cat", None),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, wrong: str | None) -> None:
    told = [_wrong(words, _command_line(), {"demo"}) for words in _programs(line)]
    assert next(filter(None, told), None) == wrong


@pytest.mark.parametrize("file", [f for f in DOCUMENTS if blocks(f, "yaml")], ids=_name)
def test_yaml_blocks_are_accepted(file: Path, tmp_path: Path) -> None:
    for block in blocks(file, "yaml"):
        data = yaml.safe_load(re.sub(r"\$\{DATE\}", "2026-11-20", block.text))
        if "rules" in data:
            shutil.copytree(ROOT / "policies" / "spam", tmp_path, dirs_exist_ok=True)
            (tmp_path / "rules.yaml").write_text(block.text)
            load_rules(load_policy(tmp_path), tmp_path)
        else:
            Job.model_validate({**SKELETON, **data})


@pytest.mark.parametrize("file", [f for f in DOCUMENTS if blocks(f, "markdown")], ids=_name)
def test_policy_blocks_are_accepted(file: Path, tmp_path: Path) -> None:
    for block in blocks(file, "markdown"):
        (tmp_path / "policy.md").write_text(block.text)
        load_policy(tmp_path)


def _anchors(file: Path) -> set[str]:
    """The headings of a document as links name them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=_name)
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
