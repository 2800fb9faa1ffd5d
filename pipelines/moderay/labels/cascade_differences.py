"""What differs between two cascades, and between two outputs, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moderay.labels.manifest_record import JudgeRecord, Manifest, PolicyRecord


def cascade_differences(
    policy: str, there: Sequence[JudgeRecord], here: Sequence[JudgeRecord]
) -> list[str]:
    """What of a policy's judges was otherwise, such as `spam: budget was 512, is 64`.

    Args:
        policy: Its id.
        there: The judges as they were.
        here: The judges as they are.
    """
    # As they stand in a file, so that those of a job compare with those of a manifest.
    judges = [[judge.model_dump(mode="json") for judge in cascade] for cascade in (there, here)]
    names = [", ".join(judge["judge"] for judge in cascade) for cascade in judges]
    if names[0] != names[1]:
        return [f"{policy}: judges were {names[0]}, are {names[1]}"]
    differing = []
    for before, now in zip(*judges, strict=True):
        of = f"{now['judge']} " if len(here) > 1 else ""
        differing += [
            f"{policy}: {of}{field}{_both(before.get(field), now[field])}"
            for field in now
            if now[field] != before.get(field)
        ]
    return list(dict.fromkeys(differing))


def output_differences(a: Manifest, b: Manifest, policies: Sequence[str]) -> list[str]:
    """What was otherwise in output a: which rows were judged, and for each policy by whom."""
    differing = [
        f"input.{name}{_both(before, now)}"
        for name, before, now in _pairs(a.selection.model_dump(), b.selection.model_dump())
    ]
    for name, before, now in _policies(a, b, policies):
        differing += policy_differences(name, before, now)
    return differing


def policy_differences(policy: str, there: PolicyRecord, here: PolicyRecord) -> list[str]:
    """What of a policy was otherwise: its version and threshold, and its judges."""
    fields = {"version", "threshold"}
    pairs = _pairs(there.model_dump(include=fields), here.model_dump(include=fields))
    return [
        *[f"{policy}: {name} was {before:g}, is {now:g}" for name, before, now in pairs],
        *cascade_differences(policy, there.cascade, here.cascade),
    ]


def _pairs(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, there[name], here[name]) for name in here if there[name] != here[name]]


def only_thresholds_differ(a: Manifest, b: Manifest, policies: Sequence[str]) -> bool:
    """Whether the same judges judged the same rows, and a threshold alone is another one."""
    pairs = _policies(a, b, policies)
    return (
        a.selection == b.selection
        and all(before.cascade == now.cascade for _, before, now in pairs)
        and any(before.threshold != now.threshold for _, before, now in pairs)
    )


def _policies(
    a: Manifest, b: Manifest, names: Sequence[str]
) -> list[tuple[str, PolicyRecord, PolicyRecord]]:
    return [(name, a.policies[name], b.policies[name]) for name in names]


def _both(there: object, here: object) -> str:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = [name for name in here if here[name] != there.get(name)]
        return ", ".join(f".{name} was {there.get(name)!r}, is {here[name]!r}" for name in names)
    shown = f" was {there!r}, is {here!r}"
    return shown if len(shown) < 80 else " differs"
