"""Which labels a published policy has: their sides, their order, their titles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from moderay.config.policy import Label
from moderay.core.errors import Problem, Problems
from moderay.tasks.policy.importing.found import FoundCase, not_placed

_SAFE = frozenset(
    "0 no false safe valid ok okay benign clean allowed acceptable fine ham harmless legit "
    "legitimate neutral none normal negative".split()
)
_SAFE_BEGIN = re.compile(r"(?:not|non)[_.-]|no_", re.IGNORECASE)
_ZERO = re.compile(r".*\D0")
_BINARY = {
    "0": Label(violates=False, title="Safe"),
    "1": Label(violates=True, title="Violates"),
}
_LONGEST_TITLE = 60


def policy_labels(
    cases: Sequence[FoundCase], text: str, ordered: bool, where: str
) -> dict[str, Label]:
    """The labels of cases, the safe ones first.

    A label is safe by its name (safe, valid, not_..., SP0); where none is, the first one is.

    Args:
        cases: What was found.
        text: The policy's, in which titles are looked for.
        ordered: Whether the cases' labels come from the mildest on; else the order of their names
            is theirs.
        where: What is told of.

    Raises:
        Problems: They are all of one side, or there are none.
    """
    written = {case.label: case.label_title for case in reversed(cases)}
    if set(written) <= set(_BINARY):
        return dict(_BINARY)
    names = list(dict.fromkeys(case.label for case in cases))
    if not ordered:
        names.sort(key=_natural)
    safe = {name for name in names if _is_safe(name)} or {names[0]}
    if len(safe) == len(names):
        message = f"cases of one side only: {', '.join(names)}"
        hint = "a policy needs a label that violates and one that does not: add a case of the other"
        raise Problems([Problem(where, None, message, hint)])
    in_order = [*filter(safe.__contains__, names), *(name for name in names if name not in safe)]
    return {
        name: Label(violates=name not in safe, title=_title(name, written[name], text))
        for name in in_order
    }


def front_labels(
    front: Mapping[str, Any], file: str
) -> tuple[dict[str, Label] | None, list[Problem]]:
    """The labels of a front matter that has them as moderay does, or why they are not taken."""
    if "labels" not in front:
        return None, []
    try:
        labels = {str(name): Label.model_validate(v) for name, v in front["labels"].items()}
    except (AttributeError, ValidationError):
        return None, [not_placed(file, 1, "labels: no names with violates and title")]
    if {label.violates for label in labels.values()} != {True, False}:
        return None, [not_placed(file, 1, "labels: all of them are of one side")]
    return labels, []


def _is_safe(name: str) -> bool:
    return bool(name.lower() in _SAFE or _SAFE_BEGIN.match(name) or _ZERO.fullmatch(name))


def _natural(name: str) -> list[tuple[int, str]]:
    """S2 before S10."""
    parts: Iterable[str] = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (0, part.lower()) for part in parts]


def _title(name: str, written: str, text: str) -> str:
    """What the text calls a label: before `(SP2`, or behind `SP2:`; else as it was written."""
    label = re.escape(name)
    before = re.search(rf"^\W*(\w[^(\n]*?)\s*\({label}\b", text, re.MULTILINE)
    behind = re.search(
        rf"^\W*{label}\W*?\s*[,:–—-]\s*(\w[^.;\n]*?)\W*$",
        text,
        re.MULTILINE,
    )
    match = before or behind
    title = match[1] if match else written if written != name else ""
    title = "".join(letter for letter in " ".join(title.split()) if letter.isprintable())
    return title if len(title) <= _LONGEST_TITLE else ""
