"""What an evaluation found, before it is shown or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from moderay.config.policy import Policy
from moderay.judges.calibration import CalibrationCard
from moderay.tasks.evaluate.judged import JudgedRows
from moderay.tasks.evaluate.tally import Tally, counts, or_last
from moderay.tasks.gold import UNKNOWN


@dataclass(frozen=True)
class Votes:
    """What each of several people said of rows, and what the labels say.

    Attributes:
        people: int8, rows x people: 1, 0 or `UNKNOWN`.
        said: int8, rows: the same of the labels.
    """

    people: np.ndarray
    said: np.ndarray


@dataclass(frozen=True)
class PolicyEvaluation:
    """One policy's labels beside what people said.

    Attributes:
        policy: The policy.
        whole: Of all rows.
        slices: By column and its value.
        votes: Of several people, where the gold has them.
        note: What figures speak of, where it is not plain; a sentence.
        calibration: How P of reason was read, where it was.
    """

    policy: Policy
    whole: Tally
    slices: Mapping[str, Mapping[str, Tally]]
    votes: Votes | None = None
    note: str | None = None
    calibration: CalibrationCard | None = None


@dataclass(frozen=True)
class Evaluation:
    """Labels beside what people said.

    Attributes:
        policies: In the job's order.
        exact: Rows on which every policy is right, and rows of which people said all.
        flagged: int64, 2 x 3, as `Tally.sides`: whether any policy is violated.
        disagreements: The worst rows in which they differ, of `disagreements.SCHEMA`.
    """

    policies: tuple[PolicyEvaluation, ...]
    exact: tuple[int, int]
    flagged: np.ndarray
    disagreements: pa.Table


def any_sides(policies: Sequence[JudgedRows]) -> np.ndarray:
    """Rows by whether people and judges say that any policy is violated, as `Tally.sides`.

    Where none is known to be violated, all must be known not to be.
    """
    gold = _any([rows.gold for rows in policies])
    said = _any([rows.violates for rows in policies])
    known = gold != UNKNOWN
    return counts((2, 3), gold[known], or_last(said[known], 2))


def _any(sides: Sequence[np.ndarray]) -> np.ndarray:
    table = np.stack(sides)
    return np.where((table == 1).any(axis=0), 1, table.min(axis=0))


def exact_matches(policies: Sequence[JudgedRows]) -> np.ndarray:
    """Rows on which every policy is on the right side, and rows of which people said all.

    A row without a verdict under some policy is not right.
    """
    known = np.logical_and.reduce([rows.is_known for rows in policies])
    right = np.logical_and.reduce([rows.violates == rows.gold for rows in policies])
    return np.array([(known & right).sum(), known.sum()], np.int64)
