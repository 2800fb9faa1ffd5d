"""One policy on the page: what it flagged, how sure that is, and what another threshold would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moderay.core.verdicts import Status
from moderay.labels.analysis.audit import report as judge_reports
from moderay.labels.analysis.intervals import interval
from moderay.labels.counts import PolicyCounts
from moderay.labels.manifest_record import JudgeReport, PolicyRecord
from moderay.labels.shard_profile import BINS
from moderay.pipeline.manifest import OutputTotal
from moderay.tasks.pages import charts
from moderay.tasks.report.known import KnownRows

CONFIDENCE = 0.95
# Bars of the histogram; each is several bins wide, or a few rows would not be seen.
BARS = 100


@dataclass(frozen=True)
class LabelLine:
    """One label of a policy.

    Attributes:
        name: As the policy has it.
        title: What it means.
        violates: Whether it does; None where nothing says so.
        rows: That have it.
        share: Of the rows with a verdict.
        low: Lower end of the share's interval.
        high: Upper end.
    """

    name: str
    title: str
    violates: bool | None
    rows: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class PolicySection:
    """One policy.

    Attributes:
        id: Of the policy.
        record: As the manifest has it.
        text: As the last judge reads it; empty where it reads none.
        counts: Of its rows.
        share: Flagged ones of those with a verdict; None without any.
        low: Lower end of the share's interval.
        high: Upper end.
        labels: In the policy's order, those without rows too.
        statuses: Rows by status, those without rows left out.
        judges: What each settled, and what the audit found.
        chart: Rows by P.
        with_p: Rows with a P.
        deciles: (from, to, rows) by tenths of P.
        slider: For the page's script, see report.js; None where no threshold can be moved.
        why_fixed: Why none can.
        known: Contents of which people said whether they violate; None without any.
    """

    id: str
    record: PolicyRecord
    text: str
    counts: PolicyCounts
    share: float | None
    low: float
    high: float
    labels: tuple[LabelLine, ...]
    statuses: tuple[tuple[str, int], ...]
    judges: dict[str, JudgeReport]
    chart: charts.Histogram
    with_p: int
    deciles: tuple[tuple[float, float, int], ...]
    slider: dict[str, Any] | None
    why_fixed: str
    known: KnownRows | None


def policy_section(
    name: str, record: PolicyRecord, total: OutputTotal, known: KnownRows | None
) -> PolicySection:
    """A policy's part of the page.

    Args:
        name: Its id.
        record: As the manifest has it.
        total: Of the output.
        known: What people said under it.
    """
    counts, histogram = total.counts(name), total.histogram(name)
    bins = np.zeros(BINS, np.int64)
    bins[list(histogram)] = list(histogram.values())
    low, high = interval(counts.flagged, counts.ok, CONFIDENCE)
    slider, why_fixed = _slider(name, record, counts, bins, total.flagged_without_p(name))
    if slider is not None and known is not None and known.contents:
        slider["known"] = known.for_page()
    return PolicySection(
        id=name,
        record=record,
        text=record.text or "",
        counts=counts,
        share=counts.flagged / counts.ok if counts.ok else None,
        low=low,
        high=high,
        labels=tuple(_labels(record, counts)),
        statuses=tuple(
            (status.value, rows) for status in Status if (rows := counts.by_status(status))
        ),
        judges=judge_reports(
            counts, [judge.judge for judge in record.cascade], record.promises, record.estimated
        ),
        chart=charts.histogram(bins.reshape(BARS, -1).sum(axis=1).tolist(), record.threshold),
        with_p=int(bins.sum()),
        deciles=tuple(
            (tenth / 10, (tenth + 1) / 10, int(rows))
            for tenth, rows in enumerate(bins.reshape(10, -1).sum(axis=1))
        ),
        slider=slider,
        why_fixed=why_fixed,
        known=known,
    )


def _labels(record: PolicyRecord, counts: PolicyCounts) -> list[LabelLine]:
    violates = record.sides
    names = [*violates, *sorted(set(counts.labels) - set(violates))]
    lines = []
    for name in names:
        rows = counts.labels.get(name, 0)
        low, high = interval(rows, counts.ok, CONFIDENCE)
        share = rows / counts.ok if counts.ok else 0.0
        title = record.label_titles.get(name, "")
        lines.append(LabelLine(name, title, violates.get(name), rows, share, low, high))
    return lines


def _slider(
    name: str,
    record: PolicyRecord,
    counts: PolicyCounts,
    bins: np.ndarray,
    without_p: int | None,
) -> tuple[dict[str, Any] | None, str]:
    """What the page needs to count flagged rows at any edge of a bin, or why it cannot."""
    if not bins.any():
        return None, "No row has a P, so that no threshold changes what is flagged."
    fixed = without_p if without_p is not None else _fixed(record.threshold, counts, bins)
    screened = counts.settled.get("screen", 0) > 0
    # What a screen settled, it settled for this threshold, and promises nothing for a lower one.
    lowest = int(np.ceil(record.threshold * BINS - 1e-9)) if screened else 1
    if lowest >= BINS:
        return None, (
            f"A screen settled rows for the threshold {record.threshold:g}, and promises nothing "
            "for a lower one."
        )
    if fixed is None:
        return None, (
            "The markers of this output are of an earlier version, and do not say how many rows "
            "are flagged without a P: what another threshold would flag is not known from them."
        )
    there = np.flatnonzero(bins)
    return {
        "policy": name,
        "threshold": record.threshold,
        "flagged": counts.flagged,
        "ok": counts.ok,
        "fixed": fixed,
        "bins": [[int(number), int(bins[number])] for number in there],
        "lowest": lowest,
    }, ""


def _fixed(threshold: float, counts: PolicyCounts, bins: np.ndarray) -> int | None:
    """Flagged rows without a P, from markers that do not say it; None where it cannot be told."""
    edge = round(threshold * BINS)
    # The last bin holds P = 1 with what is just below it.
    if edge < BINS and abs(edge - threshold * BINS) < 1e-9:
        return counts.flagged - int(bins[edge:].sum())
    return 0 if int(bins.sum()) == counts.ok else None
