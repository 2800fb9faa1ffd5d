"""docs/security.md names the tests that show what it says: each must be there."""

from __future__ import annotations

import re

import pytest
from support.project import ROOT

THREATS = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
# A row of a table of three columns that begins with a threat.
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in THREATS.splitlines()
    if line.startswith("| ") and not line.startswith("| what they try")
]
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.M)
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_threat_that_is_stopped_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 3 and row[1]
    named = re.findall(r"`(test_\w+)`", row[2])
    assert named
    assert [name for name in named if name not in TESTS] == []


def test_every_kind_of_attacker_has_threats_and_what_is_not_stopped_is_said() -> None:
    parts = re.split(r"^## ", THREATS, flags=re.M)[1:]
    assert len(parts) == 6 and len(ROWS) > 30
    *attackers, rest = parts
    assert all(part.count("\n| ") > 3 for part in attackers)
    assert rest.startswith("What is not stopped") and rest.count("\n- **") >= 5
