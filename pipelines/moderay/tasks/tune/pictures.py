"""What recall costs: all cascades that were tried, and what was chosen and certified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from moderay.tasks.tune.records import CascadeRecord, TuneRecord
from moderay.tasks.tune.search import Tried


def draw(tried: Tried, record: TuneRecord, file: Path) -> None:
    """Draw tokens a content against recall."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # only a picture needs it

    figure = Figure(figsize=(8, 5), layout="constrained")
    plot = figure.subplots()
    _tried(plot, tried, record.goal.precision)
    _frontier(plot, record)
    plot.axhline(
        record.goal.recall, color="grey", linestyle="--", linewidth=1, label="recall asked for"
    )
    _tested(plot, record)
    low = min([record.goal.recall, *[_recall(each) for each in record.frontier]])
    plot.set(
        xlabel="tokens computed for a content (prompt beyond the policy, and output)",
        ylabel="recall",
        ylim=(max(0.0, 2 * low - 1.05), 1.005),
        title=f"{record.policy}: {record.tried:,} cascades on {_contents(record)} contents",
    )
    plot.legend(frameon=False, loc="lower right")
    figure.savefig(file, dpi=120)


def _contents(record: TuneRecord) -> str:
    return f"{record.parts['select'].contents:,}"


def _recall(each: CascadeRecord) -> float:
    return each.select.hits / max(1, each.select.violations)


def _tried(plot: Any, tried: Tried, precision: float) -> None:
    """Each shape at the threshold with the highest recall at this precision."""
    reaches = (tried.flagged > 0) & (tried.precision >= precision)
    best = np.where(reaches, tried.recall, np.nan)
    known = reaches.any(axis=1)
    plot.scatter(
        tried.tokens[known],
        np.nanmax(best[known], axis=1) if known.any() else [],
        s=8,
        color="lightgrey",
        label=f"tried, precision {precision:g} or more",
    )


def _frontier(plot: Any, record: TuneRecord) -> None:
    tokens = [each.select.tokens for each in record.frontier]
    recall = [_recall(each) for each in record.frontier]
    plot.step(tokens, recall, where="post", marker=".", label="cheapest")
    plot.plot([record.own.select.tokens], [_recall(record.own)], "s", label="the job's own")


def _tested(plot: Any, record: TuneRecord) -> None:
    """The certified cascade as it did on the certify part, with what is sure of its recall."""
    if record.chosen is None:
        return
    chosen = record.tested[record.chosen]
    recall = chosen.certify.hits / chosen.certify.violations
    plot.errorbar(
        [chosen.certify.tokens],
        [recall],
        yerr=[[recall - chosen.recall_at_least], [0.0]],
        fmt="o",
        color="black",
        capsize=3,
        label="certified, with its lower end",
    )
