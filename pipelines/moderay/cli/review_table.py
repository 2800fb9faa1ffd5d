"""How far reviewers are, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moderay.cli.console import printable, show_table, table_of

if TYPE_CHECKING:
    from moderay.tasks.review.agreement import PairAgreement
    from moderay.tasks.review.desk import Progress


def show_progress(progress: Mapping[str, Progress]) -> None:
    """A line a person."""
    table = table_of(["reviewer"], ["labelled", "skipped", "left"])
    for name, of in progress.items():
        left = of.total - of.labelled - of.skipped
        table.add_row(printable(name), f"{of.labelled:,}", f"{of.skipped:,}", f"{left:,}")
    show_table(table)


def show_agreement(pairs: Sequence[PairAgreement]) -> None:
    """A line for each two people and policy; nothing where nobody has answered beside another."""
    if not pairs:
        return
    table = table_of(["policy", "reviewers"], ["both", "same label", "same side", "kappa"])
    for pair in pairs:
        table.add_row(
            printable(pair.policy),
            printable(" and ".join(pair.people)),
            f"{pair.both:,}",
            f"{pair.same / pair.both:.0%}",
            f"{pair.same_side / pair.both:.0%}",
            "-" if pair.kappa is None else f"{pair.kappa:.2f}",
        )
    show_table(table)
