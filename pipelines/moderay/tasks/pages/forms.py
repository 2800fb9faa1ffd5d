"""Numbers as a page writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moderay.core.wording import duration


def number(value: float) -> str:
    """With separators of thousands; whole where it is."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def percent(share: float | None) -> str:
    """A share in percent, with as many digits as tell it from 0 and from all."""
    if share is None:
        return "–"
    digits = 1 if 0.01 <= share <= 0.99 or share in (0, 1) else 2 if share >= 1e-4 else 4
    return f"{share:.{digits}%}"


def probability(value: float | None) -> str:
    """P to three digits."""
    return "–" if value is None else f"{value:.3f}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "number": number,
    "percent": percent,
    "probability": probability,
    "duration": duration,
}
