"""Which contents people are asked about, and in which order: the same ones each time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from moderay.config.job import Gold, Job
from moderay.core.errors import UserError, nearest
from moderay.core.hashing import number
from moderay.core.verdicts import CONTENT_HASH, ROW, structs, valid
from moderay.labels.prevalence_store import read_plan
from moderay.labels.review_records import Queue
from moderay.pipeline.check import Checked
from moderay.tasks.gold import UNKNOWN, gold_answers
from moderay.tasks.review.items import Item, Key
from moderay.tasks.review.output import ReviewedOutput, ReviewPolicy
from moderay.tasks.review.scan import SCANNED, label_columns, scan

# What is asked about where nobody says it: all that an output tells by itself.
DEFAULT = SCANNED
# What is drawn by a plan comes first, since only then it counts; then what is rarest.
_ORDER: tuple[Queue, ...] = (
    "prevalence",
    "gold",
    "disagreement",
    "audit",
    "borderline",
    "flagged",
    "safe",
)


@dataclass(frozen=True)
class Wanted:
    """Which contents are wanted.

    Attributes:
        queues: Names.
        most: Of each queue and policy; of a plan all are asked about.
        checked: The job, for its gold.
        plan: Id of the prevalence plan.
    """

    queues: tuple[Queue, ...] = DEFAULT
    most: int = 20
    checked: Checked | None = None
    plan: str | None = None


def checked_queues(names: Sequence[str]) -> tuple[Queue, ...]:
    """Queues by their names; the default ones where none is named.

    Raises:
        UserError: There is none of such a name.
    """
    known = {name: name for name in get_args(Queue) if name in _ORDER}
    for name in names:
        if name not in known:
            raise UserError(f"--queue {name}: there is no such queue; {nearest(name, known)}")
    return tuple(known[name] for name in dict.fromkeys(names)) or DEFAULT


def queue_items(
    output: ReviewedOutput, policies: Sequence[ReviewPolicy], wanted: Wanted
) -> list[Item]:
    """What is asked, in its order: policy after policy, a plan's rows first, and the rest mixed.

    A content stands once, in the first queue that has it: nobody sees from its place what the model
    said of it.

    Args:
        output: That is reviewed.
        policies: Under which.
        wanted: Which ones, and how many.

    Raises:
        UserError: A queue needs what is not given.
    """
    told = [queue for queue in wanted.queues if queue in SCANNED]
    found = _labelled(output, policies, told, wanted.most)
    if "gold" in wanted.queues:
        found += _against_gold(output, policies, wanted.checked, wanted.most)
    if "prevalence" in wanted.queues:
        found += _planned(output, policies, wanted.plan)
    by_key: dict[Key, Item] = {}
    for item in sorted(found, key=lambda item: _ORDER.index(item.queue)):
        by_key.setdefault(item.key, item)
    place = {policy.id: index for index, policy in enumerate(policies)}
    # A plan has an order of its own: any beginning of it is a sample of all that it drew from.
    planned = [item.key for item in by_key.values() if item.queue == "prevalence"]
    drawn = {key: index - len(planned) for index, key in enumerate(planned)}

    def order(item: Item) -> tuple[int, int]:
        return place[item.key.policy], drawn.get(item.key, number("|".join(item.key)))

    return sorted(by_key.values(), key=order)


def _labelled(
    output: ReviewedOutput, policies: Sequence[ReviewPolicy], queues: Sequence[Queue], most: int
) -> list[Item]:
    """Rows that markers name, and where they are too few, those that a scan finds."""
    named = {(policy.id, queue): _named(output, policy.id, queue) for policy in policies
             for queue in queues}  # fmt: skip
    short = [queue for queue in queues
             if any(len(named[policy.id, queue]) < most for policy in policies)]  # fmt: skip
    for item in scan(output.layout, output.markers, policies, short, most) if short else ():
        named[item.key.policy, item.queue].append(item)
    return [item for items in named.values() for item in _smallest(items, most)]


def _named(output: ReviewedOutput, policy: str, queue: Queue) -> list[Item]:
    """The rows that markers name, of each content the first."""
    if queue not in ("borderline", "flagged", "safe"):
        return []
    rows = {
        Key(policy, row.content_hash): (shard, row.row)
        for shard, marker in reversed(list(output.markers.items()))
        if (chosen := marker.chosen.get(policy)) is not None
        for row in reversed(getattr(chosen, queue, ()))
    }
    return [Item(key, shard, row, queue) for key, (shard, row) in rows.items()]


def _smallest(items: Iterable[Item], most: int) -> list[Item]:
    by_key: dict[Key, Item] = {}
    for item in sorted(items, key=lambda item: (item.key, item.shard, item.row)):
        by_key.setdefault(item.key, item)
    return list(by_key.values())[:most]


def _against_gold(
    output: ReviewedOutput, policies: Sequence[ReviewPolicy], checked: Checked | None, most: int
) -> list[Item]:
    """Rows in which the labels and the job's gold differ.

    Raises:
        UserError: There is no job, or it has no gold of these policies.
    """
    gold = {} if checked is None else _in_input(checked.job)
    asked = [policy.id for policy in policies if policy.id in gold]
    if checked is None or not asked:
        raise UserError(
            "--queue gold needs what people said: name the job with --job, and in it gold, "
            "such as gold: {spam: is_spam}"
        )
    found: dict[str, list[Item]] = {name: [] for name in asked}
    for shard in checked.scan.shards:
        if shard.name in output.markers:
            for item in _differing(output, checked, shard.name, asked):
                found[item.key.policy].append(item)
    return [item for items in found.values() for item in _smallest(items, most)]


def _in_input(job: Job) -> dict[str, Gold]:
    """Gold of the job's input, by policy: reviews cannot differ from themselves."""
    return {name: gold for name, gold in job.gold.items() if isinstance(gold, Gold)}


def _differing(
    output: ReviewedOutput, checked: Checked, shard: str, asked: Collection[str]
) -> Iterator[Item]:
    [file] = [each for each in checked.scan.shards if each.name == shard]
    truth = {
        policy.id: gold_answers(checked, file, policy, own, f"gold.{policy.id}").violates
        for policy in checked.policies
        if policy.id in asked and (own := _in_input(checked.job).get(policy.id)) is not None
    }
    for rows in label_columns(output.layout, shard, list(truth), ["violates"]):
        positions = rows.column(ROW.name).to_numpy()
        hashes = rows.column(CONTENT_HASH.name)
        for name, right in truth.items():
            violates = structs(rows.column(name)).field("violates")
            said = violates.fill_null(False).to_numpy(zero_copy_only=False).astype(np.int8)
            known = right[positions] != UNKNOWN
            wrong = known & valid(violates) & (said != right[positions])
            for index in np.flatnonzero(wrong):
                if (content := hashes[int(index)].as_py()) is not None:
                    yield Item(Key(name, content), shard, int(positions[index]), "gold")


def _planned(
    output: ReviewedOutput, policies: Sequence[ReviewPolicy], plan: str | None
) -> list[Item]:
    """The rows that a prevalence plan drew.

    Raises:
        UserError: No plan is named, there is none, or it is of another policy.
    """
    if plan is None:
        raise UserError(
            "--queue prevalence needs a plan: name it with --plan; moderay prevalence --plan "
            "makes one"
        )
    drawn = read_plan(output.layout, plan).rows
    known = {policy.id for policy in policies}
    items = [
        Item(Key(row.policy, row.content_hash), row.shard, row.row, "prevalence", plan)
        for row in drawn
        if row.policy in known
    ]
    if not items:
        raise UserError(f"--plan {plan}: it has no row of {', '.join(sorted(known))}")
    return items
