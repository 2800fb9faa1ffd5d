"""From what a person asks for to what is served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moderay.core.errors import UserError
from moderay.pipeline.check import Checked
from moderay.tasks.review.output import open_output
from moderay.tasks.review.queues import Wanted, checked_queues, queue_items
from moderay.tasks.review.serving import ReviewRequest, checked_reviewers


def review_request(
    url: str,
    storage: Mapping[str, Any],
    reviewers: Sequence[str],
    policies: Sequence[str],
    wanted: Wanted,
) -> ReviewRequest:
    """What is asked of whom.

    Args:
        url: Of the output.
        storage: Options of its storage.
        reviewers: Names.
        policies: Ids; all where none is named.
        wanted: Which contents.

    Raises:
        UserError: There are no labels, or something named is not there.
    """
    names = checked_reviewers(reviewers)
    output = open_output(url, storage)
    if wanted.plan and "prevalence" not in wanted.queues:
        raise UserError("--plan is for --queue prevalence: name that queue too, or none")
    return ReviewRequest(output, queue_items(output, output.chosen(policies), wanted), names)


def wanted_rows(
    queues: Sequence[str], most: int, checked: Checked | None = None, plan: str | None = None
) -> Wanted:
    """Which contents are meant: a plan alone means its rows.

    Args:
        queues: Names; none for those that need no further file.
        most: Of each queue and policy.
        checked: The job, for its gold.
        plan: Id of a prevalence plan.

    Raises:
        UserError: There is no such queue.
    """
    chosen = ("prevalence",) if plan and not queues else queues
    return Wanted(checked_queues(chosen), most, checked, plan)
