"""Which part a case is in, and how much it weighs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from moderay.core.errors import UserError
from moderay.core.hashing import digest, number
from moderay.tasks.export.cases import Case
from moderay.tasks.policy.likeness import normal

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
Balance = Literal["weights", "sample", "none"]
BALANCES: tuple[Balance, ...] = get_args(Balance)

# How far shares may be from 1 together.
_CLOSE = 1e-9


def shares_of(text: str) -> dict[Part, float]:
    """Shares of the parts, from `0.9/0.05/0.05`. Raises `UserError`."""
    try:
        shares = [float(share) for share in text.split("/")]
    except ValueError:
        shares = []
    if (
        len(shares) != len(PARTS)
        or not all(0 <= share <= 1 for share in shares)
        or abs(sum(shares) - 1) > _CLOSE
    ):
        raise UserError(
            f"--split {text}: three shares that add up to 1, of train/validation/test, such as "
            "0.9/0.05/0.05"
        )
    return dict(zip(PARTS, shares, strict=True))


def text_key(text: str) -> str:
    """The same for texts that differ in case, marks, blanks, kinds of letters and numbers alone."""
    return digest(re.sub(r"\d+", "0", normal(text)))


def part_of(key: str, shares: Mapping[Part, float]) -> Part:
    """The part of all contents with this `text_key`, the same under every policy and each time."""
    at = number(f"sft:{key}") / 2**63
    for part in PARTS[:-1]:
        at -= shares[part]
        if at < 0:
            return part
    return PARTS[-1] if shares[PARTS[-1]] else PARTS[0]


def balanced(cases: Sequence[Case]) -> list[float]:
    """Weights with which each side of each policy counts the same, on average 1.

    A side without cases has none to weigh: the other one of its policy then stands for both.
    """
    counts = Counter((case.policy, case.violates) for case in cases)
    policies = Counter(policy for policy, _ in counts)
    return [
        len(cases) / len(policies) / policies[case.policy] / counts[case.policy, case.violates]
        for case in cases
    ]


def sampled(cases: Sequence[Case]) -> list[Case]:
    """As many of each side of each policy: of the larger one those with the smallest hashes.

    A policy of which one side has no case keeps all.
    """
    counts = Counter((case.policy, case.violates) for case in cases)
    kept = set[tuple[str, str]]()
    for policy, violates in counts:
        other = counts.get((policy, not violates), 0)
        of_side = sorted(
            case.content_hash
            for case in cases
            if (case.policy, case.violates) == (policy, violates)
        )
        most = min(len(of_side), other) if other else len(of_side)
        kept |= {(policy, each) for each in of_side[:most]}
    return [case for case in cases if (case.policy, case.content_hash) in kept]


def once(cases: Iterable[Case]) -> list[Case]:
    """Each content once under each policy: the first of them counts."""
    found: dict[tuple[str, str], Case] = {}
    for case in cases:
        found.setdefault((case.policy, case.content_hash), case)
    return list(found.values())
