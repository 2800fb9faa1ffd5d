"""Where the verdicts on a content lie, by content hash.

For duplicates within a run, and for verdicts of earlier outputs. The index says where to look; one
request is for many hashes. It may forget, and it may be out of
date: what it says is proved where the verdicts are read (`payloads`). A lost partition costs work,
never a wrong label.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from moderay.core.verdicts import CONTENT_HASH, HUMAN, ROW, Status
from moderay.corpus.ranges import Range
from moderay.labels.partition import (
    MOST_POLICIES,
    Entries,
    File,
    Hits,
    Numbers,
    Partition,
    Source,
    hash_keys,
    hits,
    policy_masks,
)

# Entries that one partition is meant for: some 0.25 GB, and twice that for the second or two that
# its longest merge takes.
PARTITION_ROWS = 10_000_000
# Seconds in which a partition answers; one that does not is left alone for the seconds of QUIET_S.
# Seconds for which it is waited until one has taken in what was added.
ANSWER_S, QUIET_S, WAIT_S = 5.0, 60.0, 60.0

# What a call to a partition that is lost, is being restarted or does not answer ends in.
_SILENT = (
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.GetTimeoutError,
    ray.exceptions.NodeDiedError,
)


def _by_content(verdicts: pa.ChunkedArray) -> Numbers:
    """Bool: which of a unit's verdicts another row of the same content may take.

    What rules say may hang on other columns, and what people say is asked of them each time.
    """
    ok = pc.equal(pc.struct_field(verdicts, "status"), Status.OK.value)
    judge = pc.struct_field(verdicts, "decided_by")
    not_by_it = pc.is_in(judge, pa.array(["rules", HUMAN]))
    return np.asarray(pc.and_not(ok, not_by_it).to_numpy())


class Index:
    """Handle on the partitions, for readers and judges; picklable.

    It blocks, for `ANSWER_S` at most: in asyncio, call it in a thread (`asyncio.to_thread`).
    """

    def __init__(self, partitions: Sequence[Any], policies: Sequence[str]) -> None:
        """Of partitions; `policies`: what the bits of a mask stand for."""
        self.partitions, self.policies = tuple(partitions), tuple(policies)[:MOST_POLICIES]
        # Partitions that did not answer, and until when they are left alone.
        self._quiet: dict[int, float] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what this process knows of partitions that do not answer."""
        return Index, (self.partitions, self.policies)

    def find(self, hashes: Sequence[str | None]) -> Hits:
        """Where verdicts on these contents lie, as far as the partitions that answer know."""
        column = pa.array(hashes, pa.string())
        at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        keys = hash_keys(column.drop_null())
        now = time.monotonic()
        parts = {
            part: chosen
            for part, chosen in self._by_partition(keys)
            if self._quiet.get(part, 0.0) <= now
        }
        requests = {
            self.partitions[part].find.remote(keys[chosen]): part for part, chosen in parts.items()
        }
        answers = self._answers(requests)
        return hits(hashes, [(at[parts[part]], entries) for part, entries in answers])

    def add(self, file: File, hashes: pa.StringArray, rows: Numbers, masks: Numbers) -> list[Any]:
        """Add rows of one file; those without a hash or with an empty mask are left out.

        Returns:
            Calls that may be waited for (`wait`), or not.
        """
        good = np.flatnonzero(
            hashes.is_valid().to_numpy(zero_copy_only=False) & (masks != 0) & (rows < 2**32)
        )
        keys = hash_keys(hashes.take(pa.array(good)))
        rows = rows[good]
        masks = masks[good]
        return [
            self.partitions[part].add.remote(file, keys[at], rows[at], masks[at])
            for part, at in self._by_partition(keys)
        ]

    def add_unit(self, source: Source, rows: Range, unit: pa.Table) -> list[Any]:
        """Add a unit that is saved: `verdicts.unit_schema` rows, judged by this run or reused.

        Returns:
            Calls that may be waited for (`wait`), or not.
        """
        ok = [_by_content(unit.column(policy)) for policy in self.policies]
        hashes = unit.column(CONTENT_HASH.name).combine_chunks()
        return self.add(
            File(source, *rows),
            hashes,
            unit.column(ROW.name).to_numpy(),
            policy_masks(ok, len(unit)),
        )

    def wait(self, calls: Sequence[Any]) -> None:
        """Until partitions have taken in what was added, or are lost; at most `WAIT_S`."""
        if not calls:
            return
        ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=WAIT_S)
        for call in ready:
            # What a lost partition knew is lost: these rows are judged again.
            with suppress(*_SILENT):
                ray.get(call)

    def _by_partition(self, keys: Numbers) -> list[tuple[int, Numbers]]:
        """The partitions concerned, each with the positions of its keys.

        A partition has a range of hash prefixes.
        """
        count = len(self.partitions)
        part = ((keys >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(count + 1, dtype=np.uint64))
        return [(i, order[ends[i] : ends[i + 1]]) for i in range(count) if ends[i] < ends[i + 1]]

    def _answers(self, requests: Mapping[Any, int]) -> list[tuple[int, Entries]]:
        """Of the partitions (by request) that answer in time."""
        if not requests:
            return []
        ready, late = ray.wait(list(requests), num_returns=len(requests), timeout=ANSWER_S)
        answers = []
        for call in ready:
            with suppress(*_SILENT):  # no hits: the rows are judged
                answers.append((requests[call], ray.get(call, timeout=ANSWER_S)))
        self._quiet.update({requests[call]: time.monotonic() + QUIET_S for call in late})
        return answers


def start_index(rows: int, policies: Sequence[str]) -> Index:
    """Partitions for the verdicts on `rows` rows, spread over the cluster.

    They use no CPU of their own; one that dies comes back empty. They live as long as the caller
    holds this handle, or a Ray task or actor one that was passed to it.
    """
    options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": "SPREAD"}
    partition = ray.remote(Partition).options(**options)
    return Index([partition.remote() for _ in range(max(1, -(-rows // PARTITION_ROWS)))], policies)
