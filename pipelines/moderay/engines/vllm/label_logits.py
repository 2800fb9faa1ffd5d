"""P of each label from the request that gives the answer, without a second one.

What is asked for, what comes back, and whether it is to be trusted; who notes it in vLLM's own
process: `noting.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from moderay.engines.base import Completion, Request
from moderay.engines.harmony.scores import softmax

# Of `SamplingParams.extra_args`: what to look for, and under NOTE what was found.
AFTER, SCORE, NOTE = "moderay_after", "moderay_score", "moderay_note"

# Tokens that a known prompt is answered with.
TRIED_TOKENS = 8
# P may differ by so much in float32, and in the formats of half the length.
EXACT, ROUNDED = 1e-5, 0.05

Generate = Callable[[Request], Awaitable[Completion]]


def wanted(after: tuple[int, ...], score: tuple[int, ...]) -> dict[str, Any]:
    """The `extra_args` of a request whose logits of `score` are noted behind `after`."""
    return {AFTER: list(after), SCORE: list(score)}


def noted(handed_back: Mapping[str, Any] | None) -> tuple[int, list[float]]:
    """How many tokens stood before the last place that was due, and the logits there.

    Args:
        handed_back: `kv_transfer_params` of a finished request.

    Returns:
        (0, []) where nothing was noted.
    """
    place, logits = (handed_back or {}).get(NOTE) or (0, [])
    return place, logits


async def disagreement(generate: Generate, prompt: list[int], exact: bool) -> str | None:
    """Why notes are not to be trusted; None where P is what a second request gives.

    Args:
        generate: Of the engine, with notes.
        prompt: Ids of a known prompt, which is asked both ways.
        exact: Whether the model computes in float32; else the two may differ as much as the same
            sums do in another order.
    """
    tokens = (await generate(Request(prompt, TRIED_TOKENS))).tokens
    if len(tokens) < 2:
        return "the model ends a known prompt at once"
    after = tokens[len(tokens) // 2 - 1]
    score = tuple(dict.fromkeys([*tokens, *prompt]))
    out = await generate(Request(prompt, TRIED_TOKENS, score=score, after=(after,)))
    due = [place for place in range(1, len(out.tokens)) if out.tokens[place - 1] == after]
    if not out.logprobs or [out.scored_at] != due[-1:]:
        return "the engine notes nothing, or at another token"
    asked = await generate(Request([*prompt, *out.tokens[: out.scored_at]], 1, score=score))
    both = [softmax([each.logprobs[token] for token in score]) for each in (out, asked)]
    difference = max(abs(one - other) for one, other in zip(*both, strict=True))
    if not difference <= (EXACT if exact else ROUNDED):
        return f"P of a known prompt differs by {difference:.1g}"
    return None
