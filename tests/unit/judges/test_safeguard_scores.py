"""P of each label, where labels part at one token or at several."""

import asyncio
import math
from collections.abc import Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from moderay.engines.base import Completion, Counted, Request
from moderay.judges.safeguard import _below


class Fixed:
    """Token `t` has the weight `t + 1`, whatever stands before it; notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def generate(self, request: Request) -> Completion:
        self.asked.append(request)
        return Completion([0], {token: math.log(token + 1) for token in request.score})


def expected(openings: dict[str, list[int]], name: str) -> float:
    """P of a label: at each token, its weight among those that other labels like it may have."""
    p, ids = 1.0, openings[name]
    for at, token in enumerate(ids):
        others = {rest[at] for rest in openings.values() if rest[:at] == ids[:at]}
        p *= (token + 1) / sum(other + 1 for other in others)
    return p


def of(openings: dict[str, Sequence[int]]) -> tuple[dict[str, float], list[Request]]:
    engine = Fixed()
    scores = asyncio.run(_below(cast(Counted, engine), [100], openings))
    return scores, engine.asked


def test_labels_that_part_once_take_one_request() -> None:
    scores, asked = of({"a": [7, 0, 9], "b": [7, 2, 9], "c": [7, 5]})
    assert [(request.prompt, request.score) for request in asked] == [([100, 7], (0, 2, 5))]
    assert {name: round(p, 6) for name, p in scores.items()} == {
        "a": 0.1,
        "b": 0.3,
        "c": 0.6,
    }


def test_labels_that_part_again_take_a_request_at_each_parting() -> None:
    _, asked = of({"a": [7, 0], "b": [7, 2, 3, 4], "c": [7, 2, 3, 5]})
    assert [request.prompt for request in asked] == [[100, 7], [100, 7, 2, 3]]


@given(
    st.sets(st.tuples(*[st.integers(0, 2)] * 4), min_size=2, max_size=12).map(
        lambda ids: {f"label {i}": list(one) for i, one in enumerate(sorted(ids))}
    )
)
def test_whatever_the_labels_share_p_is_that_of_their_tokens_and_adds_up(
    openings: dict[str, list[int]],
) -> None:
    scores, _ = of(dict(openings))
    assert set(scores) == set(openings) and math.isclose(sum(scores.values()), 1)
    assert all(math.isclose(p, expected(openings, name)) for name, p in scores.items())
