"""What an evaluation found, before it is shown or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from moderay.config.policy import Policy
from moderay.tasks.evaluate.judged import JudgedRows
from moderay.tasks.evaluate.tally import Tally


@dataclass(frozen=True)
class PolicyEvaluation:
    """One policy's labels beside what people said.

    Attributes:
        policy: The policy.
        whole: Of all rows.
        slices: By column and its value.
    """

    policy: Policy
    whole: Tally
    slices: Mapping[str, Mapping[str, Tally]]


@dataclass(frozen=True)
class Evaluation:
    """Labels beside what people said.

    Attributes:
        policies: In the job's order.
        exact: Rows on which every policy is right, and rows of which people said all.
        disagreements: The worst rows in which they differ, of `disagreements.SCHEMA`.
    """

    policies: tuple[PolicyEvaluation, ...]
    exact: tuple[int, int]
    disagreements: pa.Table


def exact_matches(policies: Sequence[JudgedRows]) -> np.ndarray:
    """Rows on which every policy is on the right side, and rows of which people said all.

    A row without a verdict under some policy is not right.
    """
    known = np.logical_and.reduce([rows.is_known for rows in policies])
    right = np.logical_and.reduce([rows.violates == rows.gold for rows in policies])
    return np.array([(known & right).sum(), known.sum()], np.int64)
