"""A policy's judges at work: in order of cost, each settles what it is sure of.

First the judges on columns (rules, screen), a unit at a time on a CPU; then, for what they pass on,
the judges on an engine (glance, reason), a content at a time; the last settles all. Of what the
others settle, the last judges an audited share too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from moderay.core.verdicts import Status, Verdict, scattered, valid
from moderay.engines.host import EngineHost
from moderay.judges.cascade import Cascade


class Settled(NamedTuple):
    """What the judges on columns leave, by row.

    Attributes:
        verdicts: Structs of `VERDICT`, null where no judge is sure.
        audited: Bool: which of those that were settled now the last judge is asked for too.
    """

    verdicts: pa.StructArray
    audited: np.ndarray


def settle_columns(
    cascade: Cascade,
    texts: pa.Array,
    table: pa.Table,
    hashes: Sequence[str | None],
    known: pa.StructArray,
) -> Settled:
    """Let the judges on columns settle what they are sure of.

    Args:
        cascade: The policy's judges.
        texts: The contents; null where there is nothing to judge.
        table: The input's columns, row for row.
        hashes: Of the contents.
        known: Structs of `VERDICT` that are there already, which stand; null elsewhere.
    """
    verdicts = known
    settled = np.zeros(len(texts), bool)
    has_text = valid(texts)
    for judge in cascade.on_columns:
        if len(open_rows := np.flatnonzero(has_text & ~valid(verdicts))):
            rows = pa.array(open_rows)
            more = judge.settle(texts.take(rows), table.take(rows))
            settled[open_rows] = valid(more)
            verdicts = scattered(verdicts, more, open_rows)
    audited = np.zeros(len(texts), bool)
    if cascade.audit:
        audited[settled] = [cascade.audited(hashes[row] or "") for row in np.flatnonzero(settled)]
    return Settled(verdicts, audited)


async def settle_on_engine(
    cascade: Cascade,
    host: EngineHost,
    ids: Sequence[int],
    content_hash: str,
    earlier: Verdict | None,
) -> Verdict:
    """Take a content down the judges on an engine, to the one that settles it.

    An audited content goes on to the last one, whose verdict stands, with the earlier one beside
    it. Where the last one fails, the earlier one stands.

    Args:
        cascade: The policy's judges.
        host: The engine they ask.
        ids: The content's token ids.
        content_hash: Its hash.
        earlier: For an audited content, the verdict of the judge on columns that settled it.
    """
    spent: list[Verdict] = []
    for judge in cascade.on_engine[:-1] if earlier is None else ():
        spent.append(await judge.judge(host, ids, content_hash))
        if judge.settles(spent[-1]):
            earlier = spent[-1]
            break
    if earlier is None or cascade.audited(content_hash):
        spent.append(await cascade.last.judge(host, ids, content_hash))
    if earlier is None and len(spent) == 1:
        return spent[0]
    verdict = _standing(cascade, spent, earlier)
    return verdict._replace(
        prompt_tokens=_sum(v.prompt_tokens for v in spent),
        output_tokens=_sum(v.output_tokens for v in spent),
    )


def _standing(cascade: Cascade, spent: Sequence[Verdict], earlier: Verdict | None) -> Verdict:
    """The verdict that stands; where it is the audit's, with what it audits."""
    if earlier is None:
        return spent[-1]
    if not spent or spent[-1] is earlier or spent[-1].status is not Status.OK:
        return earlier
    return spent[-1]._replace(audit=_audit(cascade, earlier))


def _audit(cascade: Cascade, settled: Verdict) -> dict[str, object]:
    """As `verdicts.AUDIT`."""
    scores = settled.scores
    probability = None if scores is None else cascade.last.safeguard.probability(scores)
    return {"judge": settled.decided_by, "probability": probability}


def _sum(tokens: Iterable[int | None]) -> int | None:
    """None where no engine answered."""
    known = [count for count in tokens if count is not None]
    return sum(known) if known else None
