"""What each judge says of each content, as columns: of these every cascade is computed.

A cascade's verdict on a content is a function of what its judges say of it, so each judge is asked
once, and thousands of cascades are tried on what it said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from moderay.judges.glance import Band


@dataclass(frozen=True)
class Answers:
    """What one judge on an engine says of contents; each array is as long as there are contents.

    Attributes:
        probability: float32: P(violates); NaN where it gives no verdict.
        prompt_tokens: int64: of all its windows' prompts.
        cached_tokens: int64: those of them that are the policy's, which the prefix cache holds.
        output_tokens: int64: that it writes.
    """

    probability: np.ndarray
    prompt_tokens: np.ndarray
    cached_tokens: np.ndarray
    output_tokens: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """What an engine computes: prompts beyond the policy's part, and what it writes."""
        return np.asarray(self.prompt_tokens - self.cached_tokens + self.output_tokens)

    def at(self, rows: np.ndarray) -> Answers:
        """Those contents: positions, or a mask."""
        return Answers(
            self.probability[rows],
            self.prompt_tokens[rows],
            self.cached_tokens[rows],
            self.output_tokens[rows],
        )


# What is kept of a judge's verdict on a content.
ANSWERS = pa.schema(
    [
        pa.field("judge", pa.string(), nullable=False),
        pa.field("judge_key", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("probability", pa.float32()),
        pa.field("windows", pa.int32()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("output_tokens", pa.int32()),
    ]
)


def answers(rows: pa.Table, prefix: int) -> Answers:
    """One judge's verdicts as columns.

    Args:
        rows: Of `ANSWERS`.
        prefix: Tokens of a prompt that are the policy's.
    """
    prompts = _counts(rows.column("prompt_tokens"))
    probability = rows.column("probability").to_numpy(zero_copy_only=False)
    return Answers(
        np.asarray(probability, np.float32),
        prompts,
        # An endpoint may count tokens in its own way.
        np.minimum(_counts(rows.column("windows")) * prefix, prompts),
        _counts(rows.column("output_tokens")),
    )


def _counts(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), np.int64)


@dataclass(frozen=True)
class GoldColumns:
    """Contents of which it is known whether they violate, and what each judge says of them.

    Attributes:
        violates: Bool: what is known.
        by_rules: float32: P(violates) as rules settle it, 0 or 1; NaN where they pass on.
        screened: float32: the screen's score; NaN where it never settles. None without a screen.
        glance: By effort.
        reason: By effort.
    """

    violates: np.ndarray
    by_rules: np.ndarray
    screened: np.ndarray | None
    glance: Mapping[str, Answers]
    reason: Mapping[str, Answers]

    def __len__(self) -> int:
        """Contents."""
        return len(self.violates)

    def at(self, rows: np.ndarray) -> GoldColumns:
        """Those contents: positions, or a mask."""
        return GoldColumns(
            self.violates[rows],
            self.by_rules[rows],
            None if self.screened is None else self.screened[rows],
            {effort: each.at(rows) for effort, each in self.glance.items()},
            {effort: each.at(rows) for effort, each in self.reason.items()},
        )


@dataclass(frozen=True)
class Shape:
    """A cascade without its threshold.

    Attributes:
        effort: Of glance and reason.
        cut_off: Of the screen: it settles what scores lower. None: no screen.
        band: What glance is sure of; None: no glance. Without edges it is the last judge.
    """

    effort: str
    cut_off: float | None = None
    band: Band | None = None

    @property
    def reasons(self) -> bool:
        """Whether the last judge is reason."""
        return self.band != Band()


@dataclass(frozen=True)
class Outcome:
    """What a cascade makes of contents.

    Attributes:
        probability: float32: P(violates) of the verdict that stands; NaN where there is none, and
            where the screen settled.
        screened: Bool: what the screen settled.
        prompt_tokens: int64: of all judges that were asked.
        cached_tokens: int64: of these, what the prefix cache holds: the policy's, and for reason
            all that glance has read before it.
        output_tokens: int64.
    """

    probability: np.ndarray
    screened: np.ndarray
    prompt_tokens: np.ndarray
    cached_tokens: np.ndarray
    output_tokens: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """As `Answers.tokens`."""
        return np.asarray(self.prompt_tokens - self.cached_tokens + self.output_tokens)

    def violates(self, threshold: float) -> np.ndarray:
        """Bool: what is flagged; never what has no verdict."""
        return np.asarray(self.probability >= np.float32(threshold))


def outcome(columns: GoldColumns, shape: Shape) -> Outcome:
    """What a cascade makes of contents, as running it would."""
    probability = columns.by_rules.copy()
    left = np.isnan(probability)
    screened = np.zeros(len(columns), bool)
    if shape.cut_off is not None and columns.screened is not None:
        screened = left & (columns.screened < np.float32(shape.cut_off))
        left = left & ~screened
    asked: list[tuple[Answers, np.ndarray]] = []
    if shape.band is not None:
        glance = columns.glance[shape.effort]
        asked.append((glance, left))
        # As the judge compares: in double precision.
        sure = shape.band.settles(glance.probability.astype(np.float64))
        settled = left & sure if shape.reasons else left
        probability[settled] = glance.probability[settled]
        left = left & ~settled
    if shape.reasons:
        reason = columns.reason[shape.effort]
        if shape.band is not None:
            # Glance has just read the very prompt: all of it is in the prefix cache.
            reason = replace(reason, cached_tokens=reason.prompt_tokens)
        asked.append((reason, left))
        probability[left] = reason.probability[left]
    return Outcome(
        probability,
        screened,
        _spent(asked, "prompt_tokens", len(columns)),
        _spent(asked, "cached_tokens", len(columns)),
        _spent(asked, "output_tokens", len(columns)),
    )


def _spent(asked: Sequence[tuple[Answers, np.ndarray]], name: str, rows: int) -> np.ndarray:
    total = np.zeros(rows, np.int64)
    for judge, of in asked:
        total += np.where(of, getattr(judge, name), 0)
    return total
