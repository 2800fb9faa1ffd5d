"""Maps from a judge's P(violates) to the share that truly violates: monotone, pure, on columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Method = Literal["platt", "isotonic"]
# Log-odds of what is nearer to 0 or 1 are those of this: float32 cannot tell it from 1.
NEAREST = 1e-7


@dataclass(frozen=True)
class Calibration:
    """How P of one judge is read; never falling, so that no order between two contents changes.

    Attributes:
        judge: Whose P it is for: reason.
        method: platt: a line in log-odds (Platt 1999). isotonic: straight
            between points that never fall.
        numbers: Of platt, slope and intercept; of isotonic, the points, P before and after.
    """

    judge: str
    method: Method
    numbers: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Raise ValueError for what is no such map."""
        table = np.array(self.numbers, np.float64).reshape(-1, 2)
        if not len(table) or not np.isfinite(table).all():
            raise ValueError("a map needs numbers")
        if self.method == "platt" and (len(table) > 1 or table[0, 0] <= 0):
            raise ValueError("a line in log-odds must rise")
        if self.method == "isotonic" and not (
            (np.diff(table[:, 0]) > 0).all()
            and (np.diff(table[:, 1]) >= 0).all()
            and ((table >= 0) & (table <= 1)).all()
        ):
            raise ValueError("points must rise, from 0 to 1")

    def of(self, probability: np.ndarray) -> np.ndarray:
        """P that is read as this map has it.

        Args:
            probability: float32, between 0 and 1.

        Returns:
            float32, as long.
        """
        p = np.asarray(probability, np.float64)
        if self.method == "platt":
            [(slope, intercept)] = self.numbers
            return sigmoid(slope * log_odds(p) + intercept).astype(np.float32)
        before, after = np.array(self.numbers, np.float64).T
        return np.asarray(np.interp(p, before, after), np.float32)


def log_odds(p: Floats) -> Floats:
    """Log-odds of shares; what is 0 or 1 has those of what is next to it."""
    near = np.clip(p, NEAREST, 1 - NEAREST)
    return np.asarray(np.log(near) - np.log1p(-near))


def sigmoid(odds: Floats) -> Floats:
    """The share of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(odds / 2)))
