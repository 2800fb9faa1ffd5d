"""The contracts of imports, `make check`'s, refuse what they are there to refuse."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import ROOT

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the package in a folder, under this project's contracts."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package, to be spoilt."""
    shutil.copytree(
        ROOT / "pipelines" / "moderay",
        tmp_path / "moderay",
        ignore=lambda folder, names: [
            n for n in names if not (Path(folder) / n).is_dir() and not n.endswith(".py")
        ],
    )
    return tmp_path


def test_the_package_as_it_is_keeps_the_contracts(house: Path) -> None:
    result = linted(house)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_import_from_a_room_above_is_refused(house: Path) -> None:
    with (house / "moderay" / "corpus" / "shard.py").open("a") as file:
        file.write("\nfrom moderay.labels import layout\n")
    result = linted(house)
    assert result.returncode == 1
    assert "moderay.corpus.shard -> moderay.labels.layout" in result.stdout


def test_a_circle_inside_a_room_is_refused(house: Path) -> None:
    (house / "moderay" / "core" / "one.py").write_text("from moderay.core import two\n")
    (house / "moderay" / "core" / "two.py").write_text("from moderay.core import one\n")
    result = linted(house)
    assert result.returncode == 1
    assert "moderay.core" in result.stdout and "BROKEN" in result.stdout


def test_a_room_that_no_layer_names_is_refused(house: Path) -> None:
    (house / "moderay" / "shed").mkdir()
    (house / "moderay" / "shed" / "__init__.py").write_text("")
    result = linted(house)
    assert result.returncode == 1
    assert "shed" in result.stdout + result.stderr
