"""Where a soak's files lie: a folder of this machine, or one of an S3 server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol


class Store(Protocol):
    """Files below a root, by their paths there.

    Attributes:
        url: Of the root.
    """

    url: str

    def names(self) -> list[str]:
        """Of all files."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes, mtime_ns: int | None = None) -> int | None:
        """A file as a whole; its time, where it can be set."""

    def append(self, name: str, data: bytes) -> int | None: ...

    def remove(self, name: str) -> None: ...

    def rename(self, name: str, other: str) -> None: ...


class Folder:
    """On this machine."""

    def __init__(self, root: Path) -> None:
        self.root, self.url = root, str(root)

    def names(self) -> list[str]:
        return sorted(
            str(file.relative_to(self.root)) for file in self.root.rglob("*") if file.is_file()
        )

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes, mtime_ns: int | None = None) -> int | None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = self.root.parent / "aside"
        aside.write_bytes(data)
        if mtime_ns is not None:
            os.utime(aside, ns=(mtime_ns, mtime_ns))
        aside.rename(file)
        return file.stat().st_mtime_ns

    def append(self, name: str, data: bytes) -> int | None:
        with open(self.root / name, "ab") as file:
            file.write(data)
        return (self.root / name).stat().st_mtime_ns

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def rename(self, name: str, other: str) -> None:
        (self.root / other).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).rename(self.root / other)


class Bucket:
    """On an S3 server, reached past whatever fails on a run's way to it."""

    def __init__(self, url: str, endpoint: str) -> None:
        import s3fs

        self.url = url
        self._root = url.removeprefix("s3://")
        self._fs: Any = s3fs.S3FileSystem(
            key="test",
            secret="test-secret",
            endpoint_url=endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def names(self) -> list[str]:
        try:
            return sorted(path.removeprefix(f"{self._root}/") for path in self._fs.find(self._root))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        data: bytes = self._fs.cat_file(f"{self._root}/{name}")
        return data

    def write(self, name: str, data: bytes, mtime_ns: int | None = None) -> int | None:
        self._fs.pipe_file(f"{self._root}/{name}", data)
        return None

    def append(self, name: str, data: bytes) -> int | None:
        return self.write(name, self.read(name) + data)

    def remove(self, name: str) -> None:
        self._fs.rm_file(f"{self._root}/{name}")

    def rename(self, name: str, other: str) -> None:
        self.write(other, self.read(name))
        self.remove(name)
