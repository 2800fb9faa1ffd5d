"""Outputs published by the project's own writers, without a run and without an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.config.policy import Policy
from moderay.core.storage import size_and_version
from moderay.core.verdicts import unit_schema
from moderay.corpus.content import content_hashes
from moderay.corpus.shard import Shard
from moderay.labels.layout import Layout, decision_hash
from moderay.labels.lease import Lease
from moderay.labels.manifest_record import (
    JudgeRecord,
    Manifest,
    ModelRecord,
    PolicyRecord,
    RunRecord,
    Selection,
)
from moderay.labels.manifest_store import append_manifest
from moderay.labels.shard_writer import Publication, publish
from moderay.labels.unit_file import unit_bytes
from moderay.pipeline.manifest import OutputTotal, recounted

KEY = "0123456789abcdef"


def published_output(
    folder: Path,
    policies: Sequence[Policy],
    shards: Mapping[str, tuple[pa.Array, Sequence[pa.StructArray]]],
    judge: str = "reason",
) -> Layout:
    """Write folder/in and its labels in folder/out, as run number 0 leaves them.

    Args:
        folder: Where.
        policies: By which the shards are labelled.
        shards: By name, texts, and for each policy verdicts on them.
        judge: Whose they are, as the manifest says.
    """
    layout, source = Layout(str(folder / "out")), folder / "in"
    rules = tuple(policy.rule for policy in policies)
    columns = pa.schema([("text", pa.string())])
    decision = decision_hash(rules, columns)
    judges = {policy.id: {judge: KEY} for policy in policies}
    total = OutputTotal()
    with Lease(layout) as lease:
        for name, (texts, verdicts) in shards.items():
            shard = _input_file(source, name, texts, columns)
            _unit(layout, shard, texts, policies, verdicts)
            work = Publication(
                layout, shard, KEY, KEY, decision, judges, rules, columns, "all", lease.run, {}
            )
            total.add(publish(work, [(0, len(texts))], ()))
    manifest = Manifest(
        name="test",
        complete=True,
        input_shards=len(shards),
        cascade_key=KEY,
        selection=Selection(content="text", where=None, sample=None),
        policies={policy.id: policy_record(policy, judge) for policy in policies},
        runs=(
            RunRecord(
                run=0, status="finished", started="2026-11-20", model=ModelRecord(source="tiny")
            ),
        ),
    )
    append_manifest(layout, lambda _: recounted(manifest, total, {}))
    return layout


def policy_record(policy: Policy, judge: str = "reason") -> PolicyRecord:
    """A policy as a manifest has it, of which the policy's text alone is asked."""
    labels = {name: label.violates for name, label in policy.labels.items()}
    asked: dict[str, Any] = {"judge": judge, "policy": policy.text, "labels": labels}
    return PolicyRecord(
        title=policy.title,
        version=policy.version,
        threshold=policy.threshold,
        cascade_key=KEY,
        cascade=(JudgeRecord.model_validate(asked),),
        promises={},
    )


def _input_file(source: Path, name: str, texts: pa.Array, schema: pa.Schema) -> Shard:
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays([texts], schema=schema), path)
    stamp = size_and_version(Layout(str(path)).fs, str(path))
    assert stamp is not None
    return Shard(str(path), name, *stamp, row_groups=(len(texts),))


def _unit(
    layout: Layout,
    shard: Shard,
    texts: pa.Array,
    policies: Sequence[Policy],
    verdicts: Sequence[pa.StructArray],
) -> None:
    rows = (0, len(texts))
    hashes = pa.array(content_hashes(pa.table({"text": texts}), "text"), pa.string())
    unit = pa.Table.from_arrays(
        [pa.array(range(len(texts)), pa.int64()), hashes, *verdicts],
        schema=unit_schema([policy.id for policy in policies]),
    )
    layout.write(layout.unit(shard.name, rows, KEY), unit_bytes(unit, rows))
