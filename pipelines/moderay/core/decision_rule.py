"""What turns a verdict into a decision: a policy's labels, which of them violate, and a threshold.

A verdict's scores are P(label) in the order of the labels. P(violates) is the sum over the labels
that violate; at or above the threshold the content violates. No model is needed for that, so it is
done again whenever the threshold changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DecisionRule:
    """How verdicts under one policy are decided; picklable.

    Attributes:
        policy: id of the policy.
        labels: names of its labels, mildest first: the order of a verdict's scores.
        violating: whether each label violates, parallel to `labels`; some do and some do not.
        threshold: on P(violates), above 0 and at most 1.
    """

    policy: str
    labels: tuple[str, ...]
    violating: tuple[bool, ...]
    threshold: float

    def __post_init__(self) -> None:
        """Raise ValueError for labels that cannot be decided between."""
        if len(self.labels) != len(self.violating):
            raise ValueError(f"{len(self.labels)} labels, and {len(self.violating)} that say so")
        if set(self.violating) != {True, False}:
            raise ValueError("needs at least one label that violates and one that does not")

    @property
    def mildest(self) -> str:
        """The first label that does not violate."""
        return self.labels[self.violating.index(False)]

    def under(self, threshold: float) -> DecisionRule:
        """The same rule with another threshold."""
        return replace(self, threshold=threshold)

    def probability(self, scores: Sequence[float]) -> float:
        """P(violates) of one content, as precise as its scores are."""
        return sum(p for p, violates in zip(scores, self.violating, strict=True) if violates)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """P(violates) of many contents, as it is stored.

        Args:
            scores: float32 (contents, labels).

        Returns:
            float32 (contents,), between 0 and 1. Rounding does not make a certain verdict fall
            short of a threshold of 1: P is 1 where no label that is safe has any share.
        """
        violating = np.array(self.violating)
        certain = scores[:, ~violating].sum(axis=1) == 0
        summed = np.clip(scores[:, violating].sum(axis=1), 0, 1)
        return np.where(certain, np.float32(1), summed).astype(np.float32)

    def violates(self, probabilities: np.ndarray) -> np.ndarray:
        """Which of these float32 P(violates) reach the threshold, as bool; NaN does not."""
        return np.asarray(probabilities >= np.float32(self.threshold))

    def likeliest(self, scores: np.ndarray, violates: np.ndarray) -> np.ndarray:
        """The likeliest label on the side that each content is decided to be on.

        Args:
            scores: (contents, labels), none of them below 0.
            violates: bool (contents,).

        Returns:
            Names of labels, as objects (contents,).
        """
        on_side = np.array(self.violating)[None, :] == violates[:, None]
        names: np.ndarray[Any, np.dtype[np.object_]] = np.array(self.labels, dtype=object)
        return names[np.where(on_side, scores, -1.0).argmax(axis=1)]
