"""What a person reads of a row under a policy that is being written: in the page, and printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from moderay.cli.row_text import title_of
from moderay.core.errors import inert
from moderay.core.verdicts import Status

if TYPE_CHECKING:
    from moderay.config.policy import Policy
    from moderay.tasks.workbench.trial import RowState
    from moderay.tasks.workbench.workbench import Decision

# Cells of the columns beside the content; in a wide terminal labels and names have more.
_NAME, _LABEL, _P, _STATE = 16, 14, 4, 6
_WIDE, _MORE = 110, 10
COLUMNS = ("row", "label", "P", "", "content")
# Cells beside each column, and of the bar beside all.
_PADDING, _BAR = 2, 2
# Characters of a content that are shown.
EXCERPT = 10_000


def urgency(state: RowState) -> int:
    """Wrong rows first, then those without a verdict, then those that changed."""
    reasons = (state.is_wrong, state.is_missing, state.has_flipped)
    return next((rank for rank, holds in enumerate(reasons) if holds), len(reasons))


def label_text(decision: Decision | None) -> str:
    """The label, or why there is none."""
    if decision is None:
        return ""
    return str(decision["label"] if decision["label"] is not None else decision["status"])


def change_text(state: RowState) -> str:
    """The label, with the one before it where that was another."""
    now = label_text(state.decision)
    return f"{label_text(state.before)} -> {now}" if state.has_flipped else now


def probability_text(decision: Decision | None) -> str:
    """P(violates), where there is one."""
    if decision is None or decision["probability"] is None:
        return ""
    return f"{decision['probability']:.2f}"


def titled(label: str | None, policy: Policy) -> str:
    """A label with its title."""
    if label is None:
        return ""
    return inert(f"{label} {title_of(label, policy) or ''}".rstrip())


def content_lines(state: RowState, longest: int = EXCERPT) -> list[str]:
    """The content as it may be shown, line by line."""
    text = state.row.content.text
    if not text:
        return ["(no content)"]
    cut = text[:longest] + (" ..." if len(text) > longest else "")
    return [inert(line.replace("\t", "    ")) for line in cut.splitlines()] or [""]


def one_line(text: str) -> str:
    """A text on one line."""
    return inert(" ".join(text.split()))


def verdict_text(decision: Decision, policy: Policy) -> str:
    """The verdict in a line."""
    if decision["status"] != Status.OK:
        return one_line(
            f"{decision['status']}: {decision['trace']['detail'] or 'nothing to judge'}"
        )
    p = probability_text(decision)
    trace = decision["trace"]
    forced = ", forced" if trace["forced"] else ""
    by = "" if trace["decided_by"] == "reason" else f", by {trace['decided_by']}"
    return titled(decision["label"], policy) + (f", P {p}" if p else "") + forced + by


def scores_text(decision: Decision) -> str:
    """P of each label."""
    scores: Mapping[str, float] = decision["scores"] or {}
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items())


def explained(state: RowState, policy: Policy) -> Iterator[tuple[str, str]]:
    """Why a row is judged as it is: name and text of each part there is."""
    decision = state.decision
    if decision is None:
        return
    parts = {
        "label": verdict_text(decision, policy),
        "before": verdict_text(state.before, policy) if state.before and state.has_flipped else "",
        "right": titled(state.right, policy) if state.is_wrong else "",
        "scores": scores_text(decision),
        "rationale": one_line(decision["rationale"] or ""),
        "reasoning": one_line(decision["reasoning"] or ""),
    }
    yield from ((name, text) for name, text in parts.items() if text)


def column_widths(terminal: int) -> list[int]:
    """Cells of each column."""
    more = _MORE if terminal >= _WIDE else 0
    fixed = [_NAME + more, _LABEL + more, _P, _STATE]
    rest = terminal - sum(fixed) - _PADDING * len(COLUMNS) - _BAR
    return [*fixed, max(20, rest)]


def cells(state: RowState, widths: Sequence[int]) -> list[Text]:
    """A row of the table."""
    style = "dim" if state.asking else ""
    if state.is_wrong or state.is_missing:
        style += " red"
    elif state.has_flipped:
        style += " yellow"
    texts = [
        one_line(state.row.name)[-widths[0] :],
        change_text(state),
        probability_text(state.decision),
        _remark(state),
        " ".join(content_lines(state, 4 * widths[-1])),
    ]
    made = [Text(text, style, no_wrap=True, overflow="ellipsis") for text in texts]
    for cell, width in zip(made, widths, strict=True):
        cell.truncate(width, overflow="ellipsis")
    return made


def _remark(state: RowState) -> str:
    if state.asking:
        return "asking"
    if state.is_wrong:
        return "wrong"
    return "right" if state.right is not None else ""


def detail(state: RowState, policy: Policy) -> Text:
    """A row in full: the verdict and its reason, the content, and how it came about."""
    text = Text()
    text.append(one_line(state.row.name), "bold")
    if state.asking:
        text.append(", asking", "dim")
    parts = dict(explained(state, policy))
    for name in ("label", "before", "right", "rationale"):
        _append(text, name, parts.get(name))
    text.append("\n\n" + "\n".join(content_lines(state)) + "\n")
    for name in ("scores", "reasoning"):
        _append(text, name, parts.get(name))
    return text


def _append(text: Text, name: str, part: str | None) -> None:
    if part:
        text.append(f"\n{name}: ", "bold")
        text.append(part)


def problems_text(problems: Sequence[object]) -> str:
    """What is wrong with a policy, as it may be shown."""
    lines = [line for problem in problems for line in str(problem).splitlines()]
    return "\n".join(
        one_line(line) if not line.startswith(" ") else f"    {one_line(line)}" for line in lines
    )
