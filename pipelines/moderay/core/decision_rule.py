"""What turns a verdict into a decision: a policy's labels, which of them violate, and a threshold.

A verdict's scores are P(label) in the order of the labels. P(violates) is the sum over the labels
that violate; at or above the threshold the content violates. No model is needed for that, so it is
done again whenever the threshold changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moderay.core.calibration import Calibration
from moderay.core.errors import Problem, UserError, nearest


@dataclass(frozen=True)
class DecisionRule:
    """How verdicts under one policy are decided; picklable.

    Attributes:
        policy: id of the policy.
        labels: names of its labels, mildest first: the order of a verdict's scores.
        violating: whether each label violates, parallel to `labels`; some do and some do not.
        threshold: on P(violates), above 0 and at most 1.
        calibration: how P of one judge is read before it is held against the threshold.
    """

    policy: str
    labels: tuple[str, ...]
    violating: tuple[bool, ...]
    threshold: float
    calibration: Calibration | None = None

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
        return np.asarray(np.where(certain, np.float32(1), summed), np.float32)

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
        names = np.array(self.labels, dtype=object)
        return np.asarray(names[np.where(on_side, scores, -1.0).argmax(axis=1)])


def thresholds_of(options: Iterable[str]) -> dict[str, float]:
    """Thresholds by policy, as the command line has them: `POLICY=NUMBER`.

    Raises:
        UserError: One is of another form.
    """
    thresholds = {}
    for option in options:
        policy, _, number = option.partition("=")
        try:
            thresholds[policy.strip()] = float(number)
        except ValueError:
            hint = "give POLICY=NUMBER, such as spam=0.7"
            raise UserError(f"--threshold {option!r}: {hint}") from None
    return thresholds


def under_thresholds(
    rules: Sequence[DecisionRule], thresholds: Mapping[str, float], screened: Collection[str] = ()
) -> tuple[tuple[DecisionRule, ...], list[Problem]]:
    """The rules under other thresholds, and what is wrong with these.

    Args:
        rules: One for each policy.
        thresholds: By policy; of those that are not named, they stay as they are.
        screened: Policies of which a screen settled rows, for the threshold that they have.

    Returns:
        The rules; where there are problems, of those thresholds that are right alone.
    """
    by_policy = {rule.policy: rule for rule in rules}
    problems = []
    for policy, threshold in thresholds.items():
        if problem := _threshold_problem(policy, threshold, by_policy, screened):
            problems.append(problem)
        else:
            by_policy[policy] = by_policy[policy].under(threshold)
    return tuple(by_policy.values()), problems


def _threshold_problem(
    policy: str,
    threshold: float,
    rules: Mapping[str, DecisionRule],
    screened: Collection[str],
) -> Problem | None:
    key = f"threshold {policy}={threshold:g}"
    if policy not in rules:
        return Problem(key, None, f"no policy {policy!r}", nearest(policy, rules))
    if not 0 < threshold <= 1:
        return Problem(key, None, "a threshold is above 0 and at most 1")
    before = rules[policy].threshold
    if threshold < before and policy in screened:
        return Problem(
            key,
            None,
            f"a screen settled rows of {policy} for a threshold of {before:g}, and promises "
            "nothing for a lower one",
            "set it in the policy and run the job: it judges these rows again",
        )
    return None
