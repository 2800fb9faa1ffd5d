"""One shard's labels, decided again: whether anything in it changes, and what it then becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.decision_rule import DecisionRule
from moderay.core.errors import first_line
from moderay.core.storage import RemoteFile, remove
from moderay.core.verdicts import CONTENT_HASH, HUMAN, label_fields, structs, todays_schema, trace
from moderay.corpus.shard import Shard
from moderay.labels.layout import Layout, MarkerName, decision_hash
from moderay.labels.overruling import ANSWER
from moderay.labels.records import ShardMarker
from moderay.labels.shard_writer import Publication, ShardFailedError, republish


@dataclass(frozen=True)
class Decision:
    """How an output's labels are decided now, whatever shard they are in.

    Attributes:
        layout: Of the output.
        rules: Of its policies, under today's thresholds.
        answers: By policy, what people said: rows of `ANSWER`.
        run: Whose lease must be held.
        storage: Options of the file systems.
    """

    layout: Layout
    rules: tuple[DecisionRule, ...]
    answers: Mapping[str, pa.Table]
    run: int
    storage: Mapping[str, Any] = field(default_factory=dict)

    def said(self, policy: str) -> pa.Table:
        """What people said under a policy."""
        return self.answers.get(policy, ANSWER.empty_table())


@dataclass(frozen=True)
class DecidedShard:
    """A shard that was looked at.

    Attributes:
        marker: Of its labels now.
        rewritten: Whether anything in it changed.
        turned: By policy, rows that came to the other side: `to_flagged` and `to_safe`.
    """

    marker: ShardMarker
    rewritten: bool = False
    turned: Mapping[str, Counter[str]] = field(default_factory=dict)


def decide_shard(
    decision: Decision, marker: ShardMarker, name: MarkerName, old: Sequence[MarkerName]
) -> DecidedShard:
    """Decide a published shard again, if anything in it changes.

    Args:
        decision: How.
        marker: Of its labels.
        name: Of that marker.
        old: All markers that the new one replaces.

    Raises:
        ShardFailedError: Its label file cannot be read.
        LeaseLostError: Another driver has taken over.
        OSError: The storage keeps failing.
    """
    thresholds = {rule.policy: rule.threshold for rule in decision.rules}
    layout, shard = decision.layout, marker.shard
    try:
        with pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard)), pre_buffer=True) as labels:
            same = dict(marker.thresholds) == thresholds
            if same and not is_changed(labels, decision):
                for other in old:
                    if other != name:
                        remove(layout.fs, layout.marker(shard, other))
                return DecidedShard(marker)
            names = labels.schema_arrow.names
            columns = _carried(labels.schema_arrow, decision.rules)
    except pa.ArrowException as error:
        raise ShardFailedError(
            f"{shard}: its labels cannot be read: {first_line(error)}"
        ) from error
    turned: dict[str, Counter[str]] = {rule.policy: Counter() for rule in decision.rules}

    def watch(policy: str, before: pa.StructArray, after: pa.StructArray) -> None:
        was, now = (_flags(decisions) for decisions in (before, after))
        turned[policy]["to_flagged"] += int(np.count_nonzero(now & ~was))
        turned[policy]["to_safe"] += int(np.count_nonzero(was & ~now))

    work = Publication(
        layout,
        _shard_of(marker),
        name.key,
        name.key,
        name.decision if same else decision_hash(decision.rules, columns),
        marker.judges,
        tuple(sorted(decision.rules, key=lambda rule: names.index(rule.policy))),
        columns,
        "all",  # as it was stored
        decision.run,
        decision.storage,
        answers=decision.answers,
        decided=marker.thresholds,
    )
    return DecidedShard(republish(work, old, watch), True, turned)


def _flags(decisions: pa.StructArray) -> np.ndarray:
    """Bool: which of them violate."""
    flags = pc.fill_null(decisions.field("violates"), False)
    return np.asarray(flags.to_numpy(zero_copy_only=False))


def _shard_of(marker: ShardMarker) -> Shard:
    """The input file as its marker knows it; it is not read."""
    name, size, version = marker.identity
    return Shard(marker.source, name, size, version, (marker.input_rows,), whole=marker.whole)


def _carried(schema: pa.Schema, rules: Sequence[DecisionRule]) -> pa.Schema:
    """The input's columns in a label file."""
    own = {field.name for field in label_fields(rules)}
    today = todays_schema(schema)
    return pa.schema([field for field in today if field.name not in own])


def is_changed(labels: pq.ParquetFile, decision: Decision) -> bool:
    """Whether people say something else of some row than it holds."""
    policies = [rule.policy for rule in decision.rules]
    deciders = [f"{policy}.trace.decided_by" for policy in policies]
    for group in range(labels.num_row_groups):
        table = labels.read_row_group(group, columns=[CONTENT_HASH.name, *deciders])
        hashes = structs(table.column(CONTENT_HASH.name))
        for policy in policies:
            said = decision.said(policy)
            answer = pc.index_in(hashes, said.column("content_hash"))
            by_people = pc.equal(trace(structs(table.column(policy)), "decided_by"), HUMAN)
            held = pc.fill_null(by_people, False)
            if not held.equals(answer.is_valid()):
                return True
            if pc.any(held).as_py() and not _holds(labels, group, policy, said.take(answer)):
                return True
    return False


def _holds(labels: pq.ParquetFile, group: int, policy: str, answers: pa.Table) -> bool:
    """Whether rows that people decided hold these answers; null for the others."""
    table = labels.read_row_group(group, columns=[f"{policy}.label", f"{policy}.rationale"])
    decisions = structs(table.column(policy))
    of_people = structs(answers.column("label")).is_valid()
    return all(
        pc.if_else(of_people, decisions.field(name), None).equals(structs(answers.column(said)))
        for name, said in (("label", "label"), ("rationale", "note"))
    )
