"""One shard through a filter's rule: its rows go to kept, removed or held; idempotent.

Each of these is a file of the shard's own name. Input and labels are read side by side in row
order, in batches of bounded size; the files are written beside each other on the local disk, put,
and then the marker says that the shard is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.decision_rule import DecisionRule
from moderay.core.errors import first_line
from moderay.core.hashing import digest
from moderay.core.storage import (
    ChangedError,
    FileState,
    listed_file,
    on_disk,
    put_file,
    remove,
    scratch_folder,
    stamp,
)
from moderay.core.verdicts import (
    FLAGGED,
    ROW,
    Status,
    decision_fields,
    label_fields,
    structs,
    todays_form,
)
from moderay.corpus.formats import (
    BoundedFile,
    Parquet,
    Part,
    Verbatim,
    bounded_batches,
    format_of,
    input_file,
)
from moderay.corpus.formats.table_schema import is_valued
from moderay.corpus.ranges import Range
from moderay.corpus.shard import Shard
from moderay.corpus.views import rows_at
from moderay.corpus.where import where_columns
from moderay.labels.decisions import flagged
from moderay.labels.layout import Layout, MarkerName, file_stamp
from moderay.labels.lease import assert_held
from moderay.labels.overruling import redecide
from moderay.labels.records import ShardMarker
from moderay.labels.shard_writer import ShardFailedError
from moderay.tasks.filter.kept_table import BESIDE, KeptTable, WithoutColumns
from moderay.tasks.filter.records import FATES, Fate, FilterMarker, FilterRows
from moderay.tasks.filter.rule import WHY, fates, read_fields, reasons, without_reasons


@dataclass(frozen=True)
class FilterRule:
    """What a filter does with a row, whatever shard it is in; picklable.

    Attributes:
        keep: Polars SQL over verdict columns.
        decisions: How each policy's verdicts are decided here.
        unselected: What becomes of rows that were not to be judged; None where there are none.
        verdicts: Whether kept rows have the verdict columns too.
    """

    keep: str
    decisions: tuple[DecisionRule, ...]
    unselected: Fate | None
    verdicts: bool

    @property
    def ids(self) -> list[str]:
        """Of the policies."""
        return [decision.policy for decision in self.decisions]

    @property
    def named(self) -> list[str]:
        """Policies that the rule names."""
        return [name for name in where_columns(self.keep) if name in self.ids]


@dataclass(frozen=True)
class Sifting:
    """One shard to filter; picklable.

    Attributes:
        rule: Which rows go where.
        labels: The output with its labels.
        out: Where the rows are written.
        marker: Of its labels.
        key: Of the filter's own marker.
        decision: Of the filter's own marker.
        old: Markers that it replaces.
        run: Whose lease must be held.
        storage: Options of the input's file system.
        shard: The input file, where the job is known: the marker's URL may lack what opens it.
        table: The Delta table that kept rows go into; None where they go into a folder.
    """

    rule: FilterRule
    labels: Layout
    out: Layout
    marker: ShardMarker
    key: str
    decision: str
    old: tuple[MarkerName, ...]
    run: int
    storage: Mapping[str, Any]
    shard: Shard | None = None
    table: KeptTable | None = None

    @property
    def name(self) -> str:
        """The input file's path below its root.

        It is that of the files made of it below their folders too.
        """
        return input_file(self.marker.shard, self.marker.source)

    @property
    def located(self) -> tuple[Any, str]:
        """The input file's file system, and its path there."""
        return source_of(self.marker, self.shard, self.storage)

    def path(self, fate: Fate) -> str:
        """Of the file with these rows."""
        if fate == "kept" and self.table is not None:
            return self.table.path(self.name, self.key, self.decision)
        return self.out.label(f"{fate}/{self.name}")

    def scratch(self, fate: Fate) -> str:
        """A folder beside it."""
        if fate == "kept" and self.table is not None:
            return f"{self.table.layout.root}/{BESIDE}/tmp"
        return self.out.private("tmp")

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns of the input that no file of the table has which kept rows go into."""
        schema = None if self.table is None or self.shard is None else self.shard.schema
        return () if schema is None else tuple(field.name for field in schema if is_valued(field))

    @property
    def decided_anew(self) -> set[str]:
        """Policies whose labels were decided under another threshold."""
        return {
            decision.policy
            for decision in self.rule.decisions
            if decision.threshold != self.marker.thresholds[decision.policy]
        }


def sift(work: Sifting) -> None:
    """Filter one shard.

    Raises:
        ShardFailedError: Input and labels do not fit, or cannot be read.
        LeaseLostError: Another driver has taken over.
        OSError: The storage keeps failing.
    """
    if wrong := changed(work.marker, work.shard, work.storage):
        raise ShardFailedError(wrong)
    layout, fs = work.out, work.out.fs
    with scratch_folder() as folder:
        with on_disk(folder):
            done = _to_local(work, folder)
        if work.table is not None and not work.table.is_written(done, work.rule.unselected):
            (folder / "kept").unlink()
        assert_held(layout, work.run)
        stamps: dict[str, str | None] = dict.fromkeys(FATES)
        for fate in FATES:
            if (file := folder / fate).is_file():
                to = fs if fate != "kept" or work.table is None else work.table.layout.fs
                written = put_file(to, str(file), work.path(fate), work.scratch(fate))
                stamps[fate] = file_stamp(*written)
            else:
                remove(fs, layout.label(f"{fate}/{work.name}"))  # of another rule
    name = MarkerName(work.key, work.decision, work.run, fates_stamp(stamps))
    layout.create(layout.marker(work.name, name), done.to_json())
    for marker in work.old:
        remove(fs, layout.marker(work.name, marker))


def fates_stamp(stamps: Mapping[str, str | None]) -> str:
    """One stamp for the files of a filtered shard.

    Args:
        stamps: By fate, of the file with these rows; None where there is none.
    """
    return digest([stamps[fate] for fate in FATES])


def source_of(
    marker: ShardMarker, shard: Shard | None, storage: Mapping[str, Any]
) -> tuple[Any, str]:
    """The file system and path of the file that was labelled."""
    return listed_file(marker.source, storage) if shard is None else shard.located(storage)


def changed(marker: ShardMarker, shard: Shard | None, storage: Mapping[str, Any]) -> str | None:
    """How a shard's source differs from the file that was labelled; None where it does not."""
    now = stamp(*source_of(marker, shard, storage))
    if now is None:
        return f"{marker.shard}: {marker.source}, of which these are the labels, is gone"
    if now != marker.identity[1:]:
        return f"{marker.shard}: {marker.source} is not the version that was labelled"
    return None


def _to_local(work: Sifting, folder: Path) -> FilterMarker:
    """Write the shard's files into a folder; what their marker says."""
    fs, path = work.located
    counts: Counter[str] = Counter()
    why = {"removed": Counter[tuple[str, str]](), "held": Counter[tuple[str, str]]()}
    try:
        labelled = FileState(*work.marker.identity[1:])
        with ExitStack() as files:
            source = files.enter_context(_opened(work, fs, path, labelled))
            parts = {fate: source.part(folder / fate, _more(work.rule, fate)) for fate in FATES}
            if work.keys:
                own = files.enter_context(_opened(work, fs, path, labelled, work.keys))
                part = own.part(folder / "kept", _more(work.rule, "kept"))
                parts["kept"] = WithoutColumns(part, work.keys)
            for (start, end), rows, labels in _side_by_side(work, source):
                counts["input"] += end - start
                _distribute(work.rule, start, rows, labels, parts, counts, why)
            # A shard keeps its file even where nothing of it is kept.
            parts["kept"].close(always=True)
            for fate in ("removed", "held"):
                parts[fate].close()
    except ChangedError as error:
        raise ShardFailedError(f"{work.name} {error}") from error
    except pa.ArrowException as error:
        raise ShardFailedError(
            f"{work.name}: input or labels cannot be read: {first_line(error)}"
        ) from error
    rows_of = FilterRows(**counts)
    if rows_of.input != work.marker.input_rows or not rows_of.add_up:
        raise ShardFailedError(
            f"{work.name}: {dict(counts)} does not add up to the {work.marker.input_rows:,} "
            "rows that were labelled"
        )
    return FilterMarker(
        shard=work.name,
        rows=rows_of,
        removed=nested_reasons(why["removed"]),
        held=nested_reasons(why["held"]),
    )


def _opened(
    work: Sifting, fs: Any, path: str, labelled: FileState, without: Sequence[str] = ()
) -> AbstractContextManager[Verbatim]:
    """The input file's rows; of a table's file, those of the table `without` some columns."""
    format_ = format_of(work.marker.source, work.marker.whole)
    schema = None if work.shard is None else work.shard.schema
    if isinstance(format_, Parquet) and schema is not None:
        columns = pa.schema([field for field in schema if field.name not in without])
        return format_.of_table(fs, path, columns, labelled)
    return format_.verbatim(fs, path, labelled)


def nested_reasons(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Rows by policy and reason, the most frequent first."""
    nested: dict[str, dict[str, int]] = {}
    for (policy, reason), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        nested.setdefault(policy, {})[reason] = count
    return nested


def _more(rule: FilterRule, fate: Fate) -> list[pa.Field]:
    """What is added to the input's columns."""
    if fate != "kept":
        return [WHY]
    return [FLAGGED, *decision_fields(rule.decisions)] if rule.verdicts else []


def _side_by_side(work: Sifting, source: Verbatim) -> Iterator[tuple[Range, pa.Table, pa.Table]]:
    """(range, input rows, their label rows), batch after batch."""
    labels = _decided(work)
    held = next(labels, pa.schema(label_fields(work.rule.decisions)).empty_table())
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
    # A label file may be of a form without this field.
    is_whole = rule.verdicts or "overruled" in rule.keep
    whole = sorted(set(rule.ids) if is_whole else anew)
    fields = [
        name for name in read_fields(rule.keep, rule.ids) if name.partition(".")[0] not in whole
    ] + whole
    with BoundedFile(work.labels.fs, work.labels.label(work.marker.shard)) as file:
        for _, table in bounded_batches(file, [*fields, FLAGGED.name]):
            columns = {name: structs(table.column(name)) for name in table.column_names}
            columns |= {name: todays_form(columns[name]) for name in whole}
            columns |= {
                decision.policy: redecide(columns[decision.policy], decision)
                for decision in rule.decisions
                if decision.policy in anew
            }
            if anew:
                columns[FLAGGED.name] = flagged([columns[name] for name in rule.ids])
            yield pa.table(columns)


def _distribute(  # noqa: PLR0913, PLR0917  # a batch, and all that is counted of it
    rule: FilterRule,
    start: int,
    rows: pa.Table,
    labels: pa.Table,
    parts: Mapping[Fate, Part],
    counts: Counter[str],
    why: Mapping[str, Counter[tuple[str, str]]],
) -> None:
    """Hand each row of a batch on to its part, in order, with the reasons why it is there."""
    positions = labels.column(ROW.name).to_numpy() - start
    others = np.setdiff1d(
        np.arange(len(rows)), positions, assume_unique=True
    )  # not selected for judging
    # Invalid is what a row holds, and so under all policies.
    status = structs(labels.column(rule.ids[0])).field("status")
    doubtful = np.ones(len(rows), bool)
    doubtful[positions] = pc.equal(status, Status.INVALID.value).to_numpy(zero_copy_only=False)
    for fate, mask in fates(rule.keep, labels).items():
        chosen = labels.filter(mask)
        mine = positions[mask.to_numpy(zero_copy_only=False)]
        counts[fate] += len(mine)
        beside = _beside(rule, fate, chosen)
        if fate in why:
            _count(beside[0], why[fate], "label" if fate == "removed" else "status")
        if fate == rule.unselected:
            counts["unselected"] += len(others)
            order = pa.array(np.argsort(np.concatenate([mine, others]), kind="stable"))
            empty = [
                without_reasons(others + start) if fate in why else _nulls(column.type, len(others))
                for column in beside
            ]
            beside = [
                pa.concat_arrays(both).take(order) for both in zip(beside, empty, strict=True)
            ]
            mine = np.sort(np.concatenate([mine, others]))
        parts[fate].add(rows_at(rows, mine), beside, doubtful[mine])


def _beside(rule: FilterRule, fate: Fate, labels: pa.Table) -> list[pa.Array]:
    """What stands beside the input's columns, as `_more` has it."""
    if fate != "kept":
        return [reasons(labels, rule.decisions, rule.named)]
    names = (FLAGGED.name, *rule.ids) if rule.verdicts else ()
    return [structs(labels.column(name)) for name in names]


def _nulls(kind: pa.DataType, rows: int) -> pa.Array:
    """Also of a struct that has fields which are never null."""
    if not pa.types.is_struct(kind):
        return pa.nulls(rows, kind)
    columns = [
        pa.nulls(rows, field.type) if field.nullable else pa.repeat(pa.scalar("", field.type), rows)
        for field in kind
    ]
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=pa.repeat(True, rows))


def _count(why: pa.StructArray, counts: Counter[tuple[str, str]], by: str) -> None:
    """Count reasons by policy and label or status; a row with several counts under each."""
    each = pc.list_flatten(why.field("reasons"))
    grouped = (
        pa.table({"policy": each.field("policy"), "by": each.field(by)})
        .group_by(["policy", "by"])
        .aggregate([([], "count_all")])
    )
    for row in grouped.to_pylist():
        counts[row["policy"], row["by"] or ""] += row["count_all"]
