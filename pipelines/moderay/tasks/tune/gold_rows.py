"""The contents of a job's input of which it is known whether they violate, and their parts.

Counted are distinct contents, as the model reads them: copies are no further evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moderay.core.hashing import number
from moderay.core.verdicts import Status
from moderay.corpus.columns import read_columns
from moderay.corpus.shard import Shard, shard_errors
from moderay.judges.cascade import Cascade
from moderay.pipeline.check import Checked
from moderay.pipeline.stages.prepare import POSITION
from moderay.pipeline.stages.spans import RowStream, selected_rows, spans
from moderay.tasks.gold import Truth
from moderay.tasks.gold_parts import PARTS, part_of
from moderay.tasks.workbench.rows import TrialRow


@dataclass(frozen=True)
class GoldRows:
    """Distinct contents.

    Attributes:
        rows: One of each content.
        violates: Bool: what is known; a content that is known to be both violates.
        unreadable: Rows left out, since they are empty or no text.
    """

    rows: Sequence[TrialRow]
    violates: np.ndarray
    unreadable: int


def gold_rows(
    checked: Checked,
    cascade: Cascade,
    shards: Sequence[Shard],
    truth: Callable[[Shard], Truth],
    most: int,
) -> GoldRows:
    """Read the contents of which something is known, among those that the job selects.

    Args:
        checked: The job and its input.
        cascade: Of the policy; its rules may read columns.
        shards: Of the input.
        truth: Of a shard, which rows are known, and whether they violate.
        most: Contents, about; chosen by hash, the same ones each time.
    """
    known = [(shard, *truth(shard)) for shard in shards]
    share = min(1.0, most / max(1, sum(len(rows) for _, rows, _ in known)))
    found: dict[str, tuple[TrialRow, bool]] = {}
    unreadable = 0
    for shard, positions, violates in known:
        for row, position in _rows(checked, cascade, shard):
            at = int(np.searchsorted(positions, position))
            if at == len(positions) or positions[at] != position:
                continue
            if row.content.status is not Status.OK:
                unreadable += 1
                continue
            if number(f"tuned:{row.key}") < share * 2**63:
                first, before = found.get(row.key, (row, False))
                found[row.key] = (first, before or bool(violates[at]))
    return GoldRows(
        [row for row, _ in found.values()],
        np.array([violates for _, violates in found.values()], bool),
        unreadable,
    )


def _rows(checked: Checked, cascade: Cascade, shard: Shard) -> Iterator[tuple[TrialRow, int]]:
    """The rows of a shard that the job selects, and their positions."""
    job = checked.job
    wanted = read_columns(job, list(cascade.columns))
    for span in spans(shard, [(0, shard.rows)], job.unit):
        with shard_errors(shard):
            stream = RowStream(span, job, wanted)
            start = span.first_row
            while start < span.end_row:
                unit = stream.upto(start, min(start + span.step, span.end_row))
                start += len(unit)
                table, contents = selected_rows(unit, shard, job)
                positions = table.column(POSITION).to_pylist()
                columns = table.select(cascade.columns) if cascade.columns else None
                for index, position in enumerate(positions):
                    one = None if columns is None else columns.slice(index, 1)
                    name = f"{shard.file} row {position}"
                    yield TrialRow(name, contents[index], None, one), position


def parts_of(rows: GoldRows, has_screen: bool) -> np.ndarray:
    """Of each content the number of its part in `PARTS`.

    Without a screen to train, the part for that is one to select on.
    """
    parts = np.array([PARTS.index(part_of(row.key)) for row in rows.rows], np.int8)
    return parts if has_screen else np.maximum(parts, PARTS.index("select"))
