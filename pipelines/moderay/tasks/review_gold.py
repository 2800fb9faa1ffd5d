"""Reviews of a job's output as gold: what people said of contents, wherever these stand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.config.policy import Policy
from moderay.core.errors import UserError
from moderay.core.storage import RemoteFile, plain_errors, shown
from moderay.core.verdicts import CONTENT_HASH, ROW
from moderay.core.wording import are, counted, was
from moderay.corpus.shard import Shard
from moderay.labels.corrections import Correction, ReviewedPolicy, corrections
from moderay.labels.layout import Layout
from moderay.labels.prevalence_store import read_plans
from moderay.labels.review_records import Review
from moderay.labels.reviews import ReviewStore, standing
from moderay.pipeline.check import Checked
from moderay.tasks.gold import UNKNOWN, GoldAnswers

PICKED = "picked, not drawn: figures speak of these rows alone"
EACH_ONCE = "drawn with unequal chances, each counted once: figures speak of these rows alone"


@dataclass
class ReviewGold:
    """What people said of contents under one policy's text of today.

    A content counts once, in the first row in which it is met: copies are no further evidence.

    Attributes:
        hashes: Of the contents, rising.
        violates: int8, as `GoldAnswers.violates`.
        label: int16, as `GoldAnswers.label`.
        votes: int8, contents x people; None where one person answered.
        people: Who answered, as `votes` has them.
        weights: float64: for how many rows each content stands that a plan drew; NaN for others.
        source: Where they are, in words.
    """

    hashes: pa.Array
    violates: np.ndarray
    label: np.ndarray
    votes: np.ndarray | None
    people: tuple[str, ...]
    weights: np.ndarray
    source: str
    _met: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """No content was met."""
        self._met = np.zeros(len(self.hashes), bool)

    @property
    def is_drawn(self) -> np.ndarray:
        """Bool: which contents a plan drew."""
        return np.asarray(~np.isnan(self.weights))

    def sample(self) -> ReviewGold:
        """Those that say something of all rows: the drawn ones; where there are none, all."""
        if not self.is_drawn.any():
            return replace(self, weights=np.ones(len(self.hashes)))
        return replace(
            self,
            hashes=self.hashes.filter(pa.array(self.is_drawn)),
            violates=self.violates[self.is_drawn],
            label=self.label[self.is_drawn],
            votes=None if self.votes is None else self.votes[self.is_drawn],
            weights=self.weights[self.is_drawn],
        )

    def each_once(self) -> ReviewGold:
        """All of them, each content for itself."""
        return replace(self, weights=np.ones(len(self.hashes)))

    @property
    def told(self) -> str:
        """What figures of `sample` speak of, and who is who among several people."""
        names = [f"{number} {name}" for number, name in enumerate(self.people, start=1)]
        who = "" if self.votes is None else f"; people: {', '.join(names)}"
        return self._sample_told + who

    @property
    def _sample_told(self) -> str:
        drawn = int(self.is_drawn.sum())
        if not drawn:
            return PICKED
        told = (
            f"{counted(drawn, 'content')} that a plan drew, each for the rows that it stands for: "
            f"figures speak of all {self.weights[self.is_drawn].sum():,.0f} rows it was drawn from"
        )
        if left := len(self.hashes) - drawn:
            told += f"; {counted(left, 'content')} that {was(left)} picked {are(left)} left out"
        return told

    def answers(self, hashes: pa.Array) -> GoldAnswers:
        """What people said of the next rows, by the hashes of their contents."""
        found = pc.index_in(hashes, self.hashes, skip_nulls=True)
        places = found.fill_null(UNKNOWN).to_numpy(zero_copy_only=False)
        met, rows = np.unique(places, return_index=True)
        is_new = (met != UNKNOWN) & ~self._met[met]
        met, rows = met[is_new], rows[is_new]
        self._met[met] = True
        return GoldAnswers(
            _spread(self.violates, met, rows, len(places)),
            _spread(self.label, met, rows, len(places)),
            None if self.votes is None else _spread(self.votes, met, rows, len(places)),
            _spread(self.weights, met, rows, len(places), 1.0),
        )


def _spread(
    values: np.ndarray, met: np.ndarray, rows: np.ndarray, length: int, other: float = UNKNOWN
) -> np.ndarray:
    """Those values at those rows, and another one everywhere else."""
    spread = np.full((length, *values.shape[1:]), other, values.dtype)
    spread[rows] = values[met]
    return spread


def review_gold(checked: Checked, policy: Policy) -> ReviewGold:
    """The reviews of the job's output under a policy.

    Raises:
        UserError: Nobody has said anything under the policy's text of today.
        RecordRefusedError: A review cannot be read.
    """
    layout = Layout(checked.job.output.path, checked.job.storage)
    with plain_errors(layout.url):
        reviews = ReviewStore(layout).read()
    made = corrections(reviews, {policy.id: ReviewedPolicy.of(policy)})
    decided = made.by_policy[policy.id]
    if not decided:
        void = f" ({counted(len(made.void), 'answer')} to another text)" if made.void else ""
        raise UserError(
            f"{shown(layout.url)} has no review under policy {policy.id!r} as it reads today{void}:"
            f" moderay review {shown(layout.url)}"
        )
    disputed = [content for name, content in made.disputed if name == policy.id]
    said = _said(reviews, policy)
    weights = _weights(layout, policy, {content: said[content] for content in decided})
    hashes = sorted([*decided, *disputed])
    people = tuple(sorted({review.reviewer for each in said.values() for review in each}))
    labels = {name: number for number, name in enumerate(policy.labels)}
    votes = _votes([said[content] for content in hashes], people, policy)
    return ReviewGold(
        pa.array(hashes, pa.string()),
        np.array([_side(decided.get(content)) for content in hashes], np.int8),
        np.array([_label(decided.get(content), labels) for content in hashes], np.int16),
        votes if len(people) > 1 else None,
        people,
        np.array([weights.get(content, np.nan) for content in hashes]),
        f"reviews in {shown(layout.url)}",
    )


def _said(reviews: Sequence[Review], policy: Policy) -> dict[str, list[Review]]:
    """By content, the standing answers to the policy as it reads today."""
    reviewed = ReviewedPolicy.of(policy)
    own = [
        review
        for review in reviews
        if review.withdraws is not None
        or (review.policy == policy.id and review.policy_hash == reviewed.hash)
    ]
    found: dict[str, list[Review]] = {}
    for review in standing(own):
        found.setdefault(review.content_hash, []).append(review)
    return found


def _weights(
    layout: Layout, policy: Policy, said: Mapping[str, Sequence[Review]]
) -> dict[str, float]:
    """For how many rows each content stands that a plan drew, of the plan with most answers.

    In each stratum the rows that were drawn and answered stand for all. Samples of two plans
    overlap, and so those of another one count as picked.

    Args:
        layout: Of the output.
        policy: The policy.
        said: By content that is decided, its answers.
    """
    with plain_errors(layout.url):
        plans = read_plans(layout)
    of_plans: list[dict[str, float]] = [{}]
    for plan in plans:
        if plan.policy_hash != ReviewedPolicy.of(policy).hash or plan.policy != policy.id:
            continue
        drawn = [
            row
            for row in plan.rows
            if any(review.plan == plan.id for review in said.get(row.content_hash, ()))
        ]
        answered = Counter(row.stratum for row in drawn)
        weights: dict[str, float] = defaultdict(float)
        for row in drawn:
            weights[row.content_hash] += plan.strata[row.stratum].rows / answered[row.stratum]
        of_plans.append(weights)
    return max(of_plans, key=len)


def _side(correction: Correction | None) -> int:
    return UNKNOWN if correction is None else int(correction.violates)


def _label(correction: Correction | None, labels: dict[str, int]) -> int:
    return UNKNOWN if correction is None else labels[correction.label]


def _votes(said: Sequence[Sequence[Review]], people: Sequence[str], policy: Policy) -> np.ndarray:
    """int8, contents x people: whether each says that it violates."""
    column = {person: number for number, person in enumerate(people)}
    votes = np.full((len(said), len(people)), UNKNOWN, np.int8)
    for row, reviews in enumerate(said):
        for review in reviews:
            if review.label is not None and review.label in policy.labels:
                votes[row, column[review.reviewer]] = policy.labels[review.label].violates
    return votes


def reviewed_rows(checked: Checked, shard: Shard, gold: ReviewGold) -> GoldAnswers:
    """What people said of a shard's rows, by its label file; nothing where there is none.

    Args:
        checked: The job and its input.
        shard: A shard of it.
        gold: The reviews.
    """
    layout = Layout(checked.job.output.path, checked.job.storage)
    rows, hashes = np.empty(0, np.int64), pa.array([], pa.string())
    with plain_errors(layout.url):
        if layout.fs.exists(layout.label(shard.name)):
            remote = RemoteFile(layout.fs, layout.label(shard.name))
            with pq.ParquetFile(remote, pre_buffer=True) as file:
                labels = file.read(columns=[ROW.name, CONTENT_HASH.name])
            rows = labels.column(ROW.name).to_numpy()
            hashes = labels.column(CONTENT_HASH.name).combine_chunks()
    return _in_shard(gold.answers(hashes), rows, shard.rows)


def _in_shard(answers: GoldAnswers, rows: np.ndarray, length: int) -> GoldAnswers:
    """Answers on some rows of a shard as answers on all of them."""
    length = max(length, int(rows.max(initial=-1)) + 1)
    every = np.arange(len(rows))
    return GoldAnswers(
        _spread(answers.violates, every, rows, length),
        _spread(answers.label, every, rows, length),
        None if answers.votes is None else _spread(answers.votes, every, rows, length),
        None if answers.weights is None else _spread(answers.weights, every, rows, length, 1.0),
    )
