"""Texts under several policies, each text a record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from moderay.config.job import Effort
from moderay.config.policy import Policy
from moderay.core.errors import UserError
from moderay.tasks.workbench.policy import cascade_of
from moderay.tasks.workbench.rows import text_row
from moderay.tasks.workbench.workbench import Decision, Workbench


async def label_texts(
    bench: Workbench, policies: Sequence[Policy], contents: Sequence[bytes], effort: Effort
) -> list[dict[str, Any]]:
    """Judge texts by the model alone, without any policy's rules.

    Args:
        bench: What judges.
        policies: Of different ids.
        contents: UTF-8; what is none gets its status.
        effort: Of the reasoning.

    Returns:
        For each text `flagged` and, by policy id, its decision.

    Raises:
        UserError: Two policies have the same id.
        ModerayError: The engine cannot be had.
    """
    ids = [policy.id for policy in policies]
    if twice := [id_ for id_ in ids if ids.count(id_) > 1]:
        raise UserError(f"two policies have the id {twice[0]!r}: change it in one policy.md")
    model = bench.job.model.model_copy(update={"effort": effort})
    job = bench.job.model_copy(update={"model": model})
    cascades = [cascade_of(policy, job, None) for policy in policies]
    bench.expect(cascades)
    rows = [text_row(content, f"text {number}") for number, content in enumerate(contents)]
    distinct = {row.key: row for row in rows}
    decisions = await asyncio.gather(
        *[bench.judge(cascade, row) for row in distinct.values() for cascade in cascades]
    )
    width = len(cascades)
    by_row = {
        key: decisions[number * width : (number + 1) * width] for number, key in enumerate(distinct)
    }
    return [
        {
            "flagged": _flagged(by_row[row.key]),
            "policies": dict(zip(ids, by_row[row.key], strict=True)),
        }
        for row in rows
    ]


def _flagged(decisions: Sequence[Decision]) -> bool | None:
    """Whether some policy is violated; None where that is not known."""
    violates = [decision["violates"] for decision in decisions]
    if any(violates):
        return True
    return None if None in violates else False
