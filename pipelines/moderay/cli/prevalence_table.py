"""What `prevalence` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moderay.cli.console import out, printable, show_table, table_of, warn
from moderay.core.wording import are, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from moderay.labels.prevalence_records import (
        PlannedStratum,
        PrevalenceEstimate,
        PrevalencePlan,
        ReviewedStratum,
        ShareEstimate,
    )


def show_plan(plan: PrevalencePlan, output: str) -> None:
    """What a plan drew, and what to do next."""
    _line(
        f"[bold]{printable(plan.policy)}[/]: {counted(len(plan.rows), 'review')}, for a "
        f"{plan.confidence:.0%} interval about {_width(plan.expected_width)} wide if P is right"
    )
    table = table_of(["stratum"], ["rows", "mean P", "reviews"])
    for stratum in plan.strata:
        table.add_row(
            _stratum(stratum),
            f"{stratum.rows:,}",
            f"{stratum.probability:.3f}",
            f"{stratum.reviews:,}",
        )
    show_table(table)
    _unjudged(plan.unjudged)
    where = printable(output)
    _line(f"plan {plan.id}: {where}/_moderay/prevalence/{plan.id}.json")
    _line(f"next: moderay review {where} --plan {plan.id}, then moderay prevalence {where}")


def show_estimate(found: PrevalenceEstimate, output: str) -> None:
    """The figures of a plan, what they stand on, and what does not count."""
    planned = sum(stratum.reviews for stratum in found.strata)
    reviewed = sum(stratum.reviewed for stratum in found.strata)
    who = f", by {printable(', '.join(found.reviewers))}" if found.reviewers else ""
    _line(
        f"[bold]{printable(found.policy)}[/]: {reviewed:,} of {counted(planned, 'drawn row')} "
        f"reviewed{who}; plan {found.plan} of {found.planned[:10]}"
    )
    shares = {"all": found.corpus, "kept": found.kept, "removed": found.removed}
    if any(shares.values()):
        show_table(_shares(shares, found.confidence))
    show_table(_strata(found.strata))
    for name, share in shares.items():
        if share is not None and not share.hits:
            _line(f"{name}: 0 hits: at most {_percent(share.high)}")
    _unjudged(found.unjudged)
    _notes(found)
    if found.corpus is None:
        empty = [_stratum(each) for each in found.strata if not each.reviewed]
        of = f" of: {'; '.join(empty)}" if reviewed else ""
        warn(
            f"{found.policy}: no figure for all rows yet, since no row is reviewed{of}: "
            f"moderay review {output} --plan {found.plan}"
        )


def _shares(shares: dict[str, ShareEstimate | None], confidence: float) -> Table:
    figures = ["rows", "reviews", "hits", "violate", f"{confidence:.0%}", "n_eff", "classical"]
    table = table_of(["of"], figures, "rows that violate")
    for name, share in shares.items():
        if share is None:
            continue
        low, high = (round(end * share.rows) for end in (share.low, share.high))
        table.add_row(
            name,
            f"{share.rows:,}",
            f"{share.reviews:,}",
            f"{share.hits:,}",
            _percent(share.share),
            _interval(share.low, share.high),
            f"{share.effective:,.0f}",
            _interval(*share.classical),
            f"{round(share.share * share.rows):,} ({low:,} to {high:,})",
        )
    return table


def _strata(strata: Sequence[ReviewedStratum]) -> Table:
    table = table_of(["stratum"], ["rows", "mean P", "reviewed", "hits"])
    for stratum in strata:
        table.add_row(
            _stratum(stratum),
            f"{stratum.rows:,}",
            f"{stratum.probability:.3f}",
            f"{stratum.reviewed:,} of {stratum.reviews:,}",
            f"{stratum.hits:,}",
        )
    return table


def _notes(found: PrevalenceEstimate) -> None:
    """What the figures leave out, a line each."""
    taken = "the figures take them to be like the others"
    if found.unanswered:
        _line(f"{counted(found.unanswered, 'drawn row')} {are(found.unanswered)} not reviewed yet")
    if found.skipped:
        _line(f"skipped: {counted(found.skipped, 'row')}; {taken}")
    if found.disputed:
        _line(f"disputed: {counted(found.disputed, 'row')}; {taken}")
    if found.assisted:
        _line(
            f"assisted: {counted(found.assisted, 'row')}, answered after the model's verdict was "
            "seen, which draws answers towards it"
        )
    left = found.left_out
    reasons = (
        (left.picked, "of rows that were picked, and not drawn"),
        (left.other_plan, "of other plans"),
        (left.not_drawn, "of rows that the plan did not draw"),
        (left.other_text, "under another text of the policy"),
    )
    for count, reason in reasons:
        if count:
            _line(f"refused: {counted(count, 'answer')} {reason}")


def _unjudged(rows: int) -> None:
    if rows:
        _line(f"not in these figures: {counted(rows, 'row')} without a verdict")


def _stratum(stratum: PlannedStratum) -> str:
    side = "removed" if stratum.removed else "kept"
    return f"{side}, P {stratum.low:g} to {stratum.high:g}"


def _percent(share: float) -> str:
    """With three digits where it is small."""
    return f"{100 * share:.2f}%" if share >= 0.001 or not share else f"{100 * share:.2g}%"


def _interval(low: float, high: float) -> str:
    return f"{_percent(low)} to {_percent(high)}"


def _width(width: float) -> str:
    return f"{width:.2g}"


def _line(text: str) -> None:
    out.print(text, soft_wrap=True, highlight=False)
