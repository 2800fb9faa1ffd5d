"""The rows in which labels and people differ, the worst first, with all that explains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.config.policy import Policy
from moderay.core.storage import RemoteFile, plain_errors
from moderay.core.verdicts import ROW
from moderay.corpus.shard import Shard
from moderay.labels.cascade_verdicts import decision_of_cascade
from moderay.labels.layout import Layout
from moderay.pipeline.check import Checked
from moderay.tasks.evaluate.judged import JudgedRows
from moderay.tasks.gold import UNKNOWN
from moderay.tasks.input_rows import STEP, contents_at

SCHEMA = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("gold_violates", pa.bool_(), nullable=False),
        pa.field("gold_label", pa.string()),
        ("status", pa.string()),
        ("violates", pa.bool_()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("decided_by", pa.string()),
        ("content", pa.string()),
        ("rationale", pa.string()),
        ("reasoning", pa.string()),
    ]
)


@dataclass(frozen=True)
class WrongRow:
    """A row in which they differ.

    Attributes:
        badness: How far P(violates) is from what people said, from 0 to 1; 1 where a judge that
            gives none is wrong, and 0 where nobody judged the row.
        file: The input file.
        row: Position in it.
        gold: Whether it violates.
        gold_label: Position among the policy's labels, or `UNKNOWN`.
    """

    badness: float
    file: str
    row: int
    gold: bool
    gold_label: int


class Worst:
    """The worst rows of one policy that were seen so far."""

    def __init__(self, most: int) -> None:
        """None were seen; `most` are kept."""
        self._most = most
        self._rows: list[WrongRow] = []

    def add(self, file: str, positions: np.ndarray, rows: JudgedRows) -> None:
        """See the rows of a file."""
        wrong = np.flatnonzero(rows.is_known & (rows.violates != rows.gold))
        badness = _badness(rows.at(wrong))
        order = np.argsort(-badness, kind="stable")[: self._most]
        found = [
            WrongRow(
                float(badness[i]),
                file,
                int(positions[wrong[i]]),
                bool(rows.gold[wrong[i]]),
                int(rows.gold_label[wrong[i]]),
            )
            for i in order
        ]
        self._rows = sorted([*self._rows, *found], key=lambda row: -row.badness)[: self._most]

    @property
    def rows(self) -> list[WrongRow]:
        """The worst first."""
        return self._rows


def _badness(rows: JudgedRows) -> np.ndarray:
    distance = np.abs(rows.gold - rows.probability)
    distance = np.where(np.isnan(distance), 1.0, distance)
    return np.where(rows.violates == UNKNOWN, 0.0, distance)


def wrong_record(policy: Policy, row: WrongRow, decision: Mapping[str, Any], content: str) -> Any:
    """A row of `SCHEMA`.

    Args:
        policy: Under which they differ.
        row: The row.
        decision: As a label file has it.
        content: As the model read it.
    """
    named = row.gold_label != UNKNOWN
    fields = ("status", "violates", "label", "probability", "rationale", "reasoning")
    return {
        **{name: decision[name] for name in fields},
        "policy": policy.id,
        "file": row.file,
        "row": row.row,
        "gold_violates": row.gold,
        "gold_label": policy.label_names[row.gold_label] if named else None,
        "decided_by": decision["trace"]["decided_by"],
        "content": content,
    }


def explained(checked: Checked, worst: Mapping[str, Sequence[WrongRow]]) -> pa.Table:
    """Rows of an output, of `SCHEMA`, with content, rationale and reasoning.

    Args:
        checked: The job.
        worst: By policy.
    """
    policies = {policy.id: policy for policy in checked.policies}
    records: dict[tuple[str, WrongRow], Any] = {}
    for shard in checked.scan.shards:
        here = {
            name: [row for row in rows if row.file == shard.file] for name, rows in worst.items()
        }
        here = {name: rows for name, rows in here.items() if rows}
        if not here:
            continue
        positions = np.unique([row.row for rows in here.values() for row in rows])
        read = chain.from_iterable(contents_at(checked, shard, positions))
        texts = {row: content.text for row, content in zip(positions.tolist(), read, strict=True)}
        labels = _labels(checked, shard, positions, list(here))
        for name, rows in here.items():
            for row in rows:
                decision = decision_of_cascade(labels[row.row][name])
                records[name, row] = wrong_record(policies[name], row, decision, texts[row.row])
    ordered = [records[name, row] for name, rows in worst.items() for row in rows]
    return pa.Table.from_pylist(ordered, schema=SCHEMA)


def _labels(
    checked: Checked, shard: Shard, rows: np.ndarray, policies: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """Label rows of a shard by their position; it is read batch by batch."""
    layout = Layout(checked.job.output.path, checked.job.storage)
    found: dict[int, dict[str, Any]] = {}
    with (
        plain_errors(layout.url),
        pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard.name))) as file,
    ):
        for batch in file.iter_batches(STEP, columns=[ROW.name, *policies]):
            there = np.isin(batch.column(ROW.name).to_numpy(), rows)
            for record in batch.filter(pa.array(there)).to_pylist():
                found[record[ROW.name]] = record
    return found
