"""A policy's folder as reviews are held against it."""

from __future__ import annotations

from moderay.config.policy import Policy
from moderay.engines.harmony.prompt import instructions
from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.review_records import policy_hash


def reviewed_policy(policy: Policy) -> ReviewedPolicy:
    """The hash that an output's manifest gives of the same policy, and its labels."""
    labels = {name: label.violates for name, label in policy.labels.items()}
    return ReviewedPolicy(policy_hash(instructions(policy), labels), labels)
