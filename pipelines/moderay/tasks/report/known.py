"""Rows of which people said whether they violate: what a threshold finds of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from moderay.core.errors import ModerayError
from moderay.core.verdicts import CONTENT_HASH, ROW
from moderay.labels.corrections import corrections, reviewed_policies
from moderay.labels.reviews import ReviewStore
from moderay.labels.shard_profile import bins_of
from moderay.tasks.label_rows import rows_of
from moderay.tasks.report.source import ReportSource

# Seconds after which no further label file is opened.
PATIENCE_S = 20.0


@dataclass
class KnownRows:
    """Contents that people judged under one policy, by bin of the model's P.

    Attributes:
        violating: Bins of those that violate.
        safe: Bins of those that do not.
        left_out: Contents whose P is not to be had.
    """

    violating: Counter[int] = field(default_factory=Counter)
    safe: Counter[int] = field(default_factory=Counter)
    left_out: int = 0

    @property
    def contents(self) -> int:
        """Contents that count."""
        return self.violating.total() + self.safe.total()

    def for_page(self) -> dict[str, Any]:
        """As report.js takes it."""
        return {
            "violating": [[number, rows] for number, rows in sorted(self.violating.items())],
            "safe": [[number, rows] for number, rows in sorted(self.safe.items())],
        }


def known_rows(source: ReportSource) -> dict[str, KnownRows]:
    """By policy, the contents that reviews of the output decide; without those of other texts.

    P is read from the label rows in which the contents were reviewed, shard by shard, for at most
    `PATIENCE_S`.
    """
    reviews = ReviewStore(source.layout).read()
    if not reviews:
        return {}
    decided = corrections(reviews, reviewed_policies(source.manifest)).by_policy
    where = {(review.policy, review.content_hash): (review.shard, review.row) for review in reviews}
    by_shard: dict[str, list[_Said]] = {}
    for policy, contents in decided.items():
        for content_hash, correction in contents.items():
            shard, row = where[policy, content_hash]
            said = _Said(policy, row, content_hash, correction.violates)
            by_shard.setdefault(shard, []).append(said)
    found = {policy: KnownRows() for policy, contents in decided.items() if contents}
    ends = time.monotonic() + PATIENCE_S
    for shard, of_shard in sorted(by_shard.items()):
        read = _bins(source, shard, of_shard) if time.monotonic() < ends else {}
        for said in of_shard:
            known, number = found[said.policy], read.get(said)
            if number is None:
                known.left_out += 1
            else:
                (known.violating if said.violates else known.safe)[number] += 1
    return found


class _Said(NamedTuple):
    """What people decided of a content, and where they saw it."""

    policy: str
    row: int
    content_hash: str
    violates: bool


def _bins(source: ReportSource, shard: str, of_shard: Sequence[_Said]) -> dict[_Said, int]:
    """The bins of the model's P; of contents that have none, or are no longer there, nothing.

    Where a person overruled the model, the model's P stands beside what the person said.
    """
    policies = sorted({said.policy for said in of_shard})
    rows = np.unique([said.row for said in of_shard])
    columns = [
        f"{policy}.{name}"
        for policy in policies
        for name in ("probability", "trace.overruled.probability")
    ]
    try:
        table = rows_of(source.layout, shard, rows, [CONTENT_HASH.name, *columns])
    except (ModerayError, pa.ArrowException, OSError):
        # Counted as left out, which the page says.
        return {}
    by_row = {row[ROW.name]: row for row in table.to_pylist()}
    found = {}
    for said in of_shard:
        row = by_row.get(said.row)
        if row is None or row[CONTENT_HASH.name] != said.content_hash:
            continue
        overruled = (row[said.policy].get("trace") or {}).get("overruled") or {}
        p = overruled.get("probability", row[said.policy]["probability"])
        if p is not None:
            found[said] = int(bins_of(pa.array([p], pa.float32()))[0])
    return found
