"""Runs that wait at a row as long as a file is there, so that a test can end or join them."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from support.outputs import compared, labels
from support.project import kill_all
from support.scripted import write_job

# Rows of each shard, of a unit, and the row at which a held run waits.
ROWS, UNIT, WAITING = 50, 10, 45
# A row that waits is not given up by the run before the test goes on, on a machine that is busy.
PATIENT = {"request_s": 900}
# Answers that the scripted engine gives for a row: reasoning, then the answer.
ANSWERS = 2


class Held:
    """A job in a folder: `in`, `out`, `job.yaml`, a log of what was asked, and `hold`."""

    def __init__(self, folder: Path, names: Sequence[str], **sections: Any) -> None:
        self.folder, self.out = folder, folder / "out"
        self.hold, self._log = folder / "hold", folder / "log"
        self.names = sorted(names)
        for number, name in enumerate(names):
            texts = [
                f"{'visit my shop' if row % 3 else 'hello'} {number} {row}"
                + " waiting" * (row == WAITING)
                for row in range(ROWS)
            ]
            (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"text": texts}), folder / "in" / name)
        script = {
            "default": {"answer": '{"label": "SP0", "rationale": "Nothing."}'},
            "rules": [
                {"content": "waiting", "fail": "hang", "while": str(self.hold)},
                {"content": "shop", "answer": '{"label": "SP2", "rationale": "A shop."}', "p": 0.7},
            ],
            "log": str(self._log),
        }
        own: dict[str, Any] = {"unit": {"rows": UNIT}, "limits": PATIENT}
        self.job = write_job(folder, script, **own | sections)

    def asked(self) -> int:
        """Rows that the engine has answered so far."""
        return self._log.stat().st_size // ANSWERS if self._log.exists() else 0

    def units(self) -> list[Path]:
        """Saved units."""
        return sorted((self.out / "_moderay/units").rglob("*.arrow"))

    def started(self, *args: str) -> subprocess.Popen[str]:
        """A driver that waits for one row in each shard, with all others answered."""
        self.hold.touch()
        driver = subprocess.Popen(
            [sys.executable, "-m", "moderay", "run", str(self.job), *args],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        saved = len(self.names) * (ROWS // UNIT - 1)
        answered = len(self.names) * (ROWS - 1)

        def waits() -> bool:
            return len(self.units()) >= saved and self.asked() >= answered

        try:
            wait_for(lambda: waits() or driver.poll() is not None)
            assert driver.poll() is None, "it ended"
        except AssertionError as error:
            driver.kill()  # a test that fails leaves nothing at work
            _, printed = driver.communicate()
            raise AssertionError(f"{error}: {len(self.units())} units\n{printed}") from None
        return driver

    def killed(self) -> None:
        """A run that saved all units but one of each shard, and was killed."""
        kill_all(self.started())
        self.hold.unlink()

    def assert_whole(self) -> None:
        """Every row of every shard has its own label, once."""
        sources = labels(self.folder / "in").values()  # their names may differ
        published = labels(self.out).values()
        contents = [
            sorted(table.column("text").to_pylist() for table in tables)
            for tables in (sources, published)
        ]
        assert contents[0] == contents[1]
        for table in published:
            assert table.column("row").to_pylist() == list(range(ROWS))
            flagged = ["shop" in text for text in table.column("text").to_pylist()]
            assert table.column("flagged").to_pylist() == flagged


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    """Until it holds.

    Raises:
        AssertionError: It does not in that time.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.05)


def same_labels(one: dict[str, pa.Table], other: dict[str, pa.Table]) -> bool:
    """Whether two outputs hold the same, but for which run judged."""
    return list(one) == list(other) and all(
        compared(table, "spam") == compared(other[name], "spam")
        and table.drop_columns(["spam"]).equals(other[name].drop_columns(["spam"]))
        for name, table in one.items()
    )
