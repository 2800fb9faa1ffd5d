"""The labels are the state: where every file of an output lies, and what is there already.

There is no database. Listing the output tells what is done; a unit's name is its row range, so that
saved ranges are kept and only the gaps are cut again, whatever the unit size is now.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from moderay.core.storage import (
    filesystem,
    get,
    is_local,
    names_below,
    patiently,
    put_bytes,
    read,
)
from moderay.corpus.ranges import Range
from moderay.labels.manifest_record import Manifest
from moderay.labels.records import ShardMarker

# Files that are read side by side, to hide a store's latency; and how many of them are held while
# they wait for whoever asked.
READERS, READ_AHEAD = 16, 1024


@dataclass(frozen=True)
class Layout:
    """Paths of one output; picklable, workers have it too.

    Attributes:
        url: of the output's folder.
        options: of its storage, as fsspec takes them.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fs(self) -> Any:
        """The output's file system."""
        return filesystem(self.url, self.options)[0]

    @property
    def root(self) -> str:
        """The output's folder in its file system."""
        return filesystem(self.url, self.options)[1].rstrip("/")

    def label(self, shard: str) -> str:
        """Path of a shard's label file."""
        return f"{self.root}/{shard}"

    def private(self, name: str) -> str:
        """Path of a file that is moderay's own."""
        return f"{self.root}/_moderay/{name}"

    def unit(self, shard: str, rows: Range, key: str) -> str:
        """Path of a saved unit."""
        return self.private(f"units/{shard}/{rows[0]}-{rows[1]}-{key}.arrow")

    def marker(self, shard: str, key: str, decision: str) -> str:
        """Path of the marker of a published shard."""
        return self.private(f"shards/{shard}-{key}-{decision}.json")

    def write(self, path: str, data: bytes) -> None:
        """Write a file as a whole."""
        put_bytes(self.fs, path, data, self.private("tmp"))


@dataclass(frozen=True)
class State:
    """What an output holds.

    Attributes:
        units: saved ranges by shard and key, in order, overlaps included.
        markers: (key, decision) by published shard.
    """

    units: Mapping[str, Mapping[str, tuple[Range, ...]]]
    markers: Mapping[str, tuple[tuple[str, str], ...]]


def list_state(layout: Layout) -> State:
    """Two listings; the cost grows with files, never with rows."""
    units: dict[str, dict[str, list[Range]]] = {}
    markers: dict[str, list[tuple[str, str]]] = {}
    for name in names_below(layout.fs, layout.private("units")):
        if match := _UNIT.fullmatch(name):
            units.setdefault(match[1], {}).setdefault(match[4], []).append(
                (int(match[2]), int(match[3]))
            )
    for name in names_below(layout.fs, layout.private("shards")):
        if match := _MARKER.fullmatch(name):
            markers.setdefault(match[1], []).append((match[2], match[3]))
    ordered = {
        shard: {key: tuple(sorted(ranges)) for key, ranges in keys.items()}
        for shard, keys in units.items()
    }
    return State(ordered, {shard: tuple(names) for shard, names in markers.items()})


_UNIT = re.compile(r"(.+)/(\d+)-(\d+)-([0-9a-f]{16})\.arrow")
_MARKER = re.compile(r"(.+)-([0-9a-f]{16})-([0-9a-f]{16})\.json")


_MANIFEST = "/_moderay/manifest.json"


def outputs(url: str, options: Mapping[str, Any]) -> list[str]:
    """The outputs that a glob such as labels/date=* names, in order."""
    fs, path = filesystem(url, options)
    folders = sorted(
        name.removesuffix(_MANIFEST)
        for name in patiently(fs, lambda: fs.glob(path.rstrip("/") + _MANIFEST))
    )
    return folders if is_local(fs) else [fs.unstrip_protocol(name) for name in folders]


def read_manifest(layout: Layout) -> Manifest | None:
    """The output's manifest; None where there is none.

    Raises:
        RecordRefusedError: it is of another version, or damaged.
    """
    path = layout.private("manifest.json")
    data = read(layout.fs, path)
    return None if data is None else Manifest.from_json(data, path)


def write_manifest(layout: Layout, manifest: Manifest) -> None:
    """Write it in the place of the one before."""
    layout.write(layout.private("manifest.json"), manifest.to_json())


def read_markers(layout: Layout, paths: Sequence[str]) -> Iterator[ShardMarker]:
    """What published shards are, one after the other: there may be 10^5 of them.

    Raises:
        RecordRefusedError: a marker is of another version, or damaged.
    """
    for path, data in read_files(layout, paths):
        yield ShardMarker.from_json(data, path)


def read_files(layout: Layout, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of files that are there, in order."""
    fs = layout.fs
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), READ_AHEAD):
            some = paths[start : start + READ_AHEAD]
            yield from zip(some, pool.map(lambda path: get(fs, path), some), strict=True)
