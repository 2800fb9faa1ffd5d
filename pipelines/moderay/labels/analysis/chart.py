"""A trend to look at: a line of blocks for the terminal, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moderay.core.errors import UserError
from moderay.core.wording import titled
from moderay.labels.analysis.changes import Share
from moderay.labels.analysis.trend import Series, Trend

BLOCKS = "▁▂▃▄▅▆▇█"
SUFFIXES = (".png", ".svg", ".pdf")
# Nights that have their date below them.
DATES = 10


def blocks(values: Sequence[float]) -> str:
    """One character for each value, from zero to the largest."""
    most = max(values, default=0.0)
    return "".join(
        BLOCKS[round(value / most * (len(BLOCKS) - 1))] if most else BLOCKS[0] for value in values
    )


def picture(trend: Trend, file: Path) -> None:
    """Draw, per policy and by night, the shares of flagged rows and of the labels.

    With their intervals, and a line where a change that rings began.

    Raises:
        UserError: the file's name is not that of a picture.
    """
    if file.suffix not in SUFFIXES:
        raise UserError(f"--chart {file}: name a file that ends in {', '.join(SUFFIXES)}")
    from matplotlib.figure import Figure  # noqa: PLC0415  # only a chart needs it

    figure = Figure(figsize=(10, 3 * len(trend.policies)), layout="constrained")
    plots = figure.subplots(len(trend.policies), 1, squeeze=False)[:, 0]
    for plot, (policy, series) in zip(plots, trend.policies.items(), strict=True):
        _draw(plot, series, trend.label_titles.get(policy, {}))
        for since in sorted(
            {alarm.since for alarm in trend.alarms if alarm.policy == policy and alarm.since}
        ):
            plot.axvline(
                series.dates.index(since) - 0.5,
                color="black",
                linestyle="--",
                linewidth=1,
                label=f"since {since}",
            )
        plot.set_title(policy, loc="left")
        plot.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(file, dpi=120)


def _draw(plot: Any, series: Series, titles: Mapping[str, str]) -> None:
    _line(plot, "flagged", series.flagged, linewidth=2.5)
    for name, shares in series.labels.items():
        # The mildest label is what is left, and would press all others to the floor.
        if max(share.value for share in shares) < 0.5:
            _line(plot, titled(name, titles.get(name)), shares, linewidth=1)
    step = -(-len(series.dates) // DATES)
    plot.set_xticks(range(0, len(series.dates), step), series.dates[::step])
    plot.set_ylim(bottom=0)
    plot.set_ylabel("% of rows")
    plot.spines[["top", "right"]].set_visible(False)


def _line(plot: Any, name: str, shares: Sequence[Share], linewidth: float) -> None:
    nights = range(len(shares))
    (drawn,) = plot.plot(
        nights,
        [100 * share.value for share in shares],
        marker="o",
        markersize=3,
        linewidth=linewidth,
        label=name,
    )
    plot.fill_between(
        nights,
        [100 * s.low for s in shares],
        [100 * s.high for s in shares],
        color=drawn.get_color(),
        alpha=0.2,
        linewidth=0,
    )
