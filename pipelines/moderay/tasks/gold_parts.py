"""The parts into which contents with gold are split, each by its hash, the same each time."""

from __future__ import annotations

from typing import Literal, get_args

from moderay.core.hashing import number

Part = Literal["train", "select", "certify"]
PARTS: tuple[Part, ...] = get_args(Part)
# Shares. Screens are trained on the first part; the last is looked at once.
SHARES: dict[Part, float] = {"train": 0.3, "select": 0.3, "certify": 0.4}
# How a card says that only the first part was seen, at the end of its source.
TRAIN_ALONE = "the part to train on alone"


def part_of(content_hash: str) -> Part:
    """The part in which a content lies."""
    at = number(f"part:{content_hash}") / 2**63
    if at < SHARES["train"]:
        return "train"
    return "select" if at < SHARES["train"] + SHARES["select"] else "certify"
