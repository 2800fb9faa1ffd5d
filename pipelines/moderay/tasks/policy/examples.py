"""The examples that a policy's text gives the model: what is judged, and the label it gets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moderay.tasks.policy.source import Line, PolicySource

_OPENED, _CLOSED = "[\"'“”„«]", "[\"'“”»]"
# What begins another example: a list's mark, a row of a table, a quotation, a key.
_BEGINS = re.compile(
    rf"\s*(?:[-*+|]|\d+[.)])\s|\s*{_OPENED}|\s*(?:content|text|input|example)\s*:", re.IGNORECASE
)
# Characters; what is longer is no example in one of these forms.
_LONGEST = 4000
_LINK = r"\s*(?:is|are|gets|->|=>|→|⇒|=|:|\||–|—|-)+\s*"


@dataclass(frozen=True)
class Example:
    """One of them.

    Attributes:
        line: Where it begins.
        text: What is judged.
        label: One of the policy's.
    """

    line: int
    text: str
    label: str


def examples(source: PolicySource) -> list[Example]:
    """Those that are written in one of the usual forms, in order.

    They are `"text" is LABEL: why`, with an arrow, a colon or the bar of a table for `is`, and
    `Content: text`, with `Label: LABEL` below it.
    """
    names = sorted(map(re.escape, source.policy.label_names), key=len, reverse=True)
    label = rf"(?:label\s*:?\s*)?[`*\"“]*(?P<label>{'|'.join(names)})(?![\w-])"
    quoted = re.compile(
        rf"\W{{0,12}}(?:\d+[.)]\s+)?\W{{0,8}}?{_OPENED}(?P<text>.+?){_CLOSED}[.`*]*{_LINK}{label}",
        re.IGNORECASE | re.DOTALL,
    )
    keyed = re.compile(
        rf"\W{{0,12}}(?:content|text|input|example)\s*:(?P<text>.+?)\n\W{{0,12}}"
        rf"(?:label|answer|output|classification|verdict)\W{{0,8}}?{label}",
        re.IGNORECASE | re.DOTALL,
    )
    found = []
    for number, text in _items(source.examples_lines):
        if len(text) > _LONGEST:
            continue
        match = keyed.match(text) or quoted.match(text)
        exact = match and match["label"] in source.policy.labels
        if match and exact:
            found.append(Example(number, match["text"].strip("\"'“” \n"), match["label"]))
    return found


def _items(lines: Sequence[Line]) -> Iterator[Line]:
    """Where each begins, and all of its lines."""
    item: list[str] = []
    begun = 0
    for number, text in lines:
        if item and (not text.strip() or _BEGINS.match(text)):
            yield begun, "\n".join(item)
            item = []
        if text.strip():
            begun = begun if item else number
            item.append(text)
    if item:
        yield begun, "\n".join(item)
