"""Ranges of rows: what is saved, without overlaps, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Rows from the first to before the second.
Range = tuple[int, int]


def tiling(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Ranges in order without overlaps; empty ones are left out.

    Of two that overlap (two drivers once wrote at the same time) the earlier counts.
    """
    kept: list[Range] = []
    for start, end in sorted(ranges):
        if end > start and (not kept or start >= kept[-1][1]):
            kept.append((start, end))
    return tuple(kept)


def gaps(rows: int, saved: Sequence[Range]) -> list[Range]:
    """What of 0..rows no saved range covers; `saved` is a tiling."""
    edges = [0, *[edge for part in saved for edge in part], rows]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]
