"""What each judge of a cascade settled, and what the audit says of it.

Every run measures its own misses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from moderay.labels.analysis.intervals import interval
from moderay.labels.counts import PolicyCounts
from moderay.labels.manifest_record import JudgeReport

CONFIDENCE = 0.95


def report(
    counts: PolicyCounts,
    judges: Sequence[str],
    promises: Mapping[str, float],
    estimated: Collection[str] = (),
) -> dict[str, JudgeReport]:
    """What the judges of one policy did, in their order.

    Args:
        counts: the policy's label rows.
        judges: names, in order of cost.
        promises: by calibrated judge, the share of violations that it may miss.
        estimated: the judges whose promise is an estimate.
    """
    return {judge: _one(counts, judge, promises.get(judge), judge in estimated) for judge in judges}


def _one(counts: PolicyCounts, judge: str, promised: float | None, estimated: bool) -> JudgeReport:
    settled, audited = counts.settled.get(judge, 0), counts.audited.get(judge, 0)
    share = settled / counts.ok if counts.ok else 0.0
    if not audited:
        return JudgeReport(
            settled=settled, share=share, promised_miss=promised, estimated=estimated
        )
    missed = counts.missed.get(judge, 0)
    low, high = interval(missed, audited, CONFIDENCE)
    violations = (low * settled, missed / audited * settled, high * settled)
    miss = tuple(count / (count + counts.flagged) if count else 0.0 for count in violations)
    return JudgeReport(
        settled=settled,
        share=share,
        promised_miss=promised,
        estimated=estimated,
        audited=audited,
        overruled=counts.overruled.get(judge, 0),
        missed=missed,
        missed_violations=violations,
        miss=(miss[0], miss[1], miss[2]),
        alarm=promised is not None and miss[0] > promised,
    )


def alarms(policies: Mapping[str, Mapping[str, JudgeReport]]) -> list[str]:
    """A sentence for each judge whose audit excludes its promise.

    Args:
        policies: `report` by policy.
    """
    return [
        f"{policy}: {judge} misses at least {audit.miss[0]:.1%} of violations "
        f"({audit.missed:,} of {audit.audited:,} audited), "
        f"and {audit.promised_miss:.1%} was {'estimated' if audit.estimated else 'promised'}: "
        "calibrate it again, or leave it out"
        for policy, judges in policies.items()
        for judge, audit in judges.items()
        if audit.alarm and audit.miss is not None
    ]
