"""The counts of a comparison as figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping

from moderay.core.storage import shown
from moderay.labels.analysis.diff import NOT_JUDGED, VIOLATING, DiffTally
from moderay.labels.analysis.metrics.confusion import Figure
from moderay.labels.analysis.metrics.mcnemar import Paired
from moderay.labels.cascade_differences import only_thresholds_differ, output_differences
from moderay.tasks.diff.pairs import Output
from moderay.tasks.diff.records import (
    DiffRecord,
    FigureDiff,
    GoldDiff,
    LabelFlip,
    LeftOut,
    PolicyDiffRecord,
)
from moderay.tasks.evaluate.records import EstimateRecord

# In the order in which people ask for them.
GOLD_FIGURES: tuple[Figure, ...] = ("precision", "recall", "f1", "false_positive_rate", "accuracy")


def diff_record(
    a: Output, b: Output, tallies: Mapping[str, DiffTally], rows: int, left_out: LeftOut
) -> DiffRecord:
    """The figures of a comparison.

    Args:
        a: One output.
        b: The other one.
        tallies: By policy.
        rows: That were compared.
        left_out: What was not.
    """
    known = a.manifest is not None and b.manifest is not None
    differences, only_thresholds = [], False
    if a.manifest is not None and b.manifest is not None:
        differences = output_differences(a.manifest, b.manifest, [*tallies])
        only_thresholds = only_thresholds_differ(a.manifest, b.manifest, [*tallies])
    return DiffRecord(
        a=shown(a.layout.url),
        b=shown(b.layout.url),
        judges_known=known,
        differences=differences,
        only_thresholds=only_thresholds,
        rows=rows,
        policies={name: policy_figures(counts) for name, counts in tallies.items()},
        left_out=left_out,
    )


def policy_figures(counts: DiffTally) -> PolicyDiffRecord:
    """The figures of one policy."""
    rows, flips = counts.rows, counts.flips
    judged = rows[:NOT_JUDGED, :NOT_JUDGED]
    commonest = sorted(counts.labels.items(), key=lambda item: (-item[1], item[0]))
    return PolicyDiffRecord(
        judged=counts.judged,
        not_judged_a=int(rows[NOT_JUDGED, :NOT_JUDGED].sum()),
        not_judged_b=int(rows[:NOT_JUDGED, NOT_JUDGED].sum()),
        not_judged_both=int(rows[NOT_JUDGED, NOT_JUDGED]),
        violating_a=int(judged[VIOLATING].sum()),
        violating_b=int(judged[:, VIOLATING].sum()),
        to_violating=flips["to_violating"],
        to_safe=flips["to_safe"],
        labels=[LabelFlip(a=a, b=b, rows=count) for (a, b), count in commonest],
        contents=counts.judged_contents,
        p_value=counts.p_value,
        per_million={
            name: EstimateRecord(
                value=figure.value, low=figure.low, high=figure.high, method="exact"
            )
            for name, figure in counts.per_million.items()
            if figure is not None
        },
        gold=None if counts.gold is None else _gold(counts.gold),
    )


def _gold(paired: Paired) -> GoldDiff:
    safe, violating = paired.counts.tolist()
    return GoldDiff(
        contents=int(paired.counts.sum()),
        right_a=safe[0][1] + violating[1][0],
        right_b=safe[1][0] + violating[0][1],
        p_value=paired.p_value,
        figures={
            name: figure for name in GOLD_FIGURES if (figure := _figure(paired, name)) is not None
        },
    )


def _figure(paired: Paired, name: Figure) -> FigureDiff | None:
    before, now = paired.a.figure(name), paired.b.figure(name)
    gained = paired.difference(name)
    if before is None or now is None or gained is None:
        return None
    interval = EstimateRecord(
        value=gained.value, low=gained.low, high=gained.high, method="bootstrap"
    )
    return FigureDiff(a=before, b=now, gained=interval)
