"""Policies with golden sets of known make-up, for gates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from support.project import ROOT

PRIZE, QUIET = "a prize for number {}", "a quiet day, number {}"
# A word that the script of `support.scripted` takes for safe, although it violates.
SUBTLE = "subtle {}"


def cases(violating: int, safe: int, missed: int = 0, wrong: int = 0) -> list[dict[str, str]]:
    """Cases of which the scripted engine has `missed` violating and `wrong` safe ones wrong."""
    found = [PRIZE.format(i) for i in range(violating - missed)]
    found += [SUBTLE.format(i) for i in range(missed)]
    calm = [QUIET.format(i) for i in range(safe - wrong)]
    calm += [PRIZE.format(f"0{i}") for i in range(wrong)]
    return [
        *[{"content": content, "label": "SP4"} for content in found],
        *[{"content": content, "label": "SP0"} for content in calm],
    ]


def write_policy(
    folder: Path, golden: Sequence[object] | None, policy: str = "spam", text: str = ""
) -> Path:
    """A copy of the policy `spam` under another id, with a golden set of its own.

    Args:
        folder: Where it is put.
        golden: Its cases; None for no golden set.
        policy: Its id.
        text: What is added to its text.
    """
    (folder / policy).mkdir(parents=True, exist_ok=True)
    source = (ROOT / "policies/spam/policy.md").read_text().replace("id: spam", f"id: {policy}", 1)
    (folder / policy / "policy.md").write_text(source + text)
    if golden is not None:
        lines = [json.dumps(case) + "\n" for case in golden]
        (folder / policy / "golden.jsonl").write_text("".join(lines))
    return folder / policy
