"""The labels are the state: where every file of an output lies, and what is there already.

There is no database. Listing the output tells what is done. Nothing that says what is true is ever
overwritten: a marker's name holds which file it speaks of, so that a listing also tells where the
two disagree. A unit's name is its row range: saved ranges are kept and only the gaps are cut again,
whatever the unit size is now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa

from moderay.core.decision_rule import DecisionRule
from moderay.core.hashing import digest, number
from moderay.core.storage import create, files_below, filesystem, get, put_bytes
from moderay.corpus.ranges import Range
from moderay.labels.records import OfShard, ShardMarker

T = TypeVar("T")

# Files that are read side by side, to hide a store's latency; and how many of them are held while
# they wait for whoever asked.
READERS, READ_AHEAD = 16, 1024
# Parts that shards fall into by a hash of their names, so that several drivers can share them out.
SLOTS = 1024
# Bytes of a folder's or file's name in state; a longer one ends in a hash. A marker's name has some
# 70 more, and most file systems take 255.
NAME_BYTES = 120

PRIVATE = "_moderay"


class MarkerName(NamedTuple):
    """What a marker's name says.

    Attributes:
        key: Of the shard: its file, the cascade, and which rows are judged.
        decision: Hash of what its verdicts became.
        run: The run that published it.
        stamp: Of the label file, as `file_stamp` gives it.
    """

    key: str
    decision: str
    run: int
    stamp: str


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
        return f"{self.root}/{PRIVATE}/{name}"

    def unit(self, shard: str, rows: Range, key: str) -> str:
        """Path of a saved unit."""
        return self.private(f"units/{state_name(shard)}/{rows[0]}-{rows[1]}-{key}.arrow")

    def marker(self, shard: str, name: MarkerName) -> str:
        """Path of the marker of a published shard."""
        return self.private(f"shards/{state_name(shard)}-{'-'.join(map(str, name))}.json")

    def write(self, path: str, data: bytes) -> None:
        """Write a file as a whole."""
        put_bytes(self.fs, path, data, self.private("tmp"))

    def create(self, path: str, data: bytes) -> bool:
        """Write a file as a whole, unless there is one; whether it was written."""
        return create(self.fs, path, data)


def decision_hash(rules: Iterable[DecisionRule], columns: pa.Schema) -> str:
    """Of what verdicts become.

    Args:
        rules: Of the policies.
        columns: Those of the input that are carried over.
    """
    rules = tuple(rules)
    thresholds = {rule.policy: rule.threshold for rule in rules}
    maps = {
        rule.policy: [made.judge, made.method, [list(each) for each in made.numbers]]
        for rule in rules
        if (made := rule.calibration) is not None
    }
    carried = {field.name: str(field.type) for field in columns}
    # Without calibrations as it was when there were none.
    return digest([thresholds, maps, carried] if maps else [thresholds, carried])


def slot(shard: str) -> int:
    """Which of the `SLOTS` a shard falls into, today and for ever."""
    return number(f"slot:{shard}") % SLOTS


def file_stamp(size: int, version: str) -> str:
    """By this a file is told from another of its name: a hash of its size, and its etag or time."""
    return digest([size, version])


def marker_name(marker: ShardMarker, key: str, decision: str) -> MarkerName:
    """The name of a marker of this shard key and decision."""
    file = marker.label_file
    return MarkerName(key, decision, marker.run, file_stamp(file.size, file.version))


def state_name(shard: str) -> str:
    """A shard's name as a path below `_moderay/units` and `_moderay/shards`.

    Every store and file system takes it, whatever the input's names hold: other characters than
    letters, digits and `._=-` are escaped as in a URL, and what is then too long is cut and ends in
    a hash.
    """
    return "/".join(map(_escaped, shard.split("/")))


def _escaped(part: str) -> str:
    escaped = quote(part, safe="=", errors="surrogateescape").replace("~", "%7E")
    if not escaped.strip("."):  # a step up, or none
        escaped = escaped.replace(".", "%2E")
    if len(escaped) <= NAME_BYTES:
        return escaped
    return f"{escaped[: NAME_BYTES - 17]}~{digest(escaped)}"


def shard_name(name: str) -> str | None:
    """The shard that `state_name` made this of; None where it was too long to tell."""
    return None if "~" in name else unquote(name, errors="surrogateescape")


@dataclass(frozen=True)
class State:
    """What an output holds.

    Attributes:
        units: Saved ranges by shard, as `state_name` has it, and key; in order, overlaps included.
        markers: By published shard.
        stamps: Of the files that are not moderay's own, by path below the output.
        scratch: Paths of files that were not finished, with the run under which they lie.
    """

    units: Mapping[str, Mapping[str, tuple[Range, ...]]]
    markers: Mapping[str, tuple[MarkerName, ...]]
    stamps: Mapping[str, str]
    scratch: tuple[str, ...] = ()

    def published(self, shard: str) -> MarkerName | None:
        """The marker that speaks of the label file that is there; None where none does.

        A driver that slept while another one took over may have written its file or its marker
        since.
        """
        there = self.stamps.get(shard)
        true = [name for name in self.markers.get(shard, ()) if name.stamp == there]
        return max(true, key=lambda name: name.run, default=None)

    @property
    def lost(self) -> list[str]:
        """Published shards whose label files are gone, or are not those that were published."""
        return sorted(shard for shard in self.markers if self.published(shard) is None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing that was judged is there: neither a unit nor a label file."""
        return not self.units and not any(shard in self.stamps for shard in self.markers)

    def units_of(self, shard: str) -> Mapping[str, tuple[Range, ...]]:
        """Saved ranges of a shard, by key."""
        return self.units.get(state_name(shard), {})


def list_state(layout: Layout) -> State:
    """One listing; the cost grows with files, never with rows.

    Raises:
        RecordRefusedError: A marker whose shard's name was too long for its own is damaged.
    """
    units: dict[str, dict[str, list[Range]]] = {}
    markers: dict[str, list[MarkerName]] = {}
    stamps: dict[str, str] = {}
    scratch: list[str] = []
    for file in files_below(layout.fs, layout.root):
        if not file.name.startswith(f"{PRIVATE}/"):
            stamps[file.name] = file_stamp(file.size, file.version)
        elif match := _UNIT.fullmatch(file.name):
            rows = (int(match[2]), int(match[3]))
            units.setdefault(match[1], {}).setdefault(match[4], []).append(rows)
        elif match := _MARKER.fullmatch(file.name):
            name = MarkerName(match[2], match[3], int(match[4]), match[5])
            markers.setdefault(match[1], []).append(name)
        elif file.name.startswith(f"{PRIVATE}/tmp/"):
            scratch.append(f"{layout.root}/{file.name}")
    return State(
        {
            name: {key: tuple(sorted(ranges)) for key, ranges in keys.items()}
            for name, keys in units.items()
        },
        {
            shard: tuple(names)
            for (_, names), shard in zip(
                markers.items(), _shards_of(layout, markers, stamps), strict=True
            )
        },
        stamps,
        tuple(scratch),
    )


def _shards_of(
    layout: Layout, markers: Mapping[str, Sequence[MarkerName]], files: Iterable[str]
) -> Iterator[str]:
    """The shards that markers are of, by the names that these have.

    A long one is known by its label file; where that is gone, by what the marker says.
    """
    long = {name: file for file in files if "~" in (name := state_name(file))}
    for name, of_shard in markers.items():
        shard = shard_name(name) or long.get(name)
        if shard is None:
            path = layout.private(f"shards/{name}-{'-'.join(map(str, of_shard[0]))}.json")
            shard = OfShard.from_json(get(layout.fs, path), path).shard
        yield shard


_UNIT = re.compile(PRIVATE + r"/units/(.+)/(\d+)-(\d+)-([0-9a-f]{16})\.arrow")
_MARKER = re.compile(
    PRIVATE + r"/shards/(.+)-([0-9a-f]{16})-([0-9a-f]{16})-(\d+)-([0-9a-f]{16})\.json"
)


def published_markers(layout: Layout, state: State | None = None) -> dict[str, ShardMarker]:
    """The markers of an output's published shards, by shard, in order.

    Args:
        layout: of the output.
        state: what it holds, where that is known.

    Raises:
        RecordRefusedError: a marker is of another version, or damaged.
    """
    state = state or list_state(layout)
    paths = [
        layout.marker(shard, name)
        for shard in sorted(state.markers)
        if (name := state.published(shard)) is not None
    ]
    return {marker.shard: marker for marker in read_markers(layout, paths)}


def read_markers(layout: Layout, paths: Sequence[str]) -> Iterator[ShardMarker]:
    """What published shards are, one after the other: there may be 10^5 of them.

    Raises:
        RecordRefusedError: a marker is of another version, or damaged.
    """
    for path, data in read_files(layout, paths):
        yield ShardMarker.from_json(data, path)


def read_files(layout: Layout, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of files that are there, in order."""
    return each_file(paths, lambda path: get(layout.fs, path))


def each_file(paths: Iterable[str], read: Callable[[str], T]) -> Iterator[tuple[str, T]]:
    """(path, what `read` makes of it), in order; files are read side by side."""
    waiting = list(paths)
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(waiting), READ_AHEAD):
            some = waiting[start : start + READ_AHEAD]
            yield from zip(some, pool.map(read, some), strict=True)
