"""Rows drawn from an output by chance, in strata: one streamed scan of its label files.

A row's place in the draw is a hash of the plan's salt, the row's file and its position; in each
stratum the rows with the smallest ones are drawn. Of all others nothing is kept but counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.hashing import number
from moderay.core.storage import RemoteFile
from moderay.core.verdicts import CONTENT_HASH, ROW, Status, judged_field, structs, valid
from moderay.labels.analysis.prevalence.strata import Strata, uncertainty
from moderay.labels.layout import Layout

# Rows of a batch.
STEP = 65_536
# Shards whose draws wait to be put together.
READ_AHEAD = 64

_FIELDS = ("status", "violates", "probability", "trace.decided_by", "trace.overruled")
_CANDIDATE = pa.schema(
    [
        ("stratum", pa.int64()),
        ("place", pa.uint64()),
        ("shard", pa.string()),
        ROW,
        CONTENT_HASH,
    ]
)


@dataclass(frozen=True)
class DrawRequest:
    """What is drawn; the same rows each time.

    Attributes:
        policy: id of the policy under which strata are made.
        strata: by the model's verdict and P.
        most: rows that are drawn of a stratum, at most.
        salt: another one draws other rows.
    """

    policy: str
    strata: Strata
    most: int
    salt: str


@dataclass(frozen=True)
class Drawn:
    """Rows of each stratum, counted, and those with the smallest hashes.

    Attributes:
        rows: of each stratum: (strata,).
        probability: sum of their P: (strata,).
        uncertainty: sum of their square roots of P(1-P): (strata,).
        unjudged: rows without a verdict of the model, which are in no stratum.
        candidates: `stratum`, `place` in the draw, `shard`, `row` and `content_hash`, by stratum
            and place.
    """

    rows: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64]
    unjudged: int
    candidates: pa.Table


def draw(layout: Layout, shards: Sequence[str], request: DrawRequest) -> Drawn:
    """Scan label files.

    Args:
        layout: of the output.
        shards: its published shards.
        request: what to draw.

    Raises:
        OSError: a label file cannot be had.
        pa.ArrowException: one is broken.
    """
    total = _nothing(request)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(shards), READ_AHEAD):
            some = shards[start : start + READ_AHEAD]
            parts = pool.map(lambda shard: _of_shard(layout, shard, request), some)
            total = _together([total, *parts], request)
    return total


def _nothing(request: DrawRequest) -> Drawn:
    zeros = np.zeros(len(request.strata))
    return Drawn(zeros.astype(np.int64), zeros, zeros, 0, _CANDIDATE.empty_table())


def _together(parts: Sequence[Drawn], request: DrawRequest) -> Drawn:
    return Drawn(
        np.sum([part.rows for part in parts], axis=0),
        np.sum([part.probability for part in parts], axis=0),
        np.sum([part.uncertainty for part in parts], axis=0),
        sum(part.unjudged for part in parts),
        _smallest(pa.concat_tables([part.candidates for part in parts]), request.most),
    )


def _of_shard(layout: Layout, shard: str, request: DrawRequest) -> Drawn:
    found = _nothing(request)
    for rows in _columns(layout, shard, request.policy):
        found = _together([found, _of_batch(shard, rows, request)], request)
    return found


def _columns(layout: Layout, shard: str, policy: str) -> Iterator[pa.Table]:
    """What is needed of a label file; a field that it has not is left out."""
    names = [ROW.name, CONTENT_HASH.name, *(f"{policy}.{field}" for field in _FIELDS)]
    with pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard)), pre_buffer=True) as file:
        for batch in file.iter_batches(STEP, columns=names):
            yield pa.Table.from_batches([batch])


def _of_batch(shard: str, rows: pa.Table, request: DrawRequest) -> Drawn:
    decisions = structs(rows.column(request.policy))
    judged = judged_field(decisions, "violates").is_valid()
    judged = pc.and_(judged, pc.equal(judged_field(decisions, "status"), Status.OK.value))
    known = np.asarray(judged.to_numpy(zero_copy_only=False)) & valid(rows.column(1))
    violates = judged_field(decisions, "violates").fill_null(False)
    removed = np.asarray(violates.to_numpy(zero_copy_only=False))[known]
    given = judged_field(decisions, "probability").to_numpy(zero_copy_only=False)
    probability = given.astype(np.float64)[known]
    strata = request.strata.of(probability, removed)
    filled = np.where(np.isnan(probability), removed, probability).clip(0, 1)
    count = len(request.strata)
    positions = rows.column(ROW.name).to_numpy()[known]
    columns = [
        pa.array(strata),
        pa.array(places(request.salt, shard, positions)),
        pa.array([shard]).take(pa.array(np.zeros(len(positions), np.int64))),
        pa.array(positions),
        rows.column(CONTENT_HASH.name).filter(pa.array(known)),
    ]
    return Drawn(
        np.bincount(strata, minlength=count),
        np.bincount(strata, weights=filled, minlength=count).astype(np.float64),
        np.bincount(strata, weights=uncertainty(filled), minlength=count).astype(np.float64),
        int((~known).sum()),
        _smallest(pa.table(columns, schema=_CANDIDATE), request.most),
    )


def _smallest(candidates: pa.Table, most: int) -> pa.Table:
    """Of each stratum the rows that come first in the draw, in its order."""
    strata = candidates.column("stratum").to_numpy()
    order = np.lexsort((candidates.column("place").to_numpy(), strata))
    ordered = strata[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return candidates.take(pa.array(order[rank < most]))


def places(salt: str, shard: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Where rows of a file come in a draw: splitmix64 of their positions, from a start of its own.

    See https://prng.di.unimi.it/splitmix64.c.
    """
    start = np.uint64(number(f"prevalence:{salt}:{shard}"))
    with np.errstate(over="ignore"):
        mixed = _mixed(rows.astype(np.uint64) * _STEP + start)
        return np.asarray(_mixed(mixed + _STEP))


_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
