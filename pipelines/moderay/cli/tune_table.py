"""What `tune` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moderay.cli.console import out, printable, show_table, table_of, warn
from moderay.core.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from moderay.tasks.tune.records import CascadeRecord, CertifyRecord, CountsRecord, TuneRecord
    from moderay.tasks.tune.tune import Tuned

# Cascades of the frontier that are shown; all stand in tune.json.
MOST = 10


def show_tuned(found: Tuned) -> None:
    """The gold, the frontier, the certificate, and what to paste."""
    record = found.record
    _line(
        f"[bold]{record.policy}[/]: gold is {printable(record.source)}, by distinct content: "
        + "; ".join(
            f"{name} {each.contents:,} ({each.violations:,} violate)"
            for name, each in record.parts.items()
            if each.contents
        )
    )
    if record.unreadable:
        _line(f"{counted(record.unreadable, 'row')} left out: empty or no text")
    _line(
        f"{record.tried:,} cascades tried; the cheapest for each recall at precision "
        f"{record.goal.precision:g} or more, on the select part:"
    )
    show_table(_frontier(record))
    _line(
        "tokens: computed for a content on average: its prompt once, without the policy's own "
        "text, which the prefix cache holds, and output"
    )
    if not record.tested:
        _line(f"no cascade reaches {_goal(record)} there, and nothing was certified")
        return
    _line(
        f"certified on the other {record.parts['certify'].contents:,}, in this order, up to the "
        "first that fails:"
    )
    show_table(_tested(record))
    _certificate(found)


def _line(text: str) -> None:
    out.print(text, soft_wrap=True, highlight=False)


def _goal(record: TuneRecord) -> str:
    return f"recall {record.goal.recall:g} and precision {record.goal.precision:g}"


def _frontier(record: TuneRecord) -> Table:
    table = table_of(["cascade"], ["threshold", "tokens", "recall", "precision"])
    shown = [*_spread(record.frontier), record.own]
    for number, each in enumerate(shown):
        own = "own: " if number == len(shown) - 1 else ""
        table.add_row(own + _named(each), f"{each.threshold:g}", *_figures(each.select))
    return table


def _spread(frontier: list[CascadeRecord]) -> list[CascadeRecord]:
    """Some of them from end to end, the last always."""
    count = min(MOST, len(frontier))
    last = len(frontier) - 1
    return [frontier[last - round(number * last / max(1, count - 1))] for number in range(count)]


def _figures(found: CountsRecord) -> tuple[str, str, str]:
    return (
        f"{found.tokens:,.1f}",
        _share(found.hits, found.violations),
        _share(found.hits, found.flagged),
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def _named(each: CascadeRecord) -> str:
    """The judges, such as low: glance <0.02, reason."""
    edges = (("<", each.below), (">", each.above))
    band = " ".join(f"{side}{edge:g}" for side, edge in edges if edge is not None)
    judges = [
        *(["screen"] if each.cut_off is not None else []),
        *([f"glance {band}".strip()] if each.glance else []),
        *(["reason"] if each.reason else []),
    ]
    return f"{each.effort}: {', '.join(judges)}"


def _tested(record: TuneRecord) -> Table:
    names = ["tokens", "recall (from)", "precision (from)", "passed"]
    table = table_of(["cascade"], names)
    for each in record.tested:
        tokens, recall, precision = _figures(each.certify)
        table.add_row(
            _named(each.cascade),
            tokens,
            f"{recall} ({each.recall_at_least:.3f})",
            f"{precision} ({each.precision_at_least:.3f})",
            "yes" if each.passed else "no",
        )
    return table


def _certificate(found: Tuned) -> None:
    from moderay.tasks.tune.tuned_job import as_yaml

    record, goal = found.record, found.record.goal
    violations = record.parts["certify"].violations
    _line(
        f"power: of {violations:,} violations {record.misses_allowed:,} may be missed; a true "
        f"recall of {record.recall_needed:.3f} passes with a chance of 80%"
    )
    if record.looks > 1:
        warn(
            f"warning: this is search number {record.looks} that was certified on these contents: "
            "the confidence is that of the first alone; label more, or take the first"
        )
    if record.chosen is None or found.job is None:
        _line(f"nothing is certified: the safest cascade did not pass at {_goal(record)}")
        return
    chosen = record.tested[record.chosen]
    _line(
        f"certified: {_goal(record)}, both at once with confidence {goal.confidence:g}, on "
        "contents like the gold's; each lower end holds at that confidence by itself, the two as "
        f"a pair at {2 * goal.confidence - 1:.2g}"
    )
    _line(_saved(record, chosen))
    out.print()
    print(f"# policy.md of {record.policy}: threshold: {chosen.cascade.threshold:g}")
    print(as_yaml(found.job), end="")


def _saved(record: TuneRecord, chosen: CertifyRecord) -> str:
    tokens, own = chosen.certify.tokens, record.own_tokens
    change = f", {1 - tokens / own:.0%} fewer" if own and tokens < own else ""
    return f"tokens a content: {tokens:,.1f}; the job's own cascade: {own:,.1f}{change}"
