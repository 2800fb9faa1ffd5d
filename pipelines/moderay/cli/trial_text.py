"""`moderay try` in a pipe: the rows once, as text or as JSON lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from moderay.cli.console import err, out
from moderay.cli.row_text import HEADINGS, paragraph, title_of
from moderay.cli.trial_view import content_lines, explained, one_line, titled, urgency
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.config.policy import Policy
    from moderay.tasks.workbench.trial import RowState, Trial

# Characters of a content that are printed.
PRINTED = 600


def show_trial(trial: Trial, as_json: bool) -> None:
    """Print every row, wrong ones first, and the agreement with the golden cases."""
    policy = trial.policy.policy
    for state in sorted(trial.states, key=_order):
        if as_json:
            print(json.dumps(_record(state, policy), ensure_ascii=False))
        else:
            _show(state, policy)
    agreement = trial.agreement
    cases = f", {agreement}" if agreement.cases else ""
    (err if as_json else out).print(
        f"{policy.id}: {counted(len(trial.rows), 'row')}{cases}", soft_wrap=True
    )


def has_missed(trial: Trial) -> bool:
    """Whether a golden case is judged otherwise, or a row has no verdict."""
    return any(state.is_wrong or state.is_missing for state in trial.states)


def _order(state: RowState) -> tuple[int, int]:
    return urgency(state), list(HEADINGS).index(_violates(state))


def _violates(state: RowState) -> bool | None:
    return None if state.decision is None else state.decision["violates"]


def _record(state: RowState, policy: Policy) -> dict[str, Any]:
    """A row for other programs."""
    decision = dict(state.decision or {})
    names = ("status", "violates", "label", "probability", "scores", "rationale", "reasoning")
    return {
        "row": state.row.name,
        "content": state.row.content.text,
        "policy": policy.id,
        **{name: decision.get(name) for name in (*names, "trace")},
        "title": title_of(decision.get("label"), policy),
        "right_label": state.right,
    }


def _heading(state: RowState, policy: Policy) -> str:
    name = one_line(state.row.name)
    if state.is_wrong:
        return f"wrong: {name}, right is {titled(state.right, policy)}"
    if state.right is not None:
        return f"right: {name}"
    return f"{HEADINGS[_violates(state)]}: {name}"


def _show(state: RowState, policy: Policy) -> None:
    """A row as a few lines."""
    is_bad = state.is_wrong or (state.right is None and bool(_violates(state)))
    paragraph(_heading(state, policy), 0, "bold red" if is_bad else "bold")
    paragraph(" ".join(content_lines(state, PRINTED)), 1)
    parts = dict(explained(state, policy))
    for name, depth in (("label", 1), ("rationale", 2)):
        if name in parts:
            paragraph(parts[name], depth)
