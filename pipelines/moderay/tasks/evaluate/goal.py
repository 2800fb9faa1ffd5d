"""`--at recall=0.95`: what a threshold is to reach."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from moderay.core.errors import UserError


@dataclass(frozen=True)
class Goal:
    """What a threshold is to reach.

    Attributes:
        figure: Of which.
        floor: How much, above 0 and up to 1.
    """

    figure: Literal["recall", "precision"]
    floor: float


def goal_of(text: str | None) -> Goal | None:
    """The goal that somebody wrote, such as recall=0.95.

    Raises:
        UserError: It is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(recall|precision)=(0?\.\d+|1|1\.0*)", text)
    if match is None or not float(match[2]):
        raise UserError(f"--at {text}: say recall=SHARE or precision=SHARE, such as recall=0.95")
    return Goal(cast("Literal['recall', 'precision']", match[1]), float(match[2]))
