"""Files that several writers create at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moderay.core.storage import create, files_below, filesystem


@pytest.mark.slow
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


def test_folder_that_comes_into_being_as_it_is_listed_holds_nothing_yet(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s3fs lists, and where there is nothing looks at the folder; between the two comes a file."""
    fs, path = filesystem(f"{bucket}/folder")
    listed = type(fs)._lsdir

    async def before(self: Any, *args: Any, **options: Any) -> list[Any]:
        if args[0] != path:
            return await listed(self, *args, **options)  # type: ignore[no-any-return]
        monkeypatch.setattr(type(fs), "_lsdir", listed)
        await self._pipe_file(f"{path}/first", b"x")
        return []

    monkeypatch.setattr(type(fs), "_lsdir", before)
    assert list(files_below(fs, path)) == []
    assert [file.name for file in files_below(fs, path)] == ["first"]
