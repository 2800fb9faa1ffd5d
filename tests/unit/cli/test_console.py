"""What commands write to stderr, and what they keep from it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from moderay.cli import console


def test_what_libraries_write_is_kept_in_a_file_that_is_named_where_something_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with console.libraries_in_file():
        os.write(2, b"FutureWarning: deprecated\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ZeroDivisionError), console.libraries_in_file():
        os.write(2, b"no room on the GPU\n")
        raise ZeroDivisionError
    note = re.search(r"note: what libraries wrote meanwhile is in (\S+)", capfd.readouterr().err)
    assert note is not None
    file = Path(note[1])
    assert file.read_bytes() == b"no room on the GPU\n"
    file.unlink()


def test_what_takes_long_is_told_of_and_what_is_quick_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.told_if_slow("checking job.yaml", quiet=False):
        pass
    monkeypatch.setattr(console, "SLOW_S", 0.01)
    with console.told_if_slow("checking big.yaml", quiet=True):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
    with console.told_if_slow("checking big.yaml", quiet=False):
        time.sleep(0.5)
    assert capsys.readouterr().err == "checking big.yaml\n"
