"""`run --limit --show`: the first rows, judged, with what one needs to judge the judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moderay.cli.console import err, libraries_in_file, out, tell
from moderay.cli.row_text import HEADINGS, paragraph, title_of
from moderay.core.verdicts import Status
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.config.policy import Policy
    from moderay.pipeline.check import Checked

# Tokens of a content that are shown.
EXCERPT = 100


def judge_and_show(checked: Checked, limit: int, show: bool, as_json: bool, quiet: bool) -> None:
    """Judge the first rows here and now, without the output, and print them."""
    from moderay.tasks.quick_look import judge_first_rows

    if not quiet:
        model = checked.job.model
        tell(f"judging here, with {model.source if model.endpoint is None else model.endpoint}")
    with libraries_in_file():
        rows = sorted(judge_first_rows(checked, limit, EXCERPT), key=_urgency)
    for row in rows if as_json or show else ():
        if as_json:
            print(json.dumps(_record(row, checked.policies), ensure_ascii=False))
        else:
            _show(row, checked.policies)
    if quiet:
        return
    flagged = sum(bool(row["flagged"]) for row in rows)
    end = f"{counted(len(rows), 'row')} judged, {flagged:,} flagged, nothing written"
    (err if as_json else out).print(end)


def _urgency(row: dict[str, Any]) -> tuple[int, float]:
    """Flagged rows first, then those of which it is not known; by the highest P."""
    verdicts = [value for value in row.values() if isinstance(value, dict)]
    highest = max((verdict["probability"] or 0.0 for verdict in verdicts), default=0.0)
    return list(HEADINGS).index(row["flagged"]), -highest


def _record(row: dict[str, Any], policies: tuple[Policy, ...]) -> dict[str, Any]:
    """A row for other programs."""
    names = ("status", "violates", "label", "title", "probability", "rationale", "reasoning")
    verdicts = {
        policy.id: {**row[policy.id], "title": title_of(row[policy.id]["label"], policy)}
        for policy in policies
    }
    return {
        **{name: row[name] for name in ("file", "row", "flagged")},
        "content": _content(row),
        "policies": {
            policy: {name: verdict[name] for name in names} | {"detail": verdict["trace"]["detail"]}
            for policy, verdict in verdicts.items()
        },
    }


def _show(row: dict[str, Any], policies: tuple[Policy, ...]) -> None:
    """A row as a few lines, of which none is cut."""
    heading = f"{HEADINGS[row['flagged']]}: {row['file']} row {row['row']}"
    paragraph(heading, 0, "bold red" if row["flagged"] else "bold")
    paragraph(_content(row) or "(no content)", 1)
    for policy in policies:
        for number, line in enumerate(_verdict(row, policy)):
            paragraph(line, 1 + min(number, 1), "red" if row[policy.id]["violates"] else "")


def _verdict(row: dict[str, Any], policy: Policy) -> Iterator[str]:
    """The verdict in a line, and why in another."""
    verdict = row[policy.id]
    if verdict["status"] != Status.OK:
        yield f"{policy.id}: {verdict['status']}"
        if detail := verdict["trace"]["detail"]:
            yield detail
        return
    p = "" if verdict["probability"] is None else f", P {verdict['probability']:.2f}"
    yield f"{policy.id}: {verdict['label']} {title_of(verdict['label'], policy) or ''}".rstrip() + p
    if verdict["rationale"]:
        yield verdict["rationale"]


def _content(row: dict[str, Any]) -> str:
    return " ".join(row["text"].split()) + (" ..." if row["is_cut"] else "")
