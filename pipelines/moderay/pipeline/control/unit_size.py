"""`unit.rows: auto`: units that take an engine some tens of seconds, by what earlier runs show.

Saved units are named by ranges of rows, and a run cuts only what is missing: one run's units may
have another size than the next one's.
"""

from __future__ import annotations

from collections.abc import Iterable

from moderay.config.job import UnitSize
from moderay.core.wording import counted
from moderay.labels.manifest_record import Manifest, RunRecord

# Seconds that a unit is to take an engine: what is lost with one, and what others may have to wait
# at the end of a run for the last.
UNIT_S = 30.0
# Rows of a unit, at least and at most. More would save a driver next to nothing: smaller ones
# travel together (`stages.batches`).
FEWEST, MOST = 64, 16_384
# Rows of a run, judged by its engines for so many seconds, from which on its speed is believed.
ENOUGH_ROWS, ENOUGH_S = 200, 1.0


def chosen(size: UnitSize, earlier: Iterable[Manifest]) -> tuple[UnitSize, str]:
    """How large units are, where the job leaves it open, and why.

    Args:
        size: What the job says.
        earlier: Manifests of this output and of those that are reused, in the order in which they
            are believed.

    Returns:
        The size in rows, and a sentence; without one where the job says it.
    """
    if size.rows != "auto":
        return size, ""
    for manifest in earlier:
        for run in reversed(manifest.runs):
            if (seconds := seconds_a_row(run)) is not None:
                rows = rows_for(seconds)
                return size.of(rows), (
                    f"units of {counted(rows, 'row')}: an engine took {1000 * seconds:.3g} ms a "
                    f"row in run {run.run}, and a unit is to take it about {UNIT_S:.0f} s "
                    f"(unit.rows: auto, {FEWEST} to {MOST:,})"
                )
    return size.of(size.most), (
        f"units of {counted(size.most, 'row')}: no earlier run shows how long an engine takes "
        "for a row (unit.rows: auto)"
    )


def seconds_a_row(run: RunRecord) -> float | None:
    """Of an engine that was at work, for a row; None where a run was too short to tell."""
    seconds = run.usage.get("engine_working_ms", 0) / 1000
    if run.judged < ENOUGH_ROWS or seconds < ENOUGH_S:
        return None
    return seconds / run.judged


def rows_for(seconds: float) -> int:
    """The largest power of two of rows that take an engine no longer than `UNIT_S`, in bounds."""
    rows = max(1, int(UNIT_S / seconds))
    return max(FEWEST, min(MOST, 1 << (rows.bit_length() - 1)))
