"""`moderay explain`: all that is known of a row's verdicts, from the output and what it names.

Rows are read and their contents found in columns, a shard at once; what is made of each is a
record of its own.
"""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.core.errors import UserError, nearest
from moderay.core.storage import shown
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, ROW, Origin
from moderay.corpus.content import template_columns
from moderay.labels.manifest_record import JudgeRecord, PolicyRecord
from moderay.labels.records import ShardMarker
from moderay.tasks.explain.decisions import decision_parts, judged_by
from moderay.tasks.explain.golden_cases import PolicyFolder
from moderay.tasks.explain.labels import judge_named, label_parts
from moderay.tasks.explain.origin import Origins, ReusedRow
from moderay.tasks.explain.output import OpenOutput
from moderay.tasks.explain.plain import plain_values
from moderay.tasks.explain.records import (
    DecisionPart,
    Explanation,
    GoldenSetPart,
    JudgedPart,
    OutputPart,
    RowPart,
)
from moderay.tasks.explain.said import SaidByPeople
from moderay.tasks.output_contents import FoundContent

# Of an output whose policies' folders nobody named.
NO_FOLDER = "no policy folder was named: --job names those of a job"


@dataclass(frozen=True)
class Explainer:
    """Explains rows of one output.

    Attributes:
        output: The output.
        folders: Of policies, by id, where they are known.
    """

    output: OpenOutput
    folders: Mapping[str, PolicyFolder] = field(default_factory=dict)

    def policies(self, asked: str | None) -> list[str]:
        """The policies to tell of: one, or all.

        Raises:
            UserError: The output has no such policy.
        """
        known = list(self.output.manifest.policies)
        if asked is not None and asked not in known:
            raise UserError(
                f"--policy {asked}: {shown(self.output.layout.url)} has no such policy: "
                f"{nearest(asked, known)}"
            )
        return known if asked is None else [asked]

    def explanations(
        self, shard: str, rows: np.ndarray | None, policies: Sequence[str]
    ) -> Iterator[Explanation]:
        """Explain rows of a shard, in order.

        Args:
            shard: A published one.
            rows: Positions in the input file, rising. None: all that were judged.
            policies: Ids.
        """
        marker = self.output.marker(shard)
        table = self.output.rows(shard, rows)
        positions = table.column(ROW.name).to_numpy()
        hashes = table.column(CONTENT_HASH.name).to_pylist()
        contents = self.output.contents.read(marker, positions, hashes)
        about = list(self._rows(marker, table, contents))
        judged = {name: self._judged(marker, table, name, contents) for name in policies}
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        of_output = self._of_output()
        for number, row in enumerate(about):
            yield Explanation(
                made=made,
                moderay=importlib.metadata.version("moderay"),
                row=row,
                verdicts={name: parts[number] for name, parts in judged.items()},
                output=of_output,
            )

    def _rows(
        self, marker: ShardMarker, table: pa.Table, contents: Sequence[FoundContent]
    ) -> Iterator[RowPart]:
        names = table.column_names
        hidden = set(template_columns(self.output.manifest.selection.content))
        carried = [name for name in names[: names.index(ROW.name)] if name not in hidden]
        columns = {name: plain_values(table.column(name)) for name in carried}
        own = {
            field.name: table.column(field.name).to_pylist()
            for field in (ROW, CONTENT_HASH, FLAGGED)
        }
        for number, content in enumerate(contents):
            yield RowPart(
                shard=marker.shard,
                **{name: values[number] for name, values in own.items()},
                content=content.text,
                content_missing=content.missing,
                carried={name: values[number] for name, values in columns.items()},
                source=marker.source,
                identity=marker.identity,
                whole=marker.whole,
                input_rows=marker.input_rows,
                label_file=marker.label_file,
                published_by=marker.run,
            )

    def _judged(
        self,
        marker: ShardMarker,
        table: pa.Table,
        name: str,
        contents: Sequence[FoundContent],
    ) -> list[JudgedPart]:
        """What is known of each row's verdict under one policy."""
        if name not in table.column_names:
            raise UserError(f"--policy {name}: {marker.shard} was labelled before it was added")
        manifest = self.output.manifest
        policy = manifest.policies[name]
        hashes = table.column(CONTENT_HASH.name).to_pylist()
        decisions = decision_parts(table.column(name))
        origins = Origins(self.output).of(
            name, [_reused(marker, *pair) for pair in zip(hashes, decisions, strict=True)]
        )
        golden = self._golden(name, policy, contents)
        said = SaidByPeople.of(self.output, name)
        of_policy: dict[str, Any] = {
            "threshold": marker.thresholds.get(name),
            "policy": policy,
            "labels": label_parts(policy),
            "judge_keys": marker.judges.get(name, {}),
            "counts": manifest.counts.get(name),
        }
        reports = manifest.judges.get(name, {})
        return [
            JudgedPart(
                **of_policy,
                decision=decision,
                judge=(judge := judge_named(policy, judged_by(decision))),
                rule=_rule(judge, decision),
                run=self._run(decision, marker),
                origin=origins[number],
                reviews=said.about(hashes[number]),
                golden=golden[number],
                judge_report=None if judge is None else reports.get(judge.judge),
            )
            for number, decision in enumerate(decisions)
        ]

    def _golden(
        self, name: str, policy: PolicyRecord, contents: Sequence[FoundContent]
    ) -> list[GoldenSetPart]:
        if name not in self.folders:
            return [GoldenSetPart(searched=False, why_not=NO_FOLDER)] * len(contents)
        return self.folders[name].said_of(policy, [content.text for content in contents])

    def _run(self, decision: DecisionPart, marker: ShardMarker) -> Any:
        """The run that wrote a verdict; of one that says none, the one that published it."""
        number = marker.run if decision.trace.run is None else decision.trace.run
        runs = self.output.manifest.runs
        return runs[number] if number < len(runs) else None

    def _of_output(self) -> OutputPart:
        manifest = self.output.manifest
        own = {
            name: getattr(manifest, name)
            for name in OutputPart.model_fields
            if name not in ("url", "manifest")
        }
        return OutputPart(url=shown(self.output.layout.url), manifest=manifest.id, **own)


def _reused(
    marker: ShardMarker, content_hash: str | None, decision: DecisionPart
) -> ReusedRow | None:
    if content_hash is None or decision.trace.origin != Origin.REUSED:
        return None
    return ReusedRow(marker.shard, content_hash, decision)


def _rule(judge: JudgeRecord | None, decision: DecisionPart) -> Any:
    """The rule that decided: its id is the rationale."""
    if judge is None or judge.judge != "rules":
        return None
    overruled = decision.trace.overruled
    rule_id = decision.rationale if overruled is None else overruled.rationale
    rules = (judge.model_extra or {}).get("rules", [])
    return next((rule for rule in rules if rule.get("id") == rule_id), None)


@dataclass(frozen=True)
class ExplainRequest:
    """Which verdict is to be explained.

    Attributes:
        row: Position in the input file; None where a hash is given.
        shard: Label file; None: the only one, or of a hash any.
        content_hash: Of a content; the first row that has it is explained.
        policy: Id; None: all.
    """

    row: int | None
    shard: str | None
    content_hash: str | None
    policy: str | None


def explain_row(explainer: Explainer, request: ExplainRequest) -> Explanation:
    """Explain one row.

    Raises:
        UserError: There is no such row, shard or policy.
    """
    output = explainer.output
    policies = explainer.policies(request.policy)
    if (request.row is None) == (request.content_hash is None):
        raise UserError("explain takes either --row N or --hash HASH")
    if request.row is not None:
        shard, row = output.shard(request.shard), request.row
    else:
        shard, row = _row_of_hash(output, request.content_hash or "", request.shard)
    found = list(explainer.explanations(shard, np.array([row]), policies))
    if not found:
        raise UserError(
            f"--row {row}: {shard} has no such label row: it was not selected, or the input file "
            f"has only {output.marker(shard).input_rows:,} rows"
        )
    return found[0]


def _row_of_hash(output: OpenOutput, content_hash: str, named: str | None) -> tuple[str, int]:
    shards = output.shards if named is None else [output.shard(named)]
    if (found := output.row_of_hash(content_hash, shards)) is None:
        raise UserError(
            f"--hash {content_hash}: no label row of {shown(output.layout.url)} has this content "
            "hash"
        )
    return found
