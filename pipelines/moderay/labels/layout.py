"""The labels are the state: where every file of an output lies, what is there already, and who may
write.

There is no database. Listing the output tells what is done; a unit's name is its row range, so that
saved ranges are kept and only the gaps are cut again, whatever the unit size is now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Layout:
    """Paths of one output; picklable, workers have it too."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fs(self) -> Any:
        return filesystem(self.url, self.options)[0]

    @property
    def root(self) -> str:
        return filesystem(self.url, self.options)[1].rstrip("/")

    def label(self, shard: str) -> str:
        return f"{self.root}/{shard}"

    def private(self, name: str) -> str:
        return f"{self.root}/_moderay/{name}"

    def unit(self, shard: str, rows: Range, key: str) -> str:
        return self.private(f"units/{shard}/{rows[0]}-{rows[1]}-{key}.arrow")

    def marker(self, shard: str, key: str, decision: str) -> str:
        return self.private(f"shards/{shard}-{key}-{decision}.json")

    def write(self, path: str, data: bytes) -> None:
        put_bytes(self.fs, path, data, self.private("tmp"))


@dataclass(frozen=True)
class State:
    """What an output holds. `units`: saved ranges by shard and key, in order, overlaps included.
    `markers`: (key, decision) by published shard.
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
    return State(ordered, {shard: tuple(found) for shard, found in markers.items()})


_UNIT = re.compile(r"(.+)/(\d+)-(\d+)-([0-9a-f]{16})\.arrow")
_MARKER = re.compile(r"(.+)-([0-9a-f]{16})-([0-9a-f]{16})\.json")


_MANIFEST = "/_moderay/manifest.json"


def outputs(url: str, options: Mapping[str, Any]) -> list[str]:
    """The outputs that a glob such as labels/date=* names, in order."""
    fs, path = filesystem(url, options)
    found = sorted(
        name.removesuffix(_MANIFEST)
        for name in patiently(fs, lambda: fs.glob(path.rstrip("/") + _MANIFEST))
    )
    return found if is_local(fs) else [fs.unstrip_protocol(name) for name in found]


def read_manifest(layout: Layout) -> dict[str, Any] | None:
    data = read(layout.fs, layout.private("manifest.json"))
    return None if data is None else json.loads(data)


def read_markers(layout: Layout, paths: Sequence[str]) -> list[dict[str, Any]]:
    """What published shards say of themselves."""
    fs = layout.fs
    with ThreadPoolExecutor(16) as pool:
        return [json.loads(data) for data in pool.map(lambda path: get(fs, path), paths)]
