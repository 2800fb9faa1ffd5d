"""How likely each label was, from the log-probabilities of an answer's tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from moderay.config.policy import Policy
from moderay.engines.base import Token


def label_scores(tokens: Sequence[Token], label: str, policy: Policy) -> list[float] | None:
    """P of each label in the policy's order, which add up to 1; None without tokens.

    At every token of the label as it was written, the likeliest others in its place say how likely
    it was that another label began there. A label that is not among them has P 0; two that part
    only behind such a token share its P.

    Args:
        tokens: Those of the whole answer, in order.
        label: The one it names.
        policy: Whose labels are scored.
    """
    text = "".join(token.text for token in tokens)
    opened = re.search(r'"label"\s*:\s*"?', text)
    at, end = (opened.end(), '"') if opened else (len(text) - len(text.lstrip()), "")
    if not text.startswith(label, at):
        return None
    scores = dict.fromkeys(policy.label_names, 0.0)
    left = {name: name + end for name in policy.label_names}
    weight = 1.0
    offset = 0
    for token in tokens:
        before = text[offset:at]  # of this token, what stands before the label
        offset += len(token.text)
        if offset <= at or len(left) == 1:
            continue
        taken = _named(token.text.removeprefix(before), left)
        shares = _shares(token, before, left)
        here = sum(shares[name] for name in taken)
        total = sum(shares.values())
        scores |= {
            name: weight * share / total for name, share in shares.items() if name not in taken
        }
        weight *= here / total
        left = {name: left[name][len(token.text.removeprefix(before)) :] for name in taken}
    scores |= {name: weight / len(left) for name in left}
    return [scores[name] for name in policy.label_names]


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities in the proportions that logits, or log-probabilities, say."""
    top = max(logits)
    weights = [math.exp(value - top) for value in logits]
    return [weight / sum(weights) for weight in weights]


def _shares(token: Token, before: str, left: Mapping[str, str]) -> dict[str, float]:
    """How likely each label was to go on at a token; they need not add up to 1.

    Args:
        token: The one that was written, with the likeliest others.
        before: What it has before the label.
        left: By label, what of it is still to be written.
    """
    shares = dict.fromkeys(left, 0.0)
    for spelled, logprob in {token.text: 0.0, **token.logprobs}.items():
        names = _named(spelled.removeprefix(before), left) if spelled.startswith(before) else []
        for name in names:
            shares[name] += math.exp(logprob) / len(names)
    return shares


def _named(spelled: str, left: Mapping[str, str]) -> list[str]:
    """Whose rest a token may begin."""
    return [
        name
        for name, rest in left.items()
        if spelled and (rest.startswith(spelled) or spelled.startswith(rest))
    ]
