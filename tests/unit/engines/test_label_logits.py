"""Logits are noted for the request they are of, wherever it stands in the batch; and a note that
is wrong is not trusted.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from moderay.engines.base import Completion, Request
from moderay.engines.vllm.label_logits import NOTE, disagreement, noted, wanted

# Where it is needed: vLLM takes seconds to import, and each process of pytest collects all tests.
if TYPE_CHECKING:
    import torch
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor.interface import BatchUpdate

    from moderay.engines.vllm.noting import LabelLogits


def asking(after: tuple[int, ...] = (8, 9)) -> SamplingParams:
    from vllm import SamplingParams

    return SamplingParams(extra_args=wanted(after, (1, 3)))


def batch(added=(), removed=(), moved=()) -> BatchUpdate:  # type: ignore[no-untyped-def]
    from vllm.v1.sample.logits_processor.interface import BatchUpdate

    return BatchUpdate(batch_size=4, removed=removed, added=added, moved=moved)


def logits() -> torch.Tensor:
    """Row r has 10 r + t at token t."""
    import torch

    return torch.arange(4)[:, None] * 10.0 + torch.arange(5)


@pytest.fixture
def processor() -> LabelLogits:
    import torch

    from moderay.engines.vllm.noting import LabelLogits

    return LabelLogits(None, torch.device("cpu"), False)


def test_logits_are_noted_at_the_last_place_that_is_due_and_none_is_changed(
    processor: LabelLogits,
) -> None:
    import torch

    params, generated = asking(), [8, 9]
    processor.update_state(batch(added=[(2, params, None, generated)]))
    before = logits()
    assert torch.equal(processor.apply(before.clone()), before)
    assert noted(params.extra_args) == (2, [21.0, 23.0])
    for token, expected in ((5, 2), (8, 2), (9, 5), (9, 5)):
        generated.append(token)
        processor.update_state(None)
        processor.apply(logits())
        assert noted(params.extra_args)[0] == expected


def test_requests_are_followed_through_the_batch(processor: LabelLogits) -> None:
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor.interface import MoveDirectionality

    swap, one_way = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL
    first, second, plain = asking(), asking((7,)), SamplingParams()
    processor.update_state(
        batch(added=[(0, first, None, [8, 9]), (1, second, None, [7]), (2, plain, None, [8, 9])])
    )
    processor.update_state(batch(moved=[(0, 1, swap), (1, 3, one_way)]))
    processor.apply(logits())
    assert noted(first.extra_args)[1] == [31.0, 33.0]
    assert noted(second.extra_args)[1] == [1.0, 3.0]
    # What takes the place of another is not taken for it, and what is gone is noted no more.
    third = asking()
    processor.update_state(batch(removed=[3], added=[(0, third, None, [8])]))
    del first.extra_args[NOTE], second.extra_args[NOTE]
    processor.apply(logits())
    assert [noted(each.extra_args) for each in (first, second, third)] == [(0, [])] * 3


def test_nothing_handed_back_is_nothing_noted() -> None:
    assert noted(None) == noted({}) == noted({"other": 1}) == (0, [])


class Model:
    """Says 1, 2, 3 and so on; the next token always has P 0.5, the others share the rest."""

    said = list(range(1, 9))

    def __init__(self, **wrong: float) -> None:
        self.wrong = wrong

    async def generate(self, request: Request) -> Completion:
        done = len(request.prompt) - 1
        tokens = self.said[done:][: request.max_tokens]
        if not request.score:
            return Completion(tokens, {})
        place = self.said.index(request.after[0]) + 1 if request.after else 0
        scores = self.scores(request.score, tokens[place])
        if not request.after:
            return Completion(tokens, scores)
        if "nothing" in self.wrong:
            return Completion(tokens, {})
        scores[tokens[place]] += self.wrong.get("p", 0.0)
        return Completion(tokens, scores, scored_at=place + int(self.wrong.get("place", 0)))

    def scores(self, wanted: tuple[int, ...], following: int) -> dict[int, float]:
        other = math.log(0.5 / (len(wanted) - 1))
        return {token: math.log(0.5) if token == following else other for token in wanted}


class Silent(Model):
    said = (1,)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("model", "exact", "reason"),
    [
        (Model(), True, None),
        (Model(p=1e-7), True, None),
        (Model(p=1e-3), False, None),
        (Model(p=1e-3), True, "P of a known prompt differs by 0.0002"),
        (Model(p=1.0), False, "P of a known prompt differs by 0.2"),
        (Model(p=math.nan), False, "P of a known prompt differs by nan"),
        (Model(place=1), True, "the engine notes nothing, or at another token"),
        (Model(nothing=1), True, "the engine notes nothing, or at another token"),
        (Silent(), True, "the model ends a known prompt at once"),
    ],
)
def test_notes_are_trusted_where_a_known_prompt_has_the_same_p_both_ways(
    model: Model, exact: bool, reason: str | None
) -> None:
    assert asyncio.run(disagreement(model.generate, [0], exact)) == reason
