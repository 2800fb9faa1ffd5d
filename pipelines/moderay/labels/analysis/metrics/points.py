"""What is read off a histogram of P(violates): one figure, or the points of a picture."""

from __future__ import annotations

from typing import NamedTuple

from moderay.labels.analysis.metrics.confusion import Floats


class Score(NamedTuple):
    """A figure from a histogram.

    Attributes:
        value: the figure.
        error: how far the figure from single rows may lie from it, at most.
    """

    value: float
    error: float


class Reliability(NamedTuple):
    """Reliability diagram: one point for each of the calibration bins that has rows.

    Attributes:
        probability: (points,), mean P(violates).
        violating: (points,), share of rows that violate.
        rows: (points,), sum of weights.
    """

    probability: Floats
    violating: Floats
    rows: Floats


class Curve(NamedTuple):
    """Precision and recall at each threshold that tells rows apart.

    Attributes:
        threshold: (points,), ascending; a row violates at P(violates) >= threshold.
        precision: (points,).
        recall: (points,); NaN where nothing violates.
    """

    threshold: Floats
    precision: Floats
    recall: Floats
