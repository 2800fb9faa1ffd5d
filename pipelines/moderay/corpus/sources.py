"""Sources -> files: what a job's `input.path` names, each entry by itself."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from moderay.config.job import Job
from moderay.core.errors import UserError
from moderay.core.storage import (
    Listing,
    canonical,
    details,
    filesystem,
    glob_root,
    is_glob,
    is_local,
    is_web,
    list_folder,
    list_glob,
    listed_url,
    plain_errors,
    shown,
    version,
)
from moderay.corpus.formats import is_input, is_text, label_file, suffix
from moderay.corpus.names import storable
from moderay.corpus.shard import Shard
from moderay.corpus.source import UNKNOWN, Source
from moderay.corpus.table_source import table_source
from moderay.corpus.tables.location import parse


def list_source(url: str, job: Job) -> Source:
    """What an entry of `input.path` names.

    A file or folder whose name begins with `_` or `.` is no input; nor is, in a folder, a file of
    another kind.

    Raises:
        UserError: The storage refuses, or it is no pattern.
        TryAgainError: The storage does not answer.
    """
    if (table := parse(url)) is not None:
        return table_source(url, table, job)
    fs, path = filesystem(url, job.storage)
    with plain_errors(url):
        named = _Named(url, fs, *_listed(fs, path, url))
    shards = []
    real = {}
    lost = {}
    has_text = job.input.text is not None
    passed_over = [name for name in map(named.below, named.listing.others) if name]
    for file, info in named.listing.files.items():
        name = named.below(file)
        if (hidden := _hidden(name)) or not (named.chosen or is_input(name, has_text)):
            passed_over.append(hidden or name)
        elif why := _unreadable_name(fs, file, name):
            lost[name] = why
        else:
            shards.append(_shard(named, file, name, info, job.input.text == "file"))
            real[_canonical(fs, file, info)] = shards[-1].url
    for path, why in named.listing.lost.items():
        name = named.below(path)
        may_hold_input = is_input(name, has_text) or "." not in posixpath.basename(name)
        if may_hold_input and not _hidden(name):
            lost[name] = why
        else:
            passed_over.append(name)
    return Source(
        url,
        tuple(shards),
        {_printable(name): why for name, why in lost.items()},
        tuple(dict.fromkeys(map(_printable, passed_over))),
        named.roots,
        real,
    )


@dataclass(frozen=True)
class _Named:
    """What an entry was found to name.

    Attributes:
        url: As the job has it.
        fs: Its file system.
        base: The path of the folder or file it begins at.
        root: The path of the folder that names are seen from.
        listing: The files.
        chosen: Whether each of them was named or matched, whatever its kind.
    """

    url: str
    fs: Any
    base: str
    root: str
    listing: Listing
    chosen: bool

    def below(self, path: str) -> str:
        """The name of a listed path, below the root."""
        root = self.root
        if is_web(self.fs):
            # What only says which version of a file it is, or who may read it, is no name.
            path, root = shown(path), shown(root)
            plain = path.partition("?")[0]
            path = plain if suffix(plain) else path
        return path.removeprefix(root.rstrip("/") + "/")

    @property
    def roots(self) -> tuple[str, ...]:
        """As `Source.roots`."""
        base = os.path.realpath(self.base) if is_local(self.fs) else self.base
        return tuple(canonical(self.fs, path) for path in (base, *sorted(self.listing.behind)))


def _listed(fs: Any, path: str, url: str) -> tuple[str, str, Listing, bool]:
    """Base, root, listing and `chosen` of `_Named`."""
    fs.invalidate_cache()
    if is_glob(fs, path):
        try:
            return glob_root(path), glob_root(path), list_glob(fs, path, _enter), True
        except ValueError as error:
            raise UserError(f"input.path: {url}: {error}") from None
    # A folder of the web is told from a file by its end alone.
    if not (is_web(fs) and path.endswith("/")):
        info = _info(fs, path)
        if info.get("type") == "file":
            root = posixpath.dirname(path.partition("?")[0] if is_web(fs) else path)
            return path, root, Listing({path: info}), True
    return path, path, list_folder(fs, path, _enter), False


def _enter(name: str) -> bool:
    return not name.startswith(("_", "."))


def _info(fs: Any, path: str) -> dict[str, Any]:
    """A file's or a folder's details; nothing where there is none.

    fsspec's own `isfile` takes every failure for a no.
    """
    try:
        return details(fs, path)
    except FileNotFoundError:
        return {}


def _hidden(name: str) -> str:
    """The first hidden part of a name, with what is before it; nothing where none is hidden."""
    parts = name.split("/")
    for number, part in enumerate(parts, start=1):
        if not _enter(part):
            return "/".join(parts[:number]) + ("/" if number < len(parts) else "")
    return ""


def _unreadable_name(fs: Any, path: str, name: str) -> str:
    """Why a name cannot be that of a label file, or another file would be read by it; else nothing.

    What is listed is not always what is opened: libraries take some names for more than a name.
    """
    if not all(name.split("/")):
        return "a part of its path is empty"
    if "s3" in fs.protocol and "?versionId=" in path:
        return "what begins with ?versionId= is not taken for a part of its name"
    if is_web(fs) and ("#" in path or {".", ".."} & set(unquote(path).split("/"))):
        return "its address is one of another file"
    return ""


def _shard(named: _Named, path: str, name: str, info: Mapping[str, Any], whole: bool) -> Shard:
    return Shard(
        url=listed_url(named.fs, path, named.url),
        name=label_file(name),
        size=UNKNOWN if info.get("size") is None else int(info["size"]),
        version=version(info),
        partitions=path_values(name),
        store=named.url,
        path=path,
        ctime_ns=info.get("ctime_ns"),
        whole=whole and is_text(name),
    )


def path_values(name: str) -> tuple[tuple[str, str], ...]:
    """Hive keys of the folders in a name, with their values.

    A key that has two values has none: which of them counts, nobody says.
    """
    parts = [part.partition("=") for part in name.split("/")[:-1]]
    values: dict[str, set[str]] = {}
    for key, equals, value in parts:
        if equals:
            values.setdefault(_as_text(key), set()).add(_as_text(value))
    return tuple((key, min(of_key)) for key, of_key in values.items() if len(of_key) == 1)


def _as_text(name: str) -> str:
    """A name whose bytes may be no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _printable(name: str) -> str:
    """A name as it may stand in a record or a message."""
    return "/".join(map(storable, name.split("/")))


def _canonical(fs: Any, path: str, info: Mapping[str, Any]) -> str:
    """As `canonical_url`."""
    if not is_local(fs):
        return canonical(fs, path)
    return canonical(fs, info.get("real") or os.path.realpath(path))
