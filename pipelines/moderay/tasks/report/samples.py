"""The few rows that a report shows: chosen by hash, with what was judged and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from moderay.core.errors import ModerayError, first_line
from moderay.core.verdicts import ROW, structs
from moderay.labels.records import ChosenRow, ShardMarker
from moderay.tasks.label_rows import rows_of
from moderay.tasks.output_contents import OutputContents
from moderay.tasks.report.source import ReportSource

# Characters of all contents and of all reasoning together, and of one at most.
TEXTS, TEXT = 400_000, 6_000
# Bytes of an input file beyond which it is not read through for a content.
FILE_BYTES = 256 * 2**20
# Seconds after which no further file is opened.
PATIENCE_S = 20.0
NOT_WANTED = "this report was made without contents"
LATE = f"reading those before it took {PATIENCE_S:g} s"
_KINDS = ("flagged", "borderline", "safe", "failed")


@dataclass(frozen=True)
class Sample:
    """A row under one policy.

    Attributes:
        policy: Its id.
        marker: Of its shard.
        chosen: As the marker has it.
        kinds: Why it was chosen: flagged, borderline, safe, failed.
        content: What was judged, or its beginning; None where it is not shown.
        missing: Why it is not.
        cut: Whether it is only the beginning.
        reasoning: The model's, or its beginning; None where none is stored.
    """

    policy: str
    marker: ShardMarker
    chosen: ChosenRow
    kinds: tuple[str, ...]
    content: str | None = None
    missing: str = ""
    cut: bool = False
    reasoning: str | None = None


def samples(source: ReportSource, with_contents: bool = True) -> list[Sample]:
    """The chosen rows of all policies, in the manifest's order of these.

    A row that is chosen twice under a policy stands there once. Contents are read from the label
    file that carries them, else from the input; where neither has a content of this hash, a sample
    says so. Reading ends after `PATIENCE_S`.

    Args:
        source: The output.
        with_contents: Whether contents are shown.
    """
    found = list(_chosen(source))
    most = min(TEXT, TEXTS // max(1, len(found)))
    return [_bounded(sample, most) for sample in _read(source, found, with_contents)]


def _chosen(source: ReportSource) -> Iterator[Sample]:
    for policy in source.manifest.policies:
        if policy not in source.total.chosen:
            continue
        by_kind = source.total.chosen[policy].rows()
        rows: dict[tuple[str, int], Sample] = {}
        for kind in _KINDS:
            for marker, row in by_kind.get(kind, ()):
                known = rows.get((marker.shard, row.row))
                kinds = (*known.kinds, kind) if known else (kind,)
                rows[marker.shard, row.row] = Sample(policy, marker, row, kinds)
        yield from rows.values()


def _read(source: ReportSource, found: list[Sample], with_contents: bool) -> list[Sample]:
    """The samples with contents and reasoning, shard by shard."""
    read = list(found)
    by_shard: dict[str, list[int]] = {}
    for number, sample in enumerate(found):
        by_shard.setdefault(sample.marker.shard, []).append(number)
    reader = OutputContents(
        source.layout, source.manifest.selection.content, source.storage, FILE_BYTES
    )
    ends = time.monotonic() + PATIENCE_S
    for numbers in by_shard.values():
        of_shard = [found[number] for number in numbers]
        if time.monotonic() > ends:
            of_shard = [replace(sample, missing=LATE) for sample in of_shard]
        else:
            of_shard = _with_reasoning(source, of_shard)
            if with_contents:
                of_shard = _with_contents(reader, of_shard)
            else:
                of_shard = [replace(sample, missing=NOT_WANTED) for sample in of_shard]
        for number, sample in zip(numbers, of_shard, strict=True):
            read[number] = sample
    return read


def _with_contents(reader: OutputContents, found: list[Sample]) -> list[Sample]:
    hashes = {sample.chosen.row: sample.chosen.content_hash for sample in found}
    rows = sorted(hashes)
    contents = reader.read(found[0].marker, np.array(rows, np.int64), [hashes[row] for row in rows])
    by_row = dict(zip(rows, contents, strict=True))
    return [
        replace(
            sample,
            content=by_row[sample.chosen.row].text,
            missing=by_row[sample.chosen.row].missing,
        )
        for sample in found
    ]


def _with_reasoning(source: ReportSource, found: list[Sample]) -> list[Sample]:
    """The samples of one shard with the reasoning that its label file holds."""
    shard = found[0].marker.shard
    rows = np.unique([sample.chosen.row for sample in found])
    policies = sorted({sample.policy for sample in found})
    columns = [f"{policy}.reasoning" for policy in policies]
    try:
        table = rows_of(source.layout, shard, rows, columns)
    except (ModerayError, pa.ArrowException, OSError) as error:
        why = f"its label file cannot be read: {first_line(error)}"
        return [replace(sample, missing=why) for sample in found]
    positions = table.column(ROW.name).to_pylist()
    reasoning = {
        (policy, row): text
        for policy in policies
        for row, text in zip(
            positions, structs(table.column(policy)).field("reasoning").to_pylist(), strict=True
        )
    }
    return [
        replace(sample, reasoning=reasoning.get((sample.policy, sample.chosen.row)))
        for sample in found
    ]


def _bounded(sample: Sample, most: int) -> Sample:
    content, reasoning = sample.content, sample.reasoning
    return replace(
        sample,
        content=None if content is None else content[:most],
        cut=content is not None and len(content) > most,
        reasoning=None if reasoning is None else reasoning[:most],
    )
