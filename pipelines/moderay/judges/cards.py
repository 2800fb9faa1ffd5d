"""Cards: what was calibrated, on what, and what it promises."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field

from moderay.config.policy import POLICY_ID

CARD = "card.json"


class Features(BaseModel):
    """How a text becomes n-grams; a screen works only with those it was made with.

    `smallest` to `largest`: sizes in bytes. `bits`: 2 ** bits buckets. `version` goes up when
    folding or hash change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    smallest: int = 3
    largest: int = 5
    bits: int = 18
    version: int = 1


FEATURES = Features()


class Teacher(BaseModel):
    """Whom a screen imitates: a policy at a threshold, as labelled by a judge.

    `policy_key` identifies the policy's text and labels, `judge_key` the judge (None: people
    labelled); `source` says in words where the labels came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    policy: str = Field(pattern=f"^{POLICY_ID}$")
    threshold: float = Field(gt=0, le=1)
    policy_key: str
    judge_key: str | None = None
    source: str


class Point(BaseModel):
    """What a cut-off does on the held-out contents: shares of all contents settled, of violations
    missed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    cut_off: float
    settled: float = Field(ge=0, le=1)
    missed: float = Field(ge=0, le=1)


class Card(BaseModel):
    """What a screen is and what it promises: with `confidence`, it misses at most the share
    `max_miss` of violations.

    Counts are of distinct contents. `cut_off` is a score, in log-odds; `misses_allowed` of the
    `held_out_violations` score lower. `settled`: the share of contents that should be settled, from
    those held out. `scale` and `intercept` turn sums of weights into scores; `weights` is the
    digest of the other file. `longest`: bytes of the longest content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    teacher: Teacher
    rows: int
    violations: int
    longest: int
    held_out_rows: int
    held_out_violations: int
    max_miss: float = Field(gt=0, lt=1)
    confidence: float = Field(gt=0, lt=1)
    misses_allowed: int = Field(ge=0)
    cut_off: float
    settled: float = Field(ge=0, le=1)
    curve: tuple[Point, ...]
    scale: float = Field(gt=0)
    intercept: float
    weights: str
    features: Features
    created: date
    moderay: str
    sklearn: str


class BandCard(BaseModel):
    """A calibrated band: with `confidence`, glance misses at most the share `max_miss` of
    violations below `below`.

    `key`: the judge key of the glance that gave the probabilities. `misses_allowed` of the
    `violations` in the sample of `rows` contents lie lower. `settled`: the share of the sample that
    lies lower.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    teacher: Teacher
    key: str
    below: float = Field(ge=0, le=1)
    rows: int
    violations: int
    max_miss: float = Field(gt=0, lt=1)
    confidence: float = Field(gt=0, lt=1)
    misses_allowed: int = Field(ge=0)
    settled: float = Field(ge=0, le=1)
    created: date
