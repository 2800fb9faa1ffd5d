"""What `policy lint` and `policy show` print."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from moderay.cli.console import out, printable, show_table, table_of, warn
from moderay.core.errors import inert
from moderay.core.wording import counted

if TYPE_CHECKING:
    from moderay.tasks.policy.lint import Linted
    from moderay.tasks.policy.show import Outline


def show_linted(found: Linted, as_json: bool) -> None:
    """Findings on stdout, a line and a hint each; what does not load on stderr."""
    if as_json:
        findings = [finding.as_json() for finding in found.findings]
        problems = [asdict(problem) for problem in found.problems]
        print(json.dumps({"findings": findings, "problems": problems}, ensure_ascii=False))
        return
    for finding in found.findings:
        print("\n".join(map(inert, str(finding).split("\n"))))
    for problem in found.problems:
        warn(str(problem))
    looked = counted(found.policies, "policy", "policies")
    if found.problems:
        warn(f"{counted(len(found.problems), 'problem')}: not all of it could be looked at")
    to_do = f", {counted(found.to_do, 'thing')} to do" if found.to_do else ""
    if found.doubtful:
        print(f"{counted(found.doubtful, 'finding')} in {looked}{to_do}")
    elif not found.problems:
        print(f"{looked}: clean{to_do}")


def show_outline(seen: Outline) -> None:
    """Tokens by section, then labels with their golden cases."""
    out.print(f"{printable(f'{seen.policy} {seen.title}'.strip())}", highlight=False)
    parts = table_of(["section"], ["line", "lines", "tokens", "share"])
    for part in seen.parts:
        added = part.line is None
        parts.add_row(
            printable(f"+ {part.title}" if added else part.title),
            "" if added else str(part.line),
            f"{part.lines:,}",
            f"{part.tokens:,}",
            "" if part.share is None else f"{part.share:.0%}",
        )
    show_table(parts)
    out.print(
        f"{seen.tokens:,} tokens; {seen.prompt_tokens:,} with what moderay puts in (+)",
        highlight=False,
        soft_wrap=True,
    )
    labels = table_of(["label", "title", "side"], ["cases", "boundary"], "languages")
    for label in seen.labels:
        said = label.languages if any(label.languages) else {}
        spoken = [f"{language or 'not said'} {count:,}" for language, count in said.items()]
        labels.add_row(
            printable(label.label),
            printable(label.title),
            "violates" if label.violates else "safe",
            f"{label.cases:,}",
            f"{label.boundary:,}",
            printable(", ".join(spoken)),
        )
    show_table(labels)
    total = sum(label.cases for label in seen.labels)
    golden = counted(total, "golden case") if seen.golden else "no golden.jsonl"
    out.print(golden, highlight=False)
