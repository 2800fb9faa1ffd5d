"""Outputs written without a run, by the project's own writers of decisions and manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.config.policy import Policy
from moderay.core.storage import size_and_version
from moderay.core.verdicts import Status, Verdict, label_fields, verdict_array
from moderay.corpus.content import content_hash
from moderay.labels.decisions import decide, flagged
from moderay.labels.layout import Layout, marker_name
from moderay.labels.manifest_record import JudgeRecord, Manifest, PolicyRecord, RunRecord, Selection
from moderay.labels.manifest_store import append_manifest
from moderay.labels.records import ShardMarker, WrittenFile
from moderay.labels.shard_tally import ShardTally

# A row's text, and by policy P of each label; None where it has no verdict.
Row = tuple[str, Mapping[str, Sequence[float] | None]]


def label_folder(
    folder: Path,
    policies: Sequence[Policy],
    shards: Mapping[str, Sequence[Row]],
    judge: Mapping[str, Any] | None = None,
    gold: pa.Array | None = None,
    keys: Mapping[str, str] | None = None,
) -> Path:
    """Write an output.

    Args:
        folder: Where.
        policies: By which it is labelled.
        shards: Their rows, by name.
        judge: Fields of the one judge that the manifest names.
        gold: Of each shard's rows, carried as the columns `is_spam` and `policy`.
        keys: Of the judge reason, by policy: whose verdicts may be taken by whom.
    """
    layout = Layout(str(folder))
    for name, rows in shards.items():
        _write_shard(layout, policies, name, rows, gold, keys or {})
    manifest = Manifest(
        name="test",
        complete=True,
        cascade_key="",
        selection=Selection(content="text", where=None, sample=None),
        policies={policy.id: policy_record(policy, judge or {}) for policy in policies},
        runs=(RunRecord(run=0, status="finished"),),
    )
    append_manifest(layout, lambda _: manifest)
    return folder


def policy_record(policy: Policy, judge: Mapping[str, Any]) -> PolicyRecord:
    """A policy as a manifest has it, with one judge."""
    labels = {name: label.violates for name, label in policy.labels.items()}
    asked = {"judge": "reason", "policy": policy.text, "labels": labels, "effort": "low", **judge}
    return PolicyRecord(
        title=policy.title,
        version=policy.version,
        threshold=policy.threshold,
        label_titles={name: label.title for name, label in policy.labels.items()},
        cascade_key="",
        cascade=(JudgeRecord.model_validate(asked),),
        promises={},
    )


def _write_shard(
    layout: Layout,
    policies: Sequence[Policy],
    name: str,
    rows: Sequence[Row],
    gold: pa.Array | None,
    keys: Mapping[str, str],
) -> None:
    texts = [text for text, _ in rows]
    columns = [_decided(policy, rows) for policy in policies]
    own = [
        pa.array(range(len(rows)), pa.int64()),
        pa.array([content_hash([text]) if text else None for text in texts], pa.string()),
        flagged(columns),
        *columns,
    ]
    schema = pa.schema([("text", pa.string()), *label_fields([each.rule for each in policies])])
    table = pa.Table.from_arrays([pa.array(texts, pa.string()), *own], schema=schema)
    if gold is not None:
        for column in ("policy", "is_spam"):
            table = table.add_column(0, column, gold)
    path = Path(layout.label(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)
    stamp = size_and_version(layout.fs, str(path))
    assert stamp is not None
    size, version = stamp
    tally = ShardTally([each.rule for each in policies], None)
    tally.add(table)
    counts = tally.counts
    marker = ShardMarker(
        shard=name,
        identity=(name, 1, "v"),
        source=f"/in/{name}",
        input_rows=len(rows),
        rows=len(rows),
        label_file=WrittenFile(size=size, version=version, digest="0" * 32),
        flagged=counts.flagged,
        policies=counts.policies,
        histograms={each: profile.histogram() for each, profile in tally.profiles.items()},
        flagged_without_p={
            each: profile.flagged_without_p for each, profile in tally.profiles.items()
        },
        chosen={each: profile.chosen() for each, profile in tally.profiles.items()},
        judges={policy: {"reason": key} for policy, key in keys.items()},
        thresholds={each.id: each.threshold for each in policies},
        run=0,
    )
    layout.write(layout.marker(name, marker_name(marker, "0" * 16, "0" * 16)), marker.to_json())


def _decided(policy: Policy, rows: Sequence[Row]) -> pa.StructArray:
    """Decisions; a text that was there before is a duplicate."""
    seen: set[str] = set()
    verdicts = []
    for text, scores in rows:
        of_labels = scores.get(policy.id)
        verdicts.append(
            Verdict(Status.TIMEOUT)
            if of_labels is None
            else Verdict(
                Status.OK,
                [*of_labels],
                rationale=f"why {text}",
                reasoning=f"Thought about {text}",
                decided_by="reason",
                origin="duplicate" if text in seen else "judged",
            )
        )
        seen.add(text)
    return decide(verdict_array(verdicts, 0), policy.rule)
