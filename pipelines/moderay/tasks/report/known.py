"""Rows of which people said whether they violate: what a threshold finds of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.core.errors import ModerayError
from moderay.core.verdicts import ROW, structs
from moderay.labels.corrections import corrections, reviewed_policies
from moderay.labels.reviews import ReviewStore
from moderay.labels.shard_profile import bins_of
from moderay.tasks.report.label_rows import rows_of
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
    by_shard: dict[str, list[tuple[str, int, bool]]] = {}
    for policy, contents in decided.items():
        for content_hash, correction in contents.items():
            shard, row = where[policy, content_hash]
            by_shard.setdefault(shard, []).append((policy, row, correction.violates))
    found = {policy: KnownRows() for policy, contents in decided.items() if contents}
    ends = time.monotonic() + PATIENCE_S
    for shard, said in sorted(by_shard.items()):
        read = _probabilities(source, shard, said) if time.monotonic() < ends else {}
        for policy, row, violates in said:
            number = read.get((policy, row))
            if number is None:
                found[policy].left_out += 1
            else:
                (found[policy].violating if violates else found[policy].safe)[number] += 1
    return found


def _probabilities(
    source: ReportSource, shard: str, said: Iterable[tuple[str, int, bool]]
) -> dict[tuple[str, int], int]:
    """The bins of the model's P, by policy and row; where it has none, or the file none, nothing.

    Where a person overruled the model, the model's P stands beside what the person said.
    """
    policies = sorted({policy for policy, _, _ in said})
    rows = np.unique([row for _, row, _ in said])
    columns = [
        f"{policy}.{name}"
        for policy in policies
        for name in ("probability", "trace.overruled.probability")
    ]
    try:
        table = rows_of(source.layout, shard, rows, columns)
    except (ModerayError, pa.ArrowException, OSError):
        # Counted as left out, which the page says.
        return {}
    positions = table.column(ROW.name).to_pylist()
    found = {}
    for policy in policies:
        of_policy = structs(table.column(policy)).to_pylist()
        for row, decision in zip(positions, of_policy, strict=True):
            overruled = (decision.get("trace") or {}).get("overruled") or {}
            p = overruled.get("probability")
            p = decision["probability"] if p is None else p
            if p is not None:
                found[policy, row] = int(bins_of(pa.array([p], pa.float32()))[0])
    return found
