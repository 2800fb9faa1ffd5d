"""The questions of a partition that were asked already, for contents that come again.

What is known of a question is some 30 bytes in memory; the verdicts lie in a file that is gone when
its process is.
"""

from __future__ import annotations

import mmap
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.verdicts import (
    CONTENT_HASH,
    VERDICT,
    Origin,
    Status,
    Verdict,
    scattered,
    structs,
    valid,
    verdict_array,
)
from moderay.labels.decisions import struct_of
from moderay.labels.partition import File, Partition, Source
from moderay.pipeline.messages.units import audited_column
from moderay.pipeline.stages.prepare import audited, known, with_known

Numbers = npt.NDArray[Any]

# Where a question was asked: the number of its unit << 32 | its row there; below 0: nowhere.
_ROW_BITS = 32
_NOWHERE = -1
_HERE = Source(0, "")
# Stands where a verdict is that another unit gives, so that nobody is asked.
_ELSEWHERE = Verdict(Status.OK)


class EarlierUnits:
    """Which contents were asked about under a policy, by which unit, and what came of them."""

    def __init__(self, policies: Sequence[str], folder: str | None) -> None:
        """Of no units yet.

        Args:
            policies: Ids of the job's.
            folder: Where the verdicts lie meanwhile; None: where temporary files do.
        """
        self._policies = policies
        # By policy, and whether it is an audit, which is another question about the same content.
        self._asked: dict[tuple[str, bool], Partition] = defaultdict(Partition)
        self._halves: list[Numbers] = []  # by unit, the second half of its rows' hashes
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by `close`
        self._pieces: list[tuple[int, int]] = []  # by unit, where its verdicts lie in the file

    def begin(self, table: pa.Table) -> tuple[pa.Table, dict[str, Numbers]]:
        """The next unit without the questions that units before it ask.

        Args:
            table: Rows of `units.prepared_schema`.

        Returns:
            The table, in which such questions are known; and by policy, parallel to the rows, where
            they were asked, below 0 where they are asked here.
        """
        is_askable = valid(structs(table.column("ids")))
        first, second = _halves(table.column(CONTENT_HASH.name), is_askable)
        self._halves.append(second)
        places = {}
        is_open = np.zeros(len(table), bool)
        for policy in self._policies:
            is_asked = is_askable & (~valid(known(table, policy)) | audited(table, policy))
            place = np.full(len(table), _NOWHERE)
            for is_audit in (False, True):
                rows = np.flatnonzero(is_asked & (audited(table, policy) == is_audit))
                place[rows] = self._placed((policy, is_audit), rows, first, second)
            table = _without(table, policy, place >= 0)
            is_open |= is_asked & (place < 0)
            places[policy] = place
        column = table.schema.get_field_index("ids")
        ids = pc.if_else(pa.array(is_open), structs(table.column("ids")), None)
        return table.set_column(column, table.field(column), ids), places

    def _placed(
        self, question: tuple[str, bool], rows: Numbers, first: Numbers, second: Numbers
    ) -> Numbers:
        """Where the newest unit's rows were asked about before; else they are here."""
        asked = self._asked[question]
        found = asked.find(first[rows])
        place = np.full(len(rows), _NOWHERE)
        for index, file in enumerate(found.files):
            is_there = found.file == index
            at, row = found.at[is_there], found.row[is_there]
            is_same = self._halves[file.start][row] == second[rows[at]]
            place[at[is_same]] = file.start << _ROW_BITS | row[is_same]
        own = rows[place < 0]
        asked.add(File(_HERE, len(self._halves) - 1), first[own], own, np.ones(len(own), np.uint64))
        return place

    def whole(self, judged: pa.Table, places: Mapping[str, Numbers]) -> pa.Table:
        """The next unit's verdicts, those of units before it among them; in the order of `begin`.

        Args:
            judged: Rows of `verdicts.unit_schema`.
            places: What `begin` said of them.
        """
        self._keep(judged.select(self._policies))
        for column, policy in enumerate(judged.schema.names):
            if policy in places and len(rows := np.flatnonzero(places[policy] >= 0)):
                taken = _as_duplicates(self._taken(policy, places[policy][rows]))
                verdicts = scattered(structs(judged.column(policy)), taken, rows)
                judged = judged.set_column(column, judged.field(column), verdicts)
        return judged

    def _keep(self, verdicts: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, verdicts.schema) as stream:
            stream.write_table(verdicts)
        start = self._file.tell()
        self._file.write(sink.getvalue())
        self._pieces.append((start, self._file.tell() - start))

    def _taken(self, policy: str, places: Numbers) -> pa.StructArray:
        """A policy's verdicts at these places."""
        self._file.flush()
        mapped = pa.py_buffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        order = np.argsort(places, kind="stable")
        numbers, starts = np.unique(places[order] >> _ROW_BITS, return_index=True)
        parts = []
        for number, run in zip(numbers, np.split(places[order], starts[1:]), strict=True):
            piece = pa.ipc.open_stream(mapped.slice(*self._pieces[number])).read_all()
            rows = run & (2**_ROW_BITS - 1)
            parts.append(structs(piece.column(policy)).take(pa.array(rows)))
        return pa.concat_arrays(parts).take(pa.array(np.argsort(order)))

    def close(self) -> None:
        """Forget all."""
        self._file.close()


def _halves(hashes: pa.ChunkedArray, is_wanted: Numbers) -> tuple[Numbers, Numbers]:
    """Both halves of each hash as uint64, 0 where it is not wanted."""
    rows = np.flatnonzero(is_wanted)
    digits = "".join(hashes.take(pa.array(rows)).to_pylist())
    pairs = np.zeros((len(hashes), 2), np.uint64)
    pairs[rows] = np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1].copy()


def _without(table: pa.Table, policy: str, is_known: Numbers) -> pa.Table:
    """A unit in which a policy is not asked about these rows."""
    if not is_known.any():
        return table
    stand_in = verdict_array([_ELSEWHERE], 0).take(
        pa.array(np.zeros(len(table), int), mask=~is_known)
    )
    column = table.schema.get_field_index(audited_column(policy))
    still = pa.array(audited(table, policy) & ~is_known)
    return with_known(table, {policy: stand_in}).set_column(column, table.field(column), still)


def _as_duplicates(verdicts: pa.StructArray) -> pa.StructArray:
    """The same verdicts for other rows, which cost nothing; see `judge_unit._duplicate`."""
    is_ok = pc.equal(verdicts.field("status"), Status.OK.value)
    columns = {name: verdicts.field(name) for name in VERDICT.names}
    columns["origin"] = pc.if_else(is_ok, Origin.DUPLICATE.value, columns["origin"])
    for name in ("prompt_tokens", "output_tokens"):
        columns[name] = pc.if_else(is_ok, pa.scalar(0, pa.int32()), columns[name])
    return struct_of(pa.struct(list(VERDICT)), columns)
