"""Charts of a page, as paths of an inline SVG: no library runs in the browser to draw them.

A chart is a few numbers and strings that `charts.html.j2` puts into elements; colours and fonts are
the style sheet's, so that they follow light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960.0, 250.0
# Around the plot: room for the axes' labels.
LEFT, RIGHT, TOP, BOTTOM = 62.0, 12.0, 12.0, 42.0
# Nights that have their date below them.
DATES = 8


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where it is, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """Rows by P, with a threshold through them.

    Attributes:
        path: Of all bars; drawn twice, clipped left and right of the threshold.
        x: Ticks of P.
        y: Ticks of rows; the axis is logarithmic, since most rows are nearly sure.
        cut: Where the threshold is.
    """

    path: str
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    cut: float


@dataclass(frozen=True)
class Line:
    """Shares by night, with a band of their intervals.

    Attributes:
        curve: Path through the shares.
        band: Path around the intervals.
        dots: (x, y, text) of each share.
        x: Ticks of nights.
        y: Ticks of shares.
    """

    curve: str
    band: str
    dots: tuple[tuple[float, float, str], ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]


@dataclass(frozen=True)
class Curve:
    """A line through points of two figures.

    Attributes:
        path: Through the points.
        dots: (x, y, text) of points that are marked.
        reference: Path of a line to hold it against; empty for none.
        x: Ticks.
        y: Ticks.
        xlabel: What goes across.
        ylabel: What goes up.
    """

    path: str
    dots: tuple[tuple[float, float, str], ...]
    reference: str
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    xlabel: str
    ylabel: str


def across(share: float) -> float:
    """The x of a number from 0 to 1."""
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)


def up(share: float) -> float:
    """The y of a number from 0 to 1."""
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 2)


def histogram(bars: Sequence[float], threshold: float) -> Histogram:
    """A chart of rows by P.

    Args:
        bars: Rows in equal bins of P, from 0 to 1.
        threshold: On P.
    """
    most = max([*bars, 1])
    top = math.log10(most) + 1
    path = []
    for number, rows in enumerate(bars):
        if rows > 0:
            low, high = across(number / len(bars)), across((number + 1) / len(bars))
            # A row alone is seen as well.
            tip = up((math.log10(max(rows, 1)) + 1) / top)
            path.append(f"M{low} {up(0)}V{tip}H{high}V{up(0)}Z")
    powers = range(math.floor(math.log10(most)) + 1)
    return Histogram(
        "".join(path),
        tuple(Tick(across(share), f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)),
        tuple(Tick(up((power + 1) / top), _power(power)) for power in powers),
        across(threshold),
    )


def _power(power: int) -> str:
    """Ten to it, short."""
    unit = ("", "k", "M", "G", "T")[power // 3]
    return f"{10 ** (power % 3)}{unit}"


def line(
    dates: Sequence[str], shares: Sequence[tuple[float, float, float]], texts: Sequence[str]
) -> Line:
    """A chart of shares by night.

    Args:
        dates: Of the nights.
        shares: (low, share, high) of each.
        texts: What is said of each.
    """
    most = _round_up(max([high for _, _, high in shares] + [1e-6]))
    xs = [across((number + 0.5) / len(dates)) for number in range(len(dates))]

    def points(values: Sequence[float]) -> list[str]:
        return [f"{x} {up(value / most)}" for x, value in zip(xs, values, strict=True)]

    low, middle, high = (points([share[i] for share in shares]) for i in range(3))
    step = -(-len(dates) // DATES)
    return Line(
        "M" + "L".join(middle),
        "M" + "L".join([*high, *reversed(low)]) + "Z",
        tuple(
            (x, up(share[1] / most), text) for x, share, text in zip(xs, shares, texts, strict=True)
        ),
        tuple(Tick(x, date) for x, date in list(zip(xs, dates, strict=True))[::step]),
        tuple(Tick(up(part), f"{100 * part * most:.3g}%") for part in (0, 0.5, 1)),
    )


def curve(  # noqa: PLR0913  what a chart says
    points: Sequence[tuple[float, float]],
    xlabel: str,
    ylabel: str,
    *,
    marked: Sequence[tuple[float, float, str]] = (),
    most: float = 1.0,
    reference: Sequence[tuple[float, float]] = (),
) -> Curve:
    """A chart of shares against another figure.

    Args:
        points: (x, y) in order: y from 0 to 1.
        xlabel: What goes across.
        ylabel: What goes up.
        marked: (x, y, text) of points that are marked.
        most: The largest x.
        reference: Points of a line to hold it against.
    """

    def path(through: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{across(x / most)} {up(y)}" for x, y in through) if through else ""

    fifths = (0, 0.25, 0.5, 0.75, 1)
    return Curve(
        path(points),
        tuple((across(x / most), up(y), text) for x, y, text in marked),
        path(reference),
        tuple(Tick(across(part), f"{part * most:,.3g}") for part in fifths),
        tuple(Tick(up(part), f"{part:g}") for part in fifths),
        xlabel,
        ylabel,
    )


def _round_up(share: float) -> float:
    """The next of 1, 2 and 5 times a power of ten, in percent: what an axis ends with."""
    percent = 100 * share
    power = 10.0 ** math.floor(math.log10(percent))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= percent) / 100
