"""One shard through a filter's rule: its rows go to kept, removed or held, each a file of the same
name; idempotent.

Input and labels are read side by side in row order, in batches of bounded size; the files are
written beside each other on the local disk, put, and then the marker says that the shard is done.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.config.policy import Policy
from moderay.core.errors import first_line
from moderay.core.storage import RemoteFile, filesystem, put_file, remove, stamp
from moderay.core.verdicts import DECISION, FLAGGED, ROW, label_fields, structs
from moderay.corpus.formats import Part, Verbatim, bounded_batches, format_of, input_file
from moderay.corpus.ranges import Range
from moderay.corpus.where import where_columns
from moderay.labels.decisions import flagged, redecide
from moderay.labels.layout import Layout
from moderay.labels.lease import assert_epoch
from moderay.labels.records import ShardMarker
from moderay.labels.shard_writer import ShardFailedError
from moderay.tasks.filter.rule import FATES, TOLD, Fate, fates, read_fields, told, untold


@dataclass(frozen=True)
class Rule:
    """What a filter does with a row, whatever shard it is in; picklable. `keep`: Polars SQL over
    verdict columns. `policies`: with the thresholds that count here. `unselected`: what becomes of
    rows that were not to be judged, None where there are none. `verdicts`: kept rows have the
    verdict columns too.
    """

    keep: str
    policies: tuple[Policy, ...]
    unselected: Fate | None
    verdicts: bool

    @property
    def ids(self) -> list[str]:
        return [policy.id for policy in self.policies]

    @property
    def named(self) -> list[str]:
        """Policies that the rule names."""
        return [name for name in where_columns(self.keep) if name in self.ids]


@dataclass(frozen=True)
class Sifting:
    """One shard to filter; picklable. `marker`: of its labels. `key`, `decision`: of the filter's
    own marker, and `old` those it replaces. `epoch`: of the driver's lease.
    """

    rule: Rule
    labels: Layout
    out: Layout
    marker: ShardMarker
    key: str
    decision: str
    old: tuple[tuple[str, str], ...]
    epoch: int
    storage: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The input file's path below its root, and that of the files made of it below their
        folders.
        """
        return input_file(self.marker.shard, self.marker.source)

    def path(self, fate: Fate) -> str:
        return self.out.label(f"{fate}/{self.name}")

    @property
    def decided_anew(self) -> set[str]:
        """Policies whose labels were decided under another threshold."""
        return {
            policy.id
            for policy in self.rule.policies
            if policy.threshold != self.marker.thresholds[policy.id]
        }


def sift(work: Sifting) -> dict[str, Any]:
    """Filter one shard; the content of its marker. Raises `ShardFailedError`, `LeaseLostError`, or
    OSError where the storage keeps failing.
    """
    if wrong := changed(work.marker, work.storage):
        raise ShardFailedError(wrong)
    layout, fs = work.out, work.out.fs
    with tempfile.TemporaryDirectory(prefix="moderay-") as folder:
        said = _to_local(work, Path(folder))
        assert_epoch(layout, work.epoch)
        for fate in FATES:
            if (file := Path(folder) / fate).is_file():
                put_file(fs, str(file), work.path(fate), layout.private("tmp"))
            else:
                remove(fs, work.path(fate))  # of another rule
    layout.write(
        layout.marker(work.name, work.key, work.decision), json.dumps(said, indent=1).encode()
    )
    for marker in work.old:
        remove(fs, layout.marker(work.name, *marker))
    return said


def changed(marker: ShardMarker, storage: Mapping[str, Any]) -> str | None:
    """What to say where a shard's source is not the file that was labelled."""
    now = stamp(*filesystem(marker.source, storage))
    if now is None:
        return f"{marker.shard}: {marker.source}, of which these are the labels, is gone"
    if now != marker.identity[1:]:
        return f"{marker.shard}: {marker.source} is not the version that was labelled"
    return None


def _to_local(work: Sifting, folder: Path) -> dict[str, Any]:
    """The shard's files; what their marker says."""
    fs, path = filesystem(work.marker.source, work.storage)
    counts: Counter[str] = Counter()
    why = {"removed": Counter[tuple[str, str]](), "held": Counter[tuple[str, str]]()}
    try:
        with format_of(path).verbatim(fs, path) as source:
            parts = {fate: source.part(folder / fate, _more(work.rule, fate)) for fate in FATES}
            for (start, end), rows, labels in _side_by_side(work, source):
                counts["in"] += end - start
                _distribute(work.rule, start, rows, labels, parts, counts, why)
            # A shard keeps its file even where nothing of it is kept.
            parts["kept"].close(always=True)
            for fate in ("removed", "held"):
                parts[fate].close()
    except pa.ArrowException as error:
        raise ShardFailedError(
            f"{work.name}: input or labels cannot be read: {first_line(error)}"
        ) from error
    if counts["in"] != work.marker.input_rows or sum(counts.values()) != 2 * counts["in"]:
        raise ShardFailedError(
            f"{work.name}: {dict(counts)} does not add up to the {work.marker.input_rows:,} "
            "rows that were labelled"
        )
    return {
        "shard": work.name,
        "rows": {name: counts[name] for name in ("in", *FATES, "unselected")},
        **{
            fate: [[*reason, count] for reason, count in sorted(found.items())]
            for fate, found in why.items()
        },
    }


def _more(rule: Rule, fate: Fate) -> list[pa.Field]:
    """What is added to the input's columns."""
    if fate != "kept":
        return [TOLD]
    return [FLAGGED, *(pa.field(name, DECISION) for name in rule.ids)] if rule.verdicts else []


def _side_by_side(work: Sifting, source: Verbatim) -> Iterator[tuple[Range, pa.Table, pa.Table]]:
    """(range, input rows, their label rows), batch after batch."""
    labels = _decided(work)
    held = next(labels, pa.schema(label_fields(work.rule.ids)).empty_table())
    for start, table in source.batches():
        end = start + len(table)
        while not len(held) or held.column(ROW.name)[-1].as_py() < end - 1:
            if (more := next(labels, None)) is None:
                break
            held = pa.concat_tables([held, more])
        count = int(np.searchsorted(held.column(ROW.name).to_numpy(), end))
        yield (start, end), table, held.slice(0, count)
        held = held.slice(count)


def _decided(work: Sifting) -> Iterator[pa.Table]:
    """The label rows as the rule reads them, decided under its thresholds."""
    rule, anew = work.rule, work.decided_anew
    whole = sorted(set(rule.ids) if rule.verdicts else anew)
    fields = [
        name for name in read_fields(rule.keep, rule.ids) if name.partition(".")[0] not in whole
    ] + whole
    with pq.ParquetFile(
        RemoteFile(work.labels.fs, work.labels.label(work.marker.shard)), pre_buffer=True
    ) as file:
        for _, table in bounded_batches(file, [*fields, FLAGGED.name]):
            columns = {name: structs(table.column(name)) for name in table.column_names}
            columns |= {
                policy.id: redecide(columns[policy.id], policy)
                for policy in rule.policies
                if policy.id in anew
            }
            if anew:
                columns[FLAGGED.name] = flagged([columns[name] for name in rule.ids])
            yield pa.table(columns)


def _distribute(
    rule: Rule,
    start: int,
    rows: pa.Table,
    labels: pa.Table,
    parts: Mapping[Fate, Part],
    counts: Counter[str],
    why: Mapping[str, Counter[tuple[str, str]]],
) -> None:
    """Hand each row of a batch on to its part, in order, with what is told of it."""
    positions = labels.column(ROW.name).to_numpy() - start
    others = np.setdiff1d(
        np.arange(len(rows)), positions, assume_unique=True
    )  # not selected for judging
    for fate, mask in fates(rule.keep, labels).items():
        chosen, mine = labels.filter(mask), positions[mask.to_numpy(zero_copy_only=False)]
        counts[fate] += len(mine)
        beside = _beside(rule, fate, chosen)
        if fate in why:
            _count(beside[0], why[fate], "label" if fate == "removed" else "status")
        if fate == rule.unselected:
            counts["unselected"] += len(others)
            order = pa.array(np.argsort(np.concatenate([mine, others]), kind="stable"))
            empty = [
                untold(others + start) if fate in why else _nulls(column.type, len(others))
                for column in beside
            ]
            beside = [
                pa.concat_arrays(both).take(order) for both in zip(beside, empty, strict=True)
            ]
            mine = np.sort(np.concatenate([mine, others]))
        parts[fate].add(rows if len(mine) == len(rows) else rows.take(pa.array(mine)), beside)


def _beside(rule: Rule, fate: Fate, labels: pa.Table) -> list[pa.Array]:
    """What stands beside the input's columns, as `_more` has it."""
    if fate != "kept":
        return [told(labels, rule.policies, rule.named)]
    return (
        [structs(labels.column(name)) for name in (FLAGGED.name, *rule.ids)]
        if rule.verdicts
        else []
    )


def _nulls(kind: pa.DataType, rows: int) -> pa.Array:
    """Also of a struct that has fields which are never null."""
    if not pa.types.is_struct(kind):
        return pa.nulls(rows, kind)
    columns = [
        pa.nulls(rows, field.type) if field.nullable else pa.repeat(pa.scalar("", field.type), rows)
        for field in kind
    ]
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=pa.repeat(True, rows))


def _count(reasons: pa.StructArray, found: Counter[tuple[str, str]], by: str) -> None:
    """Reasons by policy and label or status; a row with several reasons counts under each."""
    each = pc.list_flatten(reasons.field("reasons"))
    grouped = (
        pa.table({"policy": each.field("policy"), "by": each.field(by)})
        .group_by(["policy", "by"])
        .aggregate([([], "count_all")])
    )
    for row in grouped.to_pylist():
        found[row["policy"], row["by"] or ""] += row["count_all"]
