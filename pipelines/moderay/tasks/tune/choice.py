"""Search on one part, certify on the other: pure, on columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moderay.tasks.tune.certificate import Goal, last_certified, passes
from moderay.tasks.tune.columns import GoldColumns
from moderay.tasks.tune.search import (
    Candidate,
    Space,
    Tried,
    best_chances,
    candidate,
    short_list,
    try_all,
)


@dataclass(frozen=True)
class Choice:
    """A search and its certificate.

    Attributes:
        tried: All cascades, on the select part.
        listed: Those to certify, in this order, as they did on the select part; none where none
            reached the goal there.
        chances: Of each of these: how likely it is certified, as far as the select part tells.
        tested: The same cascades on the certify part, up to the first that failed.
        chosen: Which of them is certified; None where the first failed, or there was none.
    """

    tried: Tried
    listed: Sequence[Candidate]
    chances: Sequence[float]
    tested: Sequence[Candidate]
    chosen: int | None


def choose(select: GoldColumns, certify: GoldColumns, space: Space, goal: Goal) -> Choice:
    """The cheapest cascade that can be certified.

    Args:
        select: Contents on which anything may be tried.
        certify: Others, on which a list that is frozen before is tested in its order.
        space: What may be tried.
        goal: What is to be certified.
    """
    tried = try_all(select, space)
    share = len(certify) / max(1, len(select))
    chance = best_chances(tried, int(certify.violates.sum()), share, goal)
    own = (tried.shapes.index(space.own), tried.thresholds.index(space.threshold))
    places = short_list(tried, chance, own)
    listed = [tried.at(*place) for place in places]
    tested: list[Candidate] = []
    for each in listed:
        tested.append(candidate(certify, each.shape, each.threshold))
        if not passes(tested[-1].found, goal):
            break
    return Choice(
        tried,
        listed,
        [float(chance[place]) for place in places],
        tested,
        last_certified([each.found for each in tested], goal),
    )
