"""What each judge of a cascade settled, and what the audit says of it: every run measures its own
misses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moderay.labels.analysis.intervals import interval

CONFIDENCE = 0.95


def report(
    counts: Mapping[str, int], judges: Sequence[str], promises: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """By judge of one policy, in their order. `counts`: of `decisions.summary`; `promises`: the
    share of violations that a calibrated judge may miss.

    Every judge: rows `settled` and their `share` of those with a verdict. Where some of them were
    audited: `audited` contents, how many the last judge `overruled` and how many violations were
    `missed` among them; from these the `missed_violations` among the settled rows that were not
    audited, and the share of all violations they are (`miss`), each as [low, estimate, high] with
    95% confidence (Clopper-Pearson). `alarm`: whether the interval excludes what was promised.
    """
    return {judge: _one(counts, judge, promises.get(judge)) for judge in judges}


def _one(counts: Mapping[str, int], judge: str, promised: float | None) -> dict[str, Any]:
    settled, audited, overruled, missed = (
        counts.get(f"{what}.{judge}", 0) for what in ("settled", "audited", "overruled", "missed")
    )
    found: dict[str, Any] = {
        "settled": settled,
        "share": settled / counts["ok"] if counts["ok"] else 0.0,
    }
    if promised is not None:
        found["promised_miss"] = promised
    if not audited:
        return found
    low, high = interval(missed, audited, CONFIDENCE)
    violations = [share * settled for share in (low, missed / audited, high)]
    miss = [count / (count + counts["flagged"]) if count else 0.0 for count in violations]
    return found | {
        "audited": audited,
        "overruled": overruled,
        "missed": missed,
        "missed_violations": violations,
        "miss": miss,
        "alarm": promised is not None and miss[0] > promised,
    }


def alarms(policies: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """A sentence for a judge whose audit excludes its promise; `policies`: `report` by policy."""
    return [
        f"{policy}: {judge} misses at least {said['miss'][0]:.1%} of violations "
        f"({said['missed']:,} of {said['audited']:,} audited), "
        f"and {said['promised_miss']:.1%} was promised: calibrate it again, or leave it out"
        for policy, judges in policies.items()
        for judge, said in judges.items()
        if said.get("alarm")
    ]
