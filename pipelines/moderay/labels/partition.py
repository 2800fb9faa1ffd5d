"""A partition of the index of verdicts: where they lie, by content hash; and what is asked of it.

It knows nothing of Ray, which makes it an actor (`labels/index.py`); a reader has one of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Numbers = npt.NDArray[Any]

# An entry says for which policies in the bits of one number; a job's further policies are judged
# anew for every duplicate.
MOST_POLICIES = 64
# Of two neighbouring runs of entries the older is this many times the newer, or they are merged.
RATIO = 4
# Rows of a run: the key, where the verdicts lie (number of the file << 32 | row), and the policies
# they count for.
KEY, WHERE, MASK = range(3)


class Source(NamedTuple):
    """A shard's labels: this run's, or the label file of an earlier output.

    Attributes:
        output: in which output; a number that the reader knows.
        shard: path of the label file below the output.
        units: the key that this run's units are saved under.
        run: this run's number, by which its label file is known when that takes the units' place.
        version: of an earlier output's file (`lookup.file_version`): what was indexed.
    """

    output: int
    shard: str
    units: str = ""
    run: int = -1
    version: str = ""


class File(NamedTuple):
    """A saved unit, or a label file.

    Attributes:
        source: whose it is.
        start: first row of a unit.
        end: the row after its last one; both are 0 for a label file.
    """

    source: Source
    start: int = 0
    end: int = 0


class Entries(NamedTuple):
    """What one partition knows of some keys; the arrays are parallel.

    Attributes:
        at: positions of the keys that it knows among those of the request, rising.
        files: files that the entries lie in.
        file: number in `files`.
        row: position in the input file.
        mask: policies.
    """

    at: Numbers
    files: list[File]
    file: Numbers
    row: Numbers
    mask: Numbers


class Size(NamedTuple):
    """What a partition holds.

    Attributes:
        entries: one that was added again counts twice until it is merged.
        bytes: of memory.
    """

    entries: int
    bytes: int


@dataclass(frozen=True)
class Hits:
    """Where verdicts on contents lie; the arrays are parallel to the hashes.

    Attributes:
        hashes: of the contents.
        files: files that the verdicts lie in.
        file: number in `files`, -1 where nothing is known.
        row: position in the input file.
        mask: bit i stands for the index's policy i.
    """

    hashes: Sequence[str | None]
    files: tuple[File, ...]
    file: Numbers
    row: Numbers
    mask: Numbers


def hash_keys(hashes: pa.StringArray) -> Numbers:
    """The first 8 of each hash's 16 bytes, as uint64; none may be null.

    Half a hash is enough to look at a row: the whole one is compared where the verdict is read.

    Raises:
        ValueError: a text is no content hash.
    """
    fixed = hashes.cast(pa.binary()).cast(pa.binary(32))
    text = (
        np.frombuffer(fixed.buffers()[1], "S32", len(fixed), fixed.offset * 32)
        if len(fixed)
        else np.empty(0, "S32")
    )
    return np.frombuffer(bytes.fromhex(text.tobytes().decode("ascii")), ">u8")[::2].astype(
        np.uint64
    )


def policy_masks(columns: Sequence[npt.NDArray[np.bool_]], rows: int) -> Numbers:
    """For each of `rows` rows a uint64 whose bit i is column i."""
    masks = np.zeros(rows, np.uint64)
    for bit, column in enumerate(columns[:MOST_POLICIES]):
        masks |= column.astype(np.uint64) << np.uint64(bit)
    return masks


class Partition:
    """The entries of some hashes: 24 bytes each, in sorted runs of growing length.

    An actor, or used as it is.
    """

    def __init__(self) -> None:
        """Of no entries yet."""
        self._sources: dict[Source, int] = {}
        self._names: list[Source] = []
        # Three numbers for each file: its source, `start` and `end`. A unit has few rows in each
        # partition, so that a file may not cost much more than an entry.
        self._files = array("Q")
        self._runs: list[Numbers] = []  # the oldest first

    def add(self, file: File, keys: Numbers, rows: Numbers, masks: Numbers) -> None:
        """Entries of one file: uint64 keys, rows below 2**32, masks.

        Of two for a key the one with more policies stays, of two alike the newer.
        """
        if not len(keys):
            return
        number = len(self._files) // 3
        self._files.extend((self._number(file.source), file.start, file.end))
        self._runs.append(_run(keys, np.uint64(number << 32) | rows.astype(np.uint64), masks))
        while len(self._runs) > 1 and self._runs[-2].shape[1] < RATIO * self._runs[-1].shape[1]:
            newer = self._runs.pop()
            self._runs[-1] = _merged(self._runs[-1], newer)

    def find(self, keys: Numbers) -> Entries:
        """The best entry of each key that has one; keys are uint64, in any order."""
        order = np.argsort(keys)  # neighbours in a long run are in the processor's cache
        best = np.zeros((3, len(keys)), np.uint64)
        for run in self._runs:
            _improve(best, run, keys[order])
        at = np.flatnonzero(best[MASK])
        numbers, file = np.unique(best[WHERE, at] >> np.uint64(32), return_inverse=True)
        back = np.argsort(order[at])
        files = [self._file(int(number)) for number in numbers]
        row = (best[WHERE, at] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        return Entries(order[at][back], files, file[back], row[back], best[MASK, at][back])

    def size(self) -> Size:
        """What it holds now."""
        return Size(
            sum(run.shape[1] for run in self._runs),
            sum(run.nbytes for run in self._runs) + self._files.itemsize * len(self._files),
        )

    def _number(self, source: Source) -> int:
        if source not in self._sources:
            self._sources[source] = len(self._names)
            self._names.append(source)
        return self._sources[source]

    def _file(self, number: int) -> File:
        source, start, end = self._files[3 * number : 3 * number + 3]
        return File(self._names[source], start, end)


def _run(keys: Numbers, where: Numbers, masks: Numbers) -> Numbers:
    """Entries (3, n) sorted by key, each key once."""
    order = np.lexsort((np.bitwise_count(masks), keys))
    last = np.append(keys[order][1:] != keys[order][:-1], True)
    return np.stack([keys, where, masks])[:, order[last]]


def _merged(old: Numbers, new: Numbers) -> Numbers:
    """Two runs as one; `old` is overwritten."""
    at, same = _positions(old, new[KEY])
    better = same.copy()
    better[same] = np.bitwise_count(new[MASK, same]) >= np.bitwise_count(old[MASK, at[same]])
    old[:, at[better]] = new[:, better]
    return np.insert(old, at[~same], new[:, ~same], axis=1)


def _improve(best: Numbers, run: Numbers, keys: Numbers) -> None:
    """Write into `best` what a newer run knows better of the keys."""
    at, same = _positions(run, keys)
    hit = np.flatnonzero(same)
    known = run[:, at[hit]]
    better = np.bitwise_count(known[MASK]) >= np.bitwise_count(best[MASK, hit])
    best[:, hit[better]] = known[:, better]


def _positions(run: Numbers, keys: Numbers) -> tuple[Numbers, Numbers]:
    """Where in the run each key stands or belongs, and whether it stands there."""
    at = np.searchsorted(run[KEY], keys)
    return at, run[KEY, np.minimum(at, run.shape[1] - 1)] == keys


def hits(hashes: Sequence[str | None], answers: Sequence[tuple[Numbers, Entries]]) -> Hits:
    """Answers of partitions as one.

    Args:
        hashes: of all contents.
        answers: each with the positions in `hashes` of the keys that the partition was sent.
    """
    files: dict[File, int] = {}
    rows = len(hashes)
    merged = Hits(
        hashes, (), np.full(rows, -1, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.uint64)
    )
    for positions, entries in answers:
        numbers = np.array([files.setdefault(file, len(files)) for file in entries.files], np.int64)
        at = positions[entries.at]
        merged.file[at] = numbers[entries.file]
        merged.row[at] = entries.row
        merged.mask[at] = entries.mask
    return Hits(hashes, tuple(files), merged.file, merged.row, merged.mask)
