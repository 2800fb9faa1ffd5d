"""A policy's scores to look at: how they are calibrated, what a threshold gives, where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from moderay.labels.analysis.metrics.scores import ScoreHistogram
from moderay.tasks.evaluate.evaluation import PolicyEvaluation

# Bars of a histogram.
BARS = 50


def draw(each: PolicyEvaluation, file: Path) -> None:
    """Draw the reliability diagram, precision against recall, and the histogram of P(violates)."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # only a picture needs it

    scores, policy = each.whole.scores, each.policy
    figure = Figure(figsize=(13, 4), layout="constrained")
    reliability, curve, histogram = figure.subplots(1, 3)
    _reliability(reliability, scores)
    _curve(curve, scores, policy.threshold)
    _histogram(histogram, scores, policy.threshold)
    figure.suptitle(f"{policy.id}: {int(scores.rows):,} rows with gold and P(violates)")
    figure.savefig(file, dpi=120)


def _reliability(plot: Any, scores: ScoreHistogram) -> None:
    points = scores.reliability
    plot.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="calibrated")
    plot.plot(points.probability, points.violating, marker="o", label="labels")
    plot.set(
        xlabel="mean P(violates)", ylabel="share that violates", xlim=(0, 1), ylim=(0, 1.02),
        title="Reliability",
    )  # fmt: skip
    plot.legend(frameon=False)


def _curve(plot: Any, scores: ScoreHistogram, threshold: float) -> None:
    curve = scores.curve
    plot.step(curve.recall, curve.precision, where="post")
    now = scores.at(round(threshold, 4))
    if now.recall is not None and now.precision is not None:
        plot.plot([now.recall], [now.precision], "o", color="black", label=f"at {threshold:g}")
        plot.legend(frameon=False)
    plot.set(
        xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02),
        title="Precision and recall",
    )  # fmt: skip


def _histogram(plot: Any, scores: ScoreHistogram, threshold: float) -> None:
    counts = scores.counts(BARS)
    edges = np.linspace(0, 1, BARS + 1)
    plot.stairs(counts[0], edges, fill=True, alpha=0.6, label="safe")
    plot.stairs(counts[1], edges, fill=True, alpha=0.6, label="violates")
    plot.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    # Most rows are nearly sure: on a plain axis the others would not be seen.
    plot.set_yscale("symlog", linthresh=1)
    plot.set(xlabel="P(violates)", ylabel="rows", xlim=(0, 1), title="Where rows lie")
    plot.legend(frameon=False)
