"""Publishing: saved units -> one label file per shard, complete or absent; each task idempotent.

Check that the units tile the shard and that the input is unchanged; stream the carried columns
beside the verdicts in row order into a local file; verify it; put it; then the marker; then drop
the units. A task that dies at any point is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.decision_rule import DecisionRule
from moderay.core.errors import ModerayError, first_line
from moderay.core.parquet_chunks import NotSplicedError
from moderay.core.storage import (
    ChangedError,
    get,
    machine_fault,
    on_disk,
    put_file,
    remove,
    scratch_folder,
    stamp,
)
from moderay.core.verdicts import (
    CONTENT_HASH,
    FLAGGED,
    HUMAN,
    ROW,
    label_fields,
    structs,
    todays_form,
    todays_schema,
    trace,
)
from moderay.corpus.content import content_hashes, template_columns
from moderay.corpus.formats import (
    BATCH_ROWS,
    UNREADABLE,
    BoundedFile,
    bounded_batches,
    joined,
    kind_column,
)
from moderay.corpus.ranges import Range, gaps
from moderay.corpus.shard import Shard
from moderay.corpus.views import rows_at
from moderay.labels.decisions import decide, flagged, verdicts
from moderay.labels.label_file import local_digest, run_note
from moderay.labels.layout import Layout, MarkerName, marker_name
from moderay.labels.lease import assert_held
from moderay.labels.overruling import ANSWER, corrected
from moderay.labels.records import LabelCounts, ShardMarker, WrittenFile
from moderay.labels.shard_tally import ShardTally
from moderay.labels.spliced_labels import LabelSplice, local_copy
from moderay.labels.unit_file import BrokenUnitError, parse_unit


class ShardFailedError(ModerayError):
    """This shard cannot be published; the others can."""


class OtherContentsError(ShardFailedError):
    """The input does not hold what was judged, although it looks unchanged."""


@dataclass(frozen=True)
class Publication:
    """What publishing a shard needs; picklable.

    Attributes:
        layout: of the output.
        shard: what is published.
        key: the shard's.
        units: the key its units are saved under.
        decision: hash of what the verdicts become.
        judges: judge keys by policy and judge.
        rules: how the verdicts of each policy are decided.
        columns: input fields that are carried over.
        reasoning: whose reasoning is kept: all, flagged or none.
        run: that publishes it, and whose lease must be held.
        storage: options of the input's storage.
        content: the job's `input.content`; where its columns are carried, each row's is held
            against what was judged.
        answers: by policy, what people said of contents: rows of `overruling.ANSWER`.
        decided: by policy, the threshold under which a published shard is decided; of those that
            are not named, nobody knows.
    """

    layout: Layout
    shard: Shard
    key: str
    units: str
    decision: str
    judges: Mapping[str, Mapping[str, str]]
    rules: tuple[DecisionRule, ...]
    columns: pa.Schema
    reasoning: str
    run: int
    storage: Mapping[str, Any]
    content: str = ""
    answers: Mapping[str, pa.Table] = field(default_factory=dict)
    decided: Mapping[str, float] = field(default_factory=dict)

    @property
    def label_schema(self) -> pa.Schema:
        """What moderay adds to the input."""
        return pa.schema(label_fields(self.rules))

    @property
    def schema(self) -> pa.Schema:
        """Of the label file."""
        return pa.schema([*self.columns, *self.label_schema])


def publish(work: Publication, units: Sequence[Range], old: Sequence[MarkerName]) -> ShardMarker:
    """Publish a shard from its units.

    Args:
        work: the shard.
        units: its rows.
        old: the markers it had; the new one takes their place.

    Returns:
        The new marker.

    Raises:
        ShardFailedError: this shard cannot be published.
        LeaseLostError: another driver has taken over.
        OSError: the storage keeps failing.
    """
    if missing := gaps(work.shard.rows, units):
        raise ShardFailedError(
            f"{work.shard.name}: rows {missing[0][0]}-{missing[0][1]} have no saved unit"
        )
    assert_unchanged(work)
    decided = (_decided(work, _read_unit(work, rows)) for rows in units)
    try:
        return _write(work, _filled_with(work, _beside_input(work, decided)), units, old)
    except OtherContentsError as error:
        assert_held(work.layout, work.run)
        drop(work, units, ())
        raise ShardFailedError(f"{error}: run the same command again") from error


# Is called with a policy, its decisions as they were, and as they are now.
Redecided = Callable[[str, pa.StructArray, pa.StructArray], None]


def republish(
    work: Publication,
    old: Sequence[MarkerName],
    watch: Redecided = lambda policy, before, after: None,
) -> ShardMarker:
    """Write a published shard again from its own probabilities.

    Under other thresholds, with other columns carried, or with what people said since. Returns and
    raises as `publish` does.

    Args:
        work: the shard.
        old: the markers it has; the new one takes their place.
        watch: is called for every batch of decisions that changes.
    """
    layout = work.layout
    with BoundedFile(layout.fs, layout.label(work.shard.name)) as file:
        if file.schema_arrow.equals(work.schema):
            with suppress(NotSplicedError):
                return _write(work, _spliced(work, watch), (), old)
        if todays_schema(file.schema_arrow).equals(work.schema):
            batches = _redecided(work, file, work.schema, watch)
            return _write(work, _filled_with(work, batches), (), old)
        assert_unchanged(work)
        try:
            decided = _redecided(work, file, work.label_schema, watch)
            return _write(work, _filled_with(work, _beside_input(work, decided)), (), old)
        except OtherContentsError as error:
            raise ShardFailedError(f"{error}: touch it, and it is judged again") from error


def assert_unchanged(work: Publication) -> None:
    """Assert that the input file is the one that was judged.

    Raises:
        ShardFailedError: it has gone, or changed.
    """
    now = stamp(*work.shard.located(work.storage))
    if now is None:
        raise ShardFailedError(f"{work.shard.file} has gone from the input while it was judged")
    if now != (work.shard.size, work.shard.version):
        raise ShardFailedError(
            f"{work.shard.file} changed while it was judged: run the same command again"
        )


# Writes a label file, and counts what is in it.
Fill = Callable[[Path, ShardTally], None]


def _filled_with(work: Publication, batches: Iterator[pa.Table]) -> Fill:
    return lambda file, tally: _to_local(file, work, batches, tally)


def _spliced(work: Publication, watch: Redecided) -> Fill:
    """From the published file, of which what cannot change is copied as it is.

    What it writes raises `NotSplicedError`, before anything is counted, where that cannot be.
    """
    layout = work.layout

    def redecide(
        rule: DecisionRule, before: pa.StructArray, hashes: pa.StringArray
    ) -> pa.StructArray:
        after = _redecided_column(work, rule, before, hashes)
        if after is not before:
            watch(rule.policy, before, after)
        return after

    def fill(file: Path, tally: ShardTally) -> None:
        source = local_copy(layout.fs, layout.label(work.shard.name), file.parent)
        schema = work.schema.with_metadata(run_note(work.run))
        LabelSplice(source, schema, work.rules).write(file, redecide, tally)

    return fill


def _write(
    work: Publication, fill: Fill, units: Sequence[Range], old: Sequence[MarkerName]
) -> ShardMarker:
    layout, fs = work.layout, work.layout.fs
    with scratch_folder() as folder:
        file = folder / "labels.parquet"
        # Of a shard that was published before, also what this run judged.
        tally = ShardTally(work.rules, work.run if old else None)
        with on_disk(folder):
            fill(file, tally)
        _verify(file, work, tally.counts)
        digest = local_digest(file)
        assert_held(layout, work.run)
        written = WrittenFile(size=file.stat().st_size, version="", digest=digest)
        # Of a file in the place of another there are no units: who dies between the file and its
        # marker must leave one that knows the file by its bytes.
        announced = _mark(work, _marker(work, tally, written)) if old and not units else None
        size, version = put_file(
            fs, str(file), layout.label(work.shard.name), layout.private("tmp")
        )
    marker = _marker(work, tally, WrittenFile(size=size, version=version, digest=digest))
    name = _mark(work, marker)
    before = [*old, *([] if announced is None else [announced])]
    drop(work, units, [other for other in before if other != name])
    return marker


def _mark(work: Publication, marker: ShardMarker) -> MarkerName:
    """Write a marker.

    One of this very name speaks of the same file: an earlier attempt of this task wrote it.
    """
    name = marker_name(marker, work.key, work.decision)
    work.layout.create(work.layout.marker(work.shard.name, name), marker.to_json())
    return name


def _marker(work: Publication, tally: ShardTally, written: WrittenFile) -> ShardMarker:
    counts = tally.counts
    return ShardMarker(
        shard=work.shard.name,
        identity=work.shard.identity,
        source=work.shard.url,
        whole=work.shard.whole,
        input_rows=work.shard.rows,
        rows=counts.rows,
        label_file=written,
        flagged=counts.flagged,
        policies=counts.policies,
        new=tally.new,
        histograms={name: profile.histogram() for name, profile in tally.profiles.items()},
        flagged_without_p={
            name: profile.flagged_without_p for name, profile in tally.profiles.items()
        },
        chosen={name: profile.chosen() for name, profile in tally.profiles.items()},
        judges={name: dict(keys) for name, keys in work.judges.items()},
        thresholds={rule.policy: rule.threshold for rule in work.rules},
        run=work.run,
    )


def drop(work: Publication, units: Sequence[Range], old: Sequence[MarkerName]) -> None:
    """Remove what the published shard no longer needs: its units and the markers it had before."""
    fs = work.layout.fs
    paths = [work.layout.unit(work.shard.name, rows, work.units) for rows in units]
    paths += [work.layout.marker(work.shard.name, name) for name in old]
    for path in paths:
        remove(fs, path)


def _to_local(
    file: Path, work: Publication, batches: Iterator[pa.Table], tally: ShardTally
) -> None:
    """Write the label file, and count what is in it."""
    # Written as a whole and verified before anybody sees it: a ParquetWriter that is left by an
    # exception leaves a valid file with the rows so far.
    schema = work.schema.with_metadata(run_note(work.run))
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in batches:
            try:
                writer.write_table(table.replace_schema_metadata(schema.metadata))
            except pa.ArrowNotImplementedError as error:  # of some types, Arrow reads and no more
                raise ShardFailedError(
                    f"{work.shard.file}: its carried columns cannot be written: "
                    f"{first_line(error)}; leave them out with output.columns"
                ) from None
            tally.add(table)


def _verify(file: Path, work: Publication, counts: LabelCounts) -> None:
    """Read back what was written: as many rows, rising positions, the schema that was promised."""
    with pq.ParquetFile(file) as written:
        rows = written.read(columns=[ROW.name, FLAGGED.name])
        positions = rows.column(ROW.name).to_numpy()
        if (
            not written.schema_arrow.equals(work.schema)
            or len(positions) != counts.rows
            or (counts.rows and not np.all(np.diff(positions) > 0))
            or (pc.sum(rows.column(FLAGGED.name)).as_py() or 0) != counts.flagged
        ):
            raise ShardFailedError(
                f"{work.shard.name}: the written file is not what was meant to be written; run "
                "the same command again"
            )


def _beside_input(work: Publication, labels: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Label rows beside the carried columns of the input.

    Both in row order, one batch of input after the other.
    """
    held = work.label_schema.empty_table()
    for start, end, carried in _carried(work):
        while (not len(held) or held.column(ROW.name)[-1].as_py() < end - 1) and (
            more := next(labels, None)
        ) is not None:
            held = pa.concat_tables([held, more])
        positions = held.column(ROW.name).to_numpy()
        count = int(np.searchsorted(positions, end))
        if count:
            wanted = rows_at(carried, positions[:count] - start) if len(work.columns) else carried
            beside = held.slice(0, count)
            _assert_judged(work, wanted, beside)
            own = wanted.select(work.columns.names)
            yield pa.Table.from_arrays([*own.columns, *beside.columns], schema=work.schema)
        held = held.slice(count)
    if len(held) or any(map(len, labels)):
        raise ShardFailedError(
            f"{work.shard.file}: there are labels of rows behind its {work.shard.rows:,} rows"
        )


def _assert_judged(work: Publication, carried: pa.Table, labels: pa.Table) -> None:
    """Assert that rows of the input hold what was judged, where their content is carried.

    Raises:
        OtherContentsError: they do not.
    """
    names = set(template_columns(work.content))
    # A column of the file's own by the name of one of these would stand in its place.
    beside = {UNREADABLE, *map(kind_column, names)}
    own = set(work.columns.names)
    if work.content and names <= own and not beside & own:
        hashes = pa.chunked_array([content_hashes(carried, work.content)], pa.string())
        if not hashes.equals(labels.column(CONTENT_HASH.name)):
            raise OtherContentsError(f"{work.shard.file} holds other contents than were judged")


def _decided(work: Publication, unit: pa.Table) -> pa.Table:
    hashes = structs(unit.column(CONTENT_HASH.name))
    decisions = [
        _with_answers(
            work, rule, decide(structs(unit.column(rule.policy)), rule, work.reasoning), hashes
        )
        for rule in work.rules
    ]
    columns = [
        unit.column(ROW.name),
        hashes,
        flagged(decisions),
        *decisions,
    ]
    return pa.Table.from_arrays(columns, schema=work.label_schema)


def _with_answers(
    work: Publication, rule: DecisionRule, decisions: pa.StructArray, hashes: pa.StringArray
) -> pa.StructArray:
    """Judges' decisions with what people say today."""
    answers = work.answers.get(rule.policy, ANSWER.empty_table())
    return corrected(decisions, hashes, answers, rule)


def _redecided(
    work: Publication, file: BoundedFile, schema: pa.Schema, watch: Redecided
) -> Iterator[pa.Table]:
    """The columns of `schema` from a label file, under the rules and with people's answers."""
    for _, batch in bounded_batches(file, schema.names):
        table = batch.select(schema.names)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        hashes = structs(table.column(CONTENT_HASH.name))
        decisions = {}
        for rule in work.rules:
            before = todays_form(structs(table.column(rule.policy)))
            decisions[rule.policy] = _redecided_column(work, rule, before, hashes)
            if decisions[rule.policy] is not before:
                watch(rule.policy, before, decisions[rule.policy])
        columns |= {FLAGGED.name: flagged(list(decisions.values())), **decisions}
        yield pa.Table.from_pydict(columns).cast(schema)


def _redecided_column(
    work: Publication, rule: DecisionRule, before: pa.StructArray, hashes: pa.StringArray
) -> pa.StructArray:
    """A policy's decisions today; the very same, where nothing can have changed."""
    if work.decided.get(rule.policy) == rule.threshold:
        answers = work.answers.get(rule.policy, ANSWER.empty_table())
        said = pc.index_in(hashes, answers.column("content_hash"))
        by_people = pc.equal(trace(before, "decided_by"), HUMAN)
        if said.null_count == len(said) and not pc.any(by_people).as_py():
            return before
    return _with_answers(work, rule, decide(verdicts(before), rule), hashes)


def _carried(work: Publication) -> Iterator[tuple[int, int, pa.Table]]:
    """(first row, end, the carried columns of these rows, and what stands beside them).

    Raises:
        ShardFailedError: the input cannot be read, or has not the rows that were counted.
    """
    shard = work.shard
    if not len(work.columns):
        for start in range(0, shard.rows, BATCH_ROWS):
            yield start, min(start + BATCH_ROWS, shard.rows), pa.table({})
        return
    fs, path = shard.located(work.storage)
    names = work.columns.names
    start = 0
    try:
        for table in joined(shard.format.tables(fs, path, names, shard.schema, listed=shard.state)):
            carried = table.select(names).cast(work.columns)
            for name in table.column_names:
                if name not in names:
                    carried = carried.append_column(name, table.column(name))
            yield start, start + len(table), carried
            start += len(table)
    except ChangedError as error:
        raise ShardFailedError(f"{shard.file} {error}") from error
    except (pa.ArrowException, OSError) as error:
        if (fault := machine_fault(shard.url, error)) is not None:
            raise fault from error
        raise ShardFailedError(
            f"{shard.file}: its carried columns cannot be read: {first_line(error)}"
        ) from error
    if start != shard.rows:
        raise ShardFailedError(
            f"{shard.file} has {start:,} rows, and {shard.rows:,} were counted: run the same "
            "command again"
        )


def _read_unit(work: Publication, rows: Range) -> pa.Table:
    """A saved unit; one that is broken is dropped, so that its rows are judged again.

    Raises:
        ShardFailedError: it is broken, or gone.
        LeaseLostError: another driver has taken over.
    """
    path = work.layout.unit(work.shard.name, rows, work.units)
    saved = f"{work.shard.name}: the saved rows {rows[0]}-{rows[1]}"
    try:
        return parse_unit(get(work.layout.fs, path), rows)
    except FileNotFoundError:
        assert_held(work.layout, work.run)  # who took over has published them by now
        raise ShardFailedError(f"{saved} are gone; run the same command again") from None
    except BrokenUnitError as error:
        remove(work.layout.fs, path)
        raise ShardFailedError(
            f"{saved} are broken ({error}) and were dropped; run the same command again"
        ) from None
