"""How often labels agree with a truth that the input knows: for demonstrations."""

from __future__ import annotations

import pyarrow.parquet as pq

from moderay.labels.layout import Layout
from moderay.pipeline.check import Checked


def agreement(checked: Checked, prefix: str) -> float:
    """Share of (row, policy) pairs with a known truth on which `violates` agrees with it.

    Args:
        checked: the job, which has been run.
        prefix: the carried column `<prefix><policy id>` says whether a row violates; null is
            unknown.
    """
    layout = Layout(checked.job.output.path, checked.job.storage)
    same = 0
    known = 0
    for shard in checked.scan.shards:
        table = pq.read_table(layout.fs.open(layout.label(shard.name), "rb"))
        for policy in checked.policies:
            truth = table.column(prefix + policy.id).to_pylist()
            decisions = table.column(policy.id).to_pylist()
            pairs = [
                (violates, decision["violates"])
                for violates, decision in zip(truth, decisions, strict=True)
                if violates is not None
            ]
            known += len(pairs)
            same += sum(expected == violates for expected, violates in pairs)
    return same / known
