"""Where the project lies, the corpora beside it, and how its programs are started."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"

# Before a command: it may read and write what its user may. Root may all, whatever a file's rights.
_RIGHTS = "-dac_override,-dac_read_search"
_WITHOUT = ["setpriv", f"--bounding-set={_RIGHTS}", f"--inh-caps={_RIGHTS}"]
AS_ANYBODY = _WITHOUT if os.geteuid() == 0 else []

# How long Ray's processes may take to notice that their driver is dead.
ENDED_S = 60


def environment() -> dict[str, str]:
    """For a process that imports the package and what the tests share, and finds the programs that
    are installed with them, wherever it is started.
    """
    return {
        **os.environ,
        "PYTHONPATH": _before("PYTHONPATH", ROOT / "pipelines", ROOT / "tests"),
        "PATH": _before("PATH", Path(sys.executable).parent),
    }


def _before(variable: str, *folders: Path) -> str:
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get(variable)]))


def kill_all(driver: subprocess.Popen[Any]) -> None:
    """Kill a driver, and wait until its engines have ended by themselves: until then they go on."""
    engines = judging()
    driver.kill()
    driver.communicate()
    assert psutil.wait_procs(engines, timeout=ENDED_S)[1] == []


def judging() -> list[psutil.Process]:
    """Processes that judge rows, in the Ray of the tests or in one that a driver began."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            found += [process] if "MapBatches(Judge)" in " ".join(process.cmdline()[:1]) else []
    return found
