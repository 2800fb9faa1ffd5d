"""A policy's labels and judges, from what a manifest says of them."""

from __future__ import annotations

from moderay.labels.manifest_record import JudgeRecord, PolicyRecord
from moderay.tasks.explain.records import LabelPart


def label_parts(policy: PolicyRecord) -> tuple[LabelPart, ...]:
    """The labels with what they mean."""
    return tuple(
        LabelPart(label=name, title=policy.label_titles.get(name) or None, violates=violates)
        for name, violates in policy.sides.items()
    )


def judge_named(policy: PolicyRecord, name: str | None) -> JudgeRecord | None:
    """The judge of this name; None where there is none in the cascade."""
    return next((judge for judge in policy.cascade if judge.judge == name), None)
