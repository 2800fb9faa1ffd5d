"""Fits P(violates) to what people said: a line in log-odds, or a function that never falls.

Which of them is taken is decided on contents that neither was fitted to, by their log loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moderay.core.calibration import Calibration, Floats, Method, log_odds, sigmoid
from moderay.labels.analysis.metrics.confusion import Bools, Ints

FOLDS = 5
METHODS: tuple[Method, ...] = ("platt", "isotonic")
# Newton's steps for two numbers; what has not settled by then does not.
STEPS, SETTLED = 100, 1e-9
# Of the slope and the intercept: a weak pull towards P as it is, without which a fit to contents
# that P tells apart wholly has no end.
PULL = 1e-3


@dataclass(frozen=True, eq=False)
class Fitted:
    """A map, and what it does on contents that it was not fitted to.

    Attributes:
        calibration: Fitted to all contents.
        held_out: float32, by method: of each content P by a map of the other folds.
        log_loss: By method, and of `raw` P: the weighted mean on held-out contents.
    """

    calibration: Calibration
    held_out: Mapping[Method, np.ndarray]
    log_loss: Mapping[str, float]

    @property
    def helps(self) -> bool:
        """Whether the map does better than P as it is, where it was not fitted."""
        return self.log_loss[self.calibration.method] < self.log_loss["raw"]


def fit_calibration(
    judge: str, probability: np.ndarray, violates: Bools, weights: Floats, folds: Ints
) -> Fitted:
    """The better of both maps.

    Args:
        judge: Whose P it is.
        probability: float32: what it gave.
        violates: What people said.
        weights: For how many each content stands.
        folds: In which of `FOLDS` each is held out.
    """
    held_out = {name: np.array(probability, np.float32) for name in METHODS}
    for fold in range(FOLDS):
        rest, out = folds != fold, folds == fold
        for name in METHODS:
            made = _fit(name, judge, probability[rest], violates[rest], weights[rest])
            held_out[name][out] = made.of(probability[out])
    losses: dict[str, float] = {"raw": log_loss(probability, violates, weights)}
    losses |= {name: log_loss(held_out[name], violates, weights) for name in METHODS}
    best = min(METHODS, key=lambda name: losses[name])
    return Fitted(_fit(best, judge, probability, violates, weights), held_out, losses)


def log_loss(probability: np.ndarray, violates: Bools, weights: Floats) -> float:
    """The weighted mean of -log P of what people said."""
    said = np.where(violates, 1.0, -1.0) * log_odds(np.asarray(probability, np.float64))
    return float(np.average(np.logaddexp(0, -said), weights=weights))


def _fit(
    method: Method, judge: str, probability: np.ndarray, violates: Bools, weights: Floats
) -> Calibration:
    w = weights / weights.mean()
    fit = _platt if method == "platt" else _isotonic
    return Calibration(judge, method, fit(np.asarray(probability, np.float64), violates, w))


def _platt(p: Floats, violates: Bools, weights: Floats) -> tuple[tuple[float, float], ...]:
    """Slope and intercept by maximum likelihood, after Platt with his smoothed targets."""
    high = (weights[violates].sum() + 1) / (weights[violates].sum() + 2)
    low = 1 / (weights[~violates].sum() + 2)
    target = np.where(violates, high, low)
    x = np.stack([log_odds(p), np.ones(len(p))], axis=1)
    start = np.array([1.0, 0.0])

    def loss(line: Floats) -> float:
        odds = x @ line
        fit = weights @ (np.logaddexp(0, odds) - target * odds)
        return float(fit + PULL / 2 * ((line - start) ** 2).sum())

    line = start.copy()
    for _ in range(STEPS):
        share = sigmoid(x @ line)
        slope = x.T @ (weights * (share - target)) + PULL * (line - start)
        curve = (x * (weights * share * (1 - share))[:, None]).T @ x + PULL * np.eye(2)
        step, here = np.linalg.solve(curve, slope), loss(line)
        # Where the curve is another one there, not so far: the loss is convex.
        while np.abs(step).max() > SETTLED and loss(line - step) > here:
            step /= 2
        line -= step
        if np.abs(step).max() <= SETTLED:
            break
    # P that says the contrary of what people do has no rising map: it then says nothing.
    return ((max(float(line[0]), 1e-6), float(line[1])),)


def _isotonic(p: Floats, violates: Bools, weights: Floats) -> tuple[tuple[float, float], ...]:
    """Points of the weighted least-squares fit (pool adjacent violators).

    Both ends are drawn in by half a content: of a few, none that violates is no proof.
    """
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415  takes a second to import

    edge = 0.5 / (len(p) + 1)
    fitted = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    fitted.fit(p, violates.astype(np.float64), sample_weight=weights)
    points = zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True)
    return tuple(points)
