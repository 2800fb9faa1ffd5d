"""What a comparison gives back: its record, and the rows that a person should look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from moderay.tasks.diff.records import DiffRecord, RepeatRecord


@dataclass(frozen=True)
class Comparison:
    """Two outputs, or two versions of a policy, beside each other.

    Attributes:
        record: The figures: what `diff --json` prints.
        largest: By policy, the flips to look at first, of `flips.flips_schema`.
        contradictions: By side, a or b, rows on which this version contradicts itself, of
            `contradictions.CONTRADICTIONS`; empty where each was judged once.
    """

    record: DiffRecord
    largest: Mapping[str, pa.Table]
    contradictions: Mapping[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Repeated:
    """The same judges on the same rows several times.

    Attributes:
        record: The figures: what `diff --repeat --json` prints.
        contradictions: By policy, rows to look at first, of `contradictions.CONTRADICTIONS`.
    """

    record: RepeatRecord
    contradictions: Mapping[str, pa.Table]
