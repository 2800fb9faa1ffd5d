"""Where gold stands: in the job's input, or in reviews of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from moderay.config.job import Gold
from moderay.config.policy import Policy
from moderay.config.sections.gold import REVIEWS
from moderay.core.errors import UserError
from moderay.corpus.shard import Shard
from moderay.pipeline.check import Checked
from moderay.tasks.gold import GoldAnswers, gold_answers
from moderay.tasks.input_rows import column_names
from moderay.tasks.review_gold import EACH_ONCE, PICKED, ReviewGold, review_gold, reviewed_rows


class GoldReader(Protocol):
    """What people said of the rows of a job's input, under one policy."""

    @property
    def source(self) -> str:
        """Where it stands, in words."""

    @property
    def note(self) -> str | None:
        """What figures speak of, where it is not plain."""

    def of(self, shard: Shard) -> GoldAnswers:
        """What people said of a shard's rows. Each shard is asked about once, in their order.

        Raises:
            UserError: It cannot be read.
        """


@dataclass(frozen=True)
class _Column:
    checked: Checked
    policy: Policy
    gold: Gold
    named: str
    note: str | None = None

    @property
    def source(self) -> str:
        return f"{self.gold.column} in the input"

    def of(self, shard: Shard) -> GoldAnswers:
        return gold_answers(self.checked, shard, self.policy, self.gold, self.named)


@dataclass(frozen=True)
class _Reviews:
    checked: Checked
    found: ReviewGold
    source: str
    note: str | None

    def of(self, shard: Shard) -> GoldAnswers:
        return reviewed_rows(self.checked, shard, self.found)


def gold_reader(
    checked: Checked, policy: Policy, gold: Gold | Literal["reviews"], named: str
) -> GoldReader:
    """What reads gold, each row counting for what it stands for.

    Args:
        checked: The job and its input.
        policy: The policy it is about.
        gold: Where it stands.
        named: What messages call it.

    Raises:
        UserError: There are no reviews.
    """
    if isinstance(gold, Gold):
        return _Column(checked, policy, gold, named)
    found = review_gold(checked, policy)
    return _Reviews(checked, found.sample(), found.source, found.told)


def gold_reader_for_promises(
    checked: Checked, policy: Policy, gold: Gold | Literal["reviews"], named: str
) -> GoldReader:
    """As `gold_reader`, each content counting once: exact promises know no weights."""
    if isinstance(gold, Gold):
        return _Column(checked, policy, gold, named)
    found = review_gold(checked, policy)
    note = EACH_ONCE if found.is_drawn.any() else PICKED
    return _Reviews(checked, found.each_once(), f"{found.source}; {note}", note)


def gold_option(checked: Checked, text: str) -> Gold | Literal["reviews"]:
    """Gold as the command line has it: `reviews`, a column, or a condition over columns.

    Raises:
        UserError: A column of the input has the name that stands for reviews.
    """
    if text != REVIEWS:
        return Gold(column=text)
    for shard in checked.scan.shards:
        if REVIEWS in column_names(checked, shard):
            raise UserError(
                f"--gold {REVIEWS}: these are what people said with moderay review, and "
                f"{shard.file} has a column of this name: say it as a condition, such as "
                f'"{REVIEWS} = true"'
            )
    return REVIEWS
