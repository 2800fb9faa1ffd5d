"""Policies for lint: one that is clean, and ways to spoil it."""

import json
from collections.abc import Sequence
from pathlib import Path

LABELS = {
    "SP0": "{violates: false, title: Not spam}",
    "SP2": "{violates: true, title: Unwanted promotion}",
    "SP4": "{violates: true, title: Deceptive or malicious}",
}
_NOUNS = ("boat", "garden", "violin", "ladder", "mirror", "candle", "teapot", "blanket")
_TOWNS = ("Elmswick", "Harbour Point", "Mill Street", "the old station", "North Quay")


def different(count: int) -> list[str]:
    """Contents no two of which are alike."""
    return [
        f"{_TOWNS[i // 8 % 5]} {i * 7919} {_NOUNS[i % 8]} {chr(97 + i % 26) * 9}"
        for i in range(count)
    ]


def cases(count: int = 42) -> list[dict[str, object]]:
    """Golden cases of all labels in turn."""
    names = list(LABELS)
    return [
        {"content": content, "label": names[i % len(names)]}
        for i, content in enumerate(different(count))
    ]


def write_golden(folder: Path, golden: Sequence[dict[str, object]]) -> None:
    """A golden set, a line each."""
    lines = [json.dumps(case, ensure_ascii=False) + "\n" for case in golden]
    (folder / "golden.jsonl").write_text("".join(lines))


def front_matter(labels: dict[str, str], policy: str = "spam") -> str:
    """Between two lines of ---."""
    named = "".join(f"  {name}: {label}\n" for name, label in labels.items())
    return f"---\nid: {policy}\nlabels:\n{named}---\n"
