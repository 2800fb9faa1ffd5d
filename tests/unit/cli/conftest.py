"""A policy to try, and who judges under it."""

from pathlib import Path

import pytest
from support.workbenches import policy_folder, script_file


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_folder(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return f"scripted:{script_file(tmp_path)}"
