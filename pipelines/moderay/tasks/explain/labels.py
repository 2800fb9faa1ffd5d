"""A policy's text and labels, from what a manifest says of its judges."""

from __future__ import annotations

from moderay.labels.manifest_record import JudgeRecord, PolicyRecord
from moderay.tasks.explain.records import LabelPart


def policy_text(policy: PolicyRecord) -> str | None:
    """The text as the model reads it; None where no model was asked."""
    return next((judge.policy for judge in reversed(policy.cascade) if judge.policy), None)


def label_sides(policy: PolicyRecord) -> dict[str, bool]:
    """Whether each label violates, mildest first; nothing where the manifest does not say it."""
    labels = next((judge.labels for judge in reversed(policy.cascade) if judge.labels), None)
    return dict(labels or {})


def label_parts(policy: PolicyRecord) -> tuple[LabelPart, ...]:
    """The labels with what they mean."""
    return tuple(
        LabelPart(label=name, title=policy.label_titles.get(name) or None, violates=violates)
        for name, violates in label_sides(policy).items()
    )


def judge_named(policy: PolicyRecord, name: str | None) -> JudgeRecord | None:
    """The judge of this name; None where there is none in the cascade."""
    return next((judge for judge in policy.cascade if judge.judge == name), None)
