"""Where the project lies, the corpora beside it, and how its programs are started."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def environment() -> dict[str, str]:
    """For a process that imports the package and what the tests share, wherever it is started."""
    paths = [str(ROOT / "pipelines"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
