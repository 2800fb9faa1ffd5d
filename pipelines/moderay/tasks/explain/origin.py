"""Where a reused verdict was taken from: which output, which run of it, and how it stands there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow.dataset as pads

from moderay.core.errors import ModerayError
from moderay.core.storage import plain_errors
from moderay.core.verdicts import CONTENT_HASH, Origin, Status
from moderay.labels.manifest_record import ReusedOutput, RunOrigin, RunRecord
from moderay.tasks.explain.decisions import decision_parts, judged_scores
from moderay.tasks.explain.output import OpenOutput, open_output
from moderay.tasks.explain.records import DecisionPart, OriginPart

# Label files that are looked through for a content beside the one of the row's own name.
MOST_FILES = 1000


@dataclass(frozen=True)
class ReusedRow:
    """A row whose verdict was taken from an earlier run.

    Attributes:
        shard: Its label file.
        content_hash: Of its content.
        decision: The verdict as it stands here.
    """

    shard: str
    content_hash: str
    decision: DecisionPart


@dataclass
class Origins:
    """Finds origins of one output's rows, and opens each earlier output once.

    Attributes:
        output: The output.
    """

    output: OpenOutput
    _opened: dict[str, OpenOutput | None] = field(default_factory=dict)

    def of(self, policy: str, rows: Sequence[ReusedRow | None]) -> list[tuple[OriginPart, ...]]:
        """By row, where its verdict was taken from; nothing for rows without a reused one.

        Args:
            policy: Id.
            rows: Of one shard.
        """
        wanted = [row for row in rows if row is not None]
        there = {source: self._there(source, policy, wanted) for source in self._names(wanted)}
        return [() if row is None else tuple(self._parts(policy, row, there)) for row in rows]

    def _run(self, row: ReusedRow) -> RunRecord | None:
        number = row.decision.trace.run
        runs = self.output.manifest.runs
        return runs[number] if number is not None and number < len(runs) else None

    def _names(self, rows: Sequence[ReusedRow]) -> list[str]:
        runs = filter(None, map(self._run, rows))
        return list(dict.fromkeys(source.output for run in runs for source in run.reuse))

    def _parts(
        self, policy: str, row: ReusedRow, there: Mapping[str, Mapping[str, DecisionPart]]
    ) -> Iterator[OriginPart]:
        """One part where the origin is known, else one for each that it may be."""
        run = self._run(row)
        sources = [source for source in run.reuse if policy in source.policies] if run else []
        if run is not None and not sources:
            yield OriginPart(output=None, certain=True, runs=(run_origin(run),))
            return
        found = [
            (source, decision)
            for source in sources
            if (decision := there[source.output].get(row.content_hash)) is not None
            and judged_scores(decision) == judged_scores(row.decision)
        ]
        # One that took it itself is not where it was judged.
        judged = [pair for pair in found if pair[1].trace.origin != Origin.REUSED]
        if judged or found:
            source, decision = (judged or found)[0]
            yield _known(source, policy, decision, certain=bool(judged))
            return
        for source in sources:
            yield OriginPart(
                output=source.output,
                certain=False,
                policy=source.policies[policy],
                runs=source.runs,
            )

    def _there(
        self, source: str, policy: str, rows: Sequence[ReusedRow]
    ) -> Mapping[str, DecisionPart]:
        """Verdicts of an earlier output on these contents, as far as it can be read."""
        found: dict[str, DecisionPart] = {}
        output = self._open(source)
        if output is None or not rows:
            return found
        own = rows[0].shard
        others = [shard for shard in output.shards if shard != own][:MOST_FILES]
        for shard in [*([own] if own in output.shards else []), *others]:
            if not (left := [row.content_hash for row in rows if row.content_hash not in found]):
                break
            found |= _decisions(output, shard, policy, left)
        return found

    def _open(self, url: str) -> OpenOutput | None:
        """None where it is gone, or cannot be read any more."""
        if url not in self._opened:
            try:
                self._opened[url] = open_output(url, self.output.storage)
            except ModerayError:
                self._opened[url] = None
        return self._opened[url]


def run_origin(run: RunRecord) -> RunOrigin:
    """Of a run, what explains its verdicts."""
    return RunOrigin(**{name: getattr(run, name) for name in RunOrigin.model_fields})


def _known(source: ReusedOutput, policy: str, decision: DecisionPart, certain: bool) -> OriginPart:
    number = decision.trace.run
    runs = tuple(run for run in source.runs if run.run == number)
    return OriginPart(
        output=source.output,
        certain=certain and bool(runs),
        decision=decision,
        policy=source.policies[policy],
        runs=runs or source.runs,
    )


def _decisions(
    output: OpenOutput, shard: str, policy: str, hashes: Sequence[str]
) -> dict[str, DecisionPart]:
    """The verdicts of a shard on these contents, by content."""
    with plain_errors(output.layout.url):
        labels = pads.dataset(
            output.layout.label(shard), filesystem=output.layout.fs, format="parquet"
        )
        if policy not in labels.schema.names:
            return {}
        rows = labels.to_table(
            [CONTENT_HASH.name, policy], pads.field(CONTENT_HASH.name).isin(list(hashes))
        )
    contents = rows.column(CONTENT_HASH.name).to_pylist()
    return {
        content: decision
        for content, decision in zip(contents, decision_parts(rows.column(policy)), strict=True)
        if decision.status == Status.OK
    }
