"""What lies in a store: below a folder, or under a pattern; on this machine links are followed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fsspec.utils import glob_translate

from moderay.core.storage.retries import patiently
from moderay.core.storage.urls import is_local

# Ways to one and the same folder that are followed. Of two links in each of thirty folders to the
# next there are a billion.
MOST_WAYS = 1_000

# Whether a folder of this name is looked into.
Enter = Callable[[str], bool]


@dataclass
class Listing:
    """Files of a store.

    Attributes:
        files: Their details by path: `size` where the store knows it, and on this machine
            `ctime_ns` and `real`, the path without links.
        others: Paths of what is neither file nor folder, of links back to a folder above, and,
            with a slash at the end, of folders that are not looked into.
        lost: By path of what may hold files and cannot be looked into: why.
        behind: Real paths of the folders behind links.
    """

    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    behind: set[str] = field(default_factory=set)


def list_folder(fs: Any, path: str, enter: Enter | None = None) -> Listing:
    """Every file below a folder; nothing where there is no such folder.

    A link back to a folder above it ends there.

    Args:
        fs: Its file system.
        path: Its path there.
        enter: Which folders in it are looked into: on this machine alone, since other stores list
            all at once. By default all.
    """
    fs.invalidate_cache()
    if is_local(fs):
        return _Walk(path, enter).listing if os.path.isdir(path) else Listing()
    with suppress(FileNotFoundError):
        return Listing(patiently(fs, lambda: fs.find(path, detail=True)))
    return Listing()


def list_glob(fs: Any, pattern: str, enter: Enter | None = None) -> Listing:
    """Every file whose path a pattern matches, as `list_folder` does otherwise.

    Raises:
        ValueError: It is no pattern.
    """
    fs.invalidate_cache()
    if not is_local(fs):
        files = patiently(fs, lambda: fs.glob(pattern, detail=True))
        return Listing({name: info for name, info in files.items() if info["type"] == "file"})
    matches = re.compile(glob_translate(pattern)).match
    root = glob_root(pattern)
    if not os.path.isdir(root):
        return Listing()
    deep = None if "**" in pattern else pattern.count("/", len(root.rstrip("/")) + 1)
    walk = _Walk(root, enter, deep)
    listing = walk.listing
    return Listing(
        {name: info for name, info in listing.files.items() if matches(name)},
        [name for name in listing.others if name.endswith("/") or matches(name)],
        {name: why for name, why in listing.lost.items() if matches(name) or walk.enters(name)},
        listing.behind,
    )


def glob_root(pattern: str) -> str:
    """The folder above the first part of a path that is a pattern."""
    parts = pattern.split("/")
    is_pattern = [any(char in part for char in "*?[") for part in parts]
    return "/".join(parts[: is_pattern.index(True)]) or "/"


# A folder by the path that led to it, and the real paths of those on the way, its own the last.
_Way = tuple[str, tuple[str, ...]]


class _Walk:
    """A walk through a folder of this machine."""

    def __init__(self, root: str, enter: Enter | None, deep: int | None = None) -> None:
        """Walks.

        Args:
            root: The folder.
            enter: Which folders in it are looked into.
            deep: Folders in each other at most, without the first; None: as many as there are.

        Raises:
            OSError: The folder itself cannot be listed.
        """
        self.listing = Listing()
        self._root = root.rstrip("/")
        self._enter = enter
        self._deep = deep
        self._ways = Counter[str]()
        self._left: list[_Way] = [(self._root, (os.path.realpath(root),))]
        while self._left:
            self._look_into(*self._left.pop())

    def enters(self, path: str) -> bool:
        """Whether something of this path, if it were a folder, would be looked into."""
        return self._deep is None or path.count("/", len(self._root)) <= self._deep

    def _look_into(self, folder: str, above: tuple[str, ...]) -> None:
        try:
            entries = sorted(os.scandir(folder or "/"), key=lambda entry: entry.name)
        except FileNotFoundError:  # it is gone since
            return
        except OSError as error:
            if folder == self._root:
                raise
            self.listing.lost[folder] = _reason(error)
            return
        for entry in entries:
            path = f"{folder}/{entry.name}"
            try:
                self._sort_in(entry, path, above)
            except FileNotFoundError:  # it is gone since
                continue
            except OSError as error:
                self.listing.lost[path] = _reason(error)

    def _sort_in(self, entry: os.DirEntry[str], path: str, above: tuple[str, ...]) -> None:
        """What an entry is, behind its links."""
        if entry.is_dir():
            if self.enters(path):
                self._follow(entry, path, above)
        elif entry.is_file():
            self.listing.files[path] = _details(entry, path, above[-1])
        elif entry.is_symlink() and not os.path.exists(path):
            self.listing.lost[path] = f"a link to {os.readlink(path)}, which is not there"
        else:
            self.listing.others.append(path)

    def _follow(self, entry: os.DirEntry[str], path: str, above: tuple[str, ...]) -> None:
        """Take a folder for one to look into, unless there is a reason not to."""
        real = _real(entry, above[-1])
        if self._enter is not None and not self._enter(entry.name):
            self.listing.others.append(f"{path}/")
        elif real in above:
            self.listing.others.append(path)
        elif self._ways[real] == MOST_WAYS:
            self.listing.lost[path] = f"links lead to this folder in more than {MOST_WAYS:,} ways"
        else:
            self._ways[real] += 1
            if entry.is_symlink():
                self.listing.behind.add(real)
            self._left.append((path, (*above, real)))


def _real(entry: os.DirEntry[str], folder: str) -> str:
    """An entry's real path, from that of its folder, which may be much shorter than its path."""
    path = os.path.join(folder, entry.name)
    return os.path.realpath(path) if entry.is_symlink() else path


def _details(entry: os.DirEntry[str], path: str, folder: str) -> dict[str, Any]:
    """As fsspec's `info`, of the file that a link leads to."""
    status = entry.stat()
    return {
        "name": path,
        "type": "file",
        "size": status.st_size,
        "mtime": status.st_mtime,
        "ctime_ns": status.st_ctime_ns,
        "real": _real(entry, folder),
    }


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
