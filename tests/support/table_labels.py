"""Labels of a Delta table's files, published by the project's own writers, without an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.config.policy import load_policy
from moderay.core.storage import filesystem, listed_url, size_and_version
from moderay.core.verdicts import Status, Verdict, unit_schema, verdict_array
from moderay.corpus.content import content_hashes
from moderay.corpus.shard import Shard
from moderay.labels.layout import Layout, decision_hash
from moderay.labels.lease import Lease
from moderay.labels.manifest_record import Manifest, ModelRecord, RunRecord, Selection
from moderay.labels.manifest_store import append_manifest
from moderay.labels.shard_writer import Publication, publish
from moderay.labels.unit_file import unit_bytes
from moderay.pipeline.manifest import OutputTotal, recounted
from moderay.tasks.filter.request import Labels, read_labels
from moderay.tasks.tables.delta_commit import open_table, table_files
from support.project import ROOT
from support.published import KEY, policy_record

SPAM = load_policy(ROOT / "policies" / "spam")


def label_table(layout: Layout, table: str, bad: str) -> None:
    """Label the files of a table: rows whose `text` holds `bad` violate spam.

    Args:
        layout: Of the output.
        table: The table's folder, in the same store.
        bad: These words.
    """
    fs, root = filesystem(table, layout.options)
    columns = pa.schema([("id", pa.int64())])
    decision = decision_hash([SPAM.rule], columns)
    total = OutputTotal()
    files = table_files(open_table(table, layout.options))
    with Lease(layout) as lease:
        for name in files:
            path = f"{root}/{name}"
            with fs.open(path, "rb") as file:
                texts = pq.read_table(file, columns=["text"])["text"].cast(pa.string())
            stamp = size_and_version(fs, path)
            assert stamp is not None
            url = listed_url(fs, path, table)
            shard = Shard(url, name, *stamp, row_groups=(len(texts),))
            rows = (0, len(texts))
            layout.write(layout.unit(name, rows, KEY), unit_bytes(_unit(texts, bad), rows))
            judges = {"spam": {"reason": KEY}}
            work = Publication(
                *(layout, shard, KEY, KEY, decision, judges, (SPAM.rule,), columns),
                *("all", lease.run, layout.options),
            )
            total.add(publish(work, [rows], ()))
    model = ModelRecord(source="tiny")
    manifest = Manifest(
        name="test",
        complete=True,
        input_shards=len(files),
        cascade_key=KEY,
        selection=Selection(content="text", where=None, sample=None),
        policies={"spam": policy_record(SPAM)},
        runs=(RunRecord(run=0, status="finished", started="2026-11-20", model=model),),
    )
    append_manifest(layout, lambda _: recounted(manifest, total, {}))


def labels_of_table(layout: Layout, table: str) -> Labels:
    """The labels as a job whose input is the table has them."""
    storage: dict[str, Any] = dict(layout.options)
    return replace(read_labels(layout.url, storage), table=table)


def _unit(texts: pa.ChunkedArray, bad: str) -> pa.Table:
    rest = [0.0] * (len(SPAM.label_names) - 2)
    kinds = [
        verdict_array(
            [Verdict(Status.OK, [1.0 - p, *rest, p], answer="SP0", decided_by="reason")], 0
        )
        for p in (0.0, 1.0)
    ]
    is_bad = pc.match_substring(texts, bad).combine_chunks()
    verdicts = pa.concat_arrays(kinds).take(is_bad.cast(pa.int8()))
    hashes = pa.array(content_hashes(pa.table({"text": texts}), "text"), pa.string())
    row = pa.array(range(len(texts)), pa.int64())
    return pa.Table.from_arrays([row, hashes, verdicts], schema=unit_schema(["spam"]))
