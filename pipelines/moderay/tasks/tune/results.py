"""What a search found, as its record has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from moderay.config.job import Effort
from moderay.core.hashing import digest
from moderay.labels.analysis import intervals
from moderay.tasks.gold_parts import PARTS, Part
from moderay.tasks.tune.certificate import Goal, bounds, recall_needed
from moderay.tasks.tune.choice import Choice
from moderay.tasks.tune.gold_rows import GoldRows
from moderay.tasks.tune.records import (
    CascadeRecord,
    CertifyRecord,
    CountsRecord,
    TuneGoalRecord,
    TunePartRecord,
    TuneRecord,
)
from moderay.tasks.tune.search import Candidate, frontier

RECORD = "tune.json"


def parts_record(gold: GoldRows, part: np.ndarray) -> dict[Part, TunePartRecord]:
    """Contents and violations of each part."""
    return {
        name: TunePartRecord(
            contents=int((part == number).sum()),
            violations=int(gold.violates[part == number].sum()),
        )
        for number, name in enumerate(PARTS)
    }


def found_fields(found: Choice, goal: Goal, violations: int) -> dict[str, Any]:
    """What was searched, tested and chosen, as fields of `TuneRecord`.

    Args:
        found: The search and its certificate.
        goal: What was to be certified.
        violations: Of the certify part.
    """
    return {
        "goal": goal_record(goal),
        "tried": found.tried.size,
        "frontier": [cascade_record(each) for each in frontier(found.tried, goal.precision)],
        "recall_needed": recall_needed(violations, goal),
        "misses_allowed": intervals.allowed_misses(violations, 1 - goal.recall, goal.confidence),
        "tested": tested_records(found, goal),
        "chosen": found.chosen,
    }


def goal_record(goal: Goal) -> TuneGoalRecord:
    """What was to be reached."""
    return TuneGoalRecord(recall=goal.recall, precision=goal.precision, confidence=goal.confidence)


def tested_records(found: Choice, goal: Goal) -> list[CertifyRecord]:
    """The cascades that were tested, in their order."""
    records = []
    for number, tested in enumerate(found.tested):
        least = bounds(tested.found, goal.confidence)
        records.append(
            CertifyRecord(
                cascade=cascade_record(found.listed[number]),
                chance=found.chances[number],
                certify=counts_record(tested),
                recall_at_least=least.recall,
                precision_at_least=least.precision,
                passed=found.chosen is not None and number <= found.chosen,
            )
        )
    return records


def cascade_record(each: Candidate) -> CascadeRecord:
    """A cascade with what it did on the select part."""
    band = each.shape.band
    return CascadeRecord(
        effort=cast("Effort", each.shape.effort),
        cut_off=each.shape.cut_off,
        below=None if band is None else band.below,
        above=None if band is None else band.above,
        glance=band is not None,
        reason=each.shape.reasons,
        threshold=each.threshold,
        select=counts_record(each),
    )


def counts_record(each: Candidate) -> CountsRecord:
    """What a cascade did on a part."""
    found = each.found
    return CountsRecord(
        violations=found.violations, flagged=found.flagged, hits=found.hits, tokens=each.tokens
    )


def contents_hash(gold: GoldRows, part: np.ndarray) -> str:
    """Of the contents of the certify part, in whatever order."""
    certify = PARTS.index("certify")
    return digest(sorted(row.key for row, of in zip(gold.rows, part, strict=True) if of == certify))


def looks(
    folder: Path | None, certify_hash: str, goal: Goal, tested: Sequence[CertifyRecord]
) -> int:
    """How often these contents were certified on, as far as the record in the folder tells.

    The same cascades for the same goal again are no further look.
    """
    before = None if folder is None else read_record(folder / RECORD)
    if before is None or before.certify_hash != certify_hash:
        return int(bool(tested))
    same = before.goal == goal_record(goal) and (
        [each.cascade for each in before.tested] == [each.cascade for each in tested]
    )
    return before.looks + int(bool(tested) and not same)


def read_record(file: Path) -> TuneRecord | None:
    """A search's record; None where there is none.

    Raises:
        RecordRefusedError: It is damaged, or of another version.
    """
    return TuneRecord.from_json(file.read_bytes(), str(file)) if file.exists() else None
