"""A policy as its conversations are written: from the manifest, so that it is what was judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from moderay.config.policy import Policy
from moderay.core.errors import UserError, nearest
from moderay.core.storage import shown
from moderay.engines.harmony.prompt import instructions
from moderay.labels.manifest_record import JudgeRecord, Manifest


@dataclass(frozen=True)
class TaughtPolicy:
    """What a model is asked under one policy.

    Attributes:
        id: Of the policy.
        instructions: Its text with the answer format, as the model reads it.
        labels: Whether each label violates, mildest first.
        answer: The form of the answer.
        effort: How much the model that labelled was to reason.
        window: Tokens of the longest content that is judged in one piece; None: not known.
    """

    id: str
    instructions: str
    labels: Mapping[str, bool]
    answer: Literal["label", "rationale"]
    effort: Literal["low", "medium", "high"]
    window: int | None


def taught_policies(manifest: Manifest, url: str, asked: tuple[str, ...]) -> list[TaughtPolicy]:
    """The policies to export, in the order of the labels.

    Args:
        manifest: Of the output.
        url: Of the output, for messages.
        asked: Ids. None of them: all that a model was asked about.

    Raises:
        UserError: The output has no such policy, or no model was asked about one.
    """
    for name in asked:
        if name not in manifest.policies:
            hint = nearest(name, manifest.policies)
            raise UserError(f"--policy {name}: {shown(url)} has no such policy: {hint}")
    found = []
    for name, policy in manifest.policies.items():
        if asked and name not in asked:
            continue
        if policy.asked is not None:
            found.append(_taught(name, policy.asked))
        elif name in asked:
            raise UserError(f"--policy {name}: no model was asked about it, so none can be taught")
    if not found:
        raise UserError(f"{shown(url)}: no model was asked about any of its policies")
    return found


def _taught(name: str, judge: JudgeRecord) -> TaughtPolicy:
    more = judge.model_extra or {}
    window = more.get("windows", {}).get("tokens")
    return TaughtPolicy(
        name,
        judge.policy or "",
        dict(judge.labels or {}),
        "label" if judge.answer == "label" else "rationale",
        more.get("effort", "low"),
        window,
    )


def assert_same(taught: TaughtPolicy, policy: Policy, folder: str) -> None:
    """Raises `UserError` where a policy's folder is not what the labels were judged by."""
    labels = {name: label.violates for name, label in policy.labels.items()}
    if instructions(policy) != taught.instructions or labels != dict(taught.labels):
        raise UserError(
            f"{folder}: its text or labels are not those that the labels were judged by; run the "
            "job again, or leave --job out to export the reviews alone"
        )
