"""Files that several writers create at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moderay.core.storage import create, filesystem


def test_of_several_writers_one_creates(bucket: str, tmp_path: Path) -> None:
    for url in (bucket, str(tmp_path)):
        fs, path = filesystem(url)
        for number in range(20):
            ready = threading.Barrier(4)

            def claim(
                i: int,
                path: str = f"{path}/epoch-{number}",
                fs: Any = fs,
                ready: threading.Barrier = ready,
            ) -> bool:
                ready.wait()
                return create(fs, path, b"%d" % i)

            with ThreadPoolExecutor(4) as pool:
                created = list(pool.map(claim, range(4)))
            assert sorted(created) == [False, False, False, True]
            assert fs.cat_file(f"{path}/epoch-{number}") == b"%d" % created.index(True)
