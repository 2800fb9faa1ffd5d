"""An output's labels beside the gold of its input, shard after shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.config.policy import Policy
from moderay.core.errors import Problems, UserError
from moderay.core.storage import RemoteFile, plain_errors
from moderay.core.verdicts import CONTENT_HASH, ROW, structs
from moderay.corpus.shard import Shard
from moderay.corpus.views import rows_at
from moderay.labels.cascade_verdicts import columns_of_cascade, of_cascade
from moderay.labels.layout import Layout, list_state
from moderay.pipeline.check import Checked
from moderay.tasks.evaluate.disagreements import Worst, explained
from moderay.tasks.evaluate.evaluation import (
    Evaluation,
    PolicyEvaluation,
    Votes,
    any_sides,
    exact_matches,
)
from moderay.tasks.evaluate.judged import JudgedRows, judged_rows
from moderay.tasks.evaluate.slices import Slices
from moderay.tasks.evaluate.tally import tally
from moderay.tasks.gold import UNKNOWN, GoldAnswers
from moderay.tasks.gold_source import GoldReader, gold_reader
from moderay.tasks.input_rows import input_columns

# What is read of a policy's column, beside its rationales.
_FIELDS = ("violates", "label", "probability")


@dataclass(frozen=True)
class ShardLabels:
    """The labels of a shard beside its gold.

    Attributes:
        shard: The input file.
        rows: int64: positions in it.
        judged: By policy id.
        votes: By policy id, of those whose gold has several people's.
        columns: Of the input, at these rows: what slices are by.
    """

    shard: Shard
    rows: np.ndarray
    judged: Mapping[str, JudgedRows]
    votes: Mapping[str, Votes]
    columns: pa.Table


def evaluate_output(checked: Checked, by: Sequence[str], disagreements: int) -> Evaluation:
    """Compare a job's labels with its gold.

    Args:
        checked: The job; what is published of its output is compared.
        by: Columns of the input: figures for each of their values.
        disagreements: That are kept of each policy, the worst.

    Raises:
        Problems: The job names no gold, or a policy that it has not.
        UserError: Gold cannot be read, or nothing is published.
    """
    policies = gold_policies(checked)
    state = list_state(Layout(checked.job.output.path, checked.job.storage))
    shards = [shard for shard in checked.scan.shards if state.published(shard.name)]
    if not shards:
        raise UserError(f"{checked.job.output.path}: no shard of the job is labelled yet")
    readers = {
        policy.id: gold_reader(checked, policy, checked.job.gold[policy.id], f"gold.{policy.id}")
        for policy in policies
    }
    read_by = {cascade.policy.id: cascade.calibration for cascade in checked.cascades}
    tallies = {policy.id: tally(JudgedRows.empty(), len(policy.labels)) for policy in policies}
    slices = {policy.id: Slices(policy, tuple(by)) for policy in policies}
    worst = {policy.id: Worst(disagreements) for policy in policies}
    votes: dict[str, list[Votes]] = {policy.id: [] for policy in policies}
    exact, flagged = np.zeros(2, np.int64), np.zeros((2, 3), np.int64)
    for part in shard_labels(checked, shards, readers, by):
        for policy in policies:
            rows = part.judged[policy.id]
            tallies[policy.id] += tally(rows, len(policy.labels))
            slices[policy.id].add(rows, part.columns)
            worst[policy.id].add(part.shard.file, part.rows, rows)
        for name, said in part.votes.items():
            votes[name].append(said)
        together = list(part.judged.values())
        exact += exact_matches(together)
        flagged += any_sides(together)
    return Evaluation(
        tuple(
            PolicyEvaluation(
                policy,
                tallies[policy.id],
                slices[policy.id].tallies,
                _together(policy, votes[policy.id]),
                readers[policy.id].note,
                read_by.get(policy.id),
            )
            for policy in policies
        ),
        (int(exact[0]), int(exact[1])),
        flagged,
        explained(checked, {name: each.rows for name, each in worst.items()}),
    )


def _together(policy: Policy, parts: Sequence[Votes]) -> Votes | None:
    """The votes of all shards: a byte for each row and person.

    Raises:
        UserError: Shards have votes of different numbers of people.
    """
    if not parts:
        return None
    if len(people := {part.people.shape[1] for part in parts if len(part.people)}) > 1:
        numbers = " and ".join(map(str, sorted(people)))
        raise UserError(f"gold.{policy.id}: files of the input have votes of {numbers} people")
    return Votes(
        np.concatenate([part.people for part in parts]),
        np.concatenate([part.said for part in parts]),
    )


def gold_policies(checked: Checked) -> list[Policy]:
    """The policies that the job has gold of.

    Raises:
        Problems: None is named.
    """
    job = checked.job
    if not job.gold:
        hint = "such as gold: {spam: is_spam}, where is_spam is a column of the input"
        raise Problems([job.problem("gold", "eval needs to know what people said: gold", hint)])
    return [policy for policy in checked.policies if policy.id in job.gold]


def shard_labels(
    checked: Checked,
    shards: Sequence[Shard],
    readers: Mapping[str, GoldReader],
    by: Sequence[str],
) -> Iterator[ShardLabels]:
    """Labels and gold of published shards, one after the other.

    Args:
        checked: The job.
        shards: That are published.
        readers: Of the gold, by policy.
        by: Columns of the input.
    """
    layout = Layout(checked.job.output.path, checked.job.storage)
    policies = [policy for policy in checked.policies if policy.id in readers]
    for shard in shards:
        with plain_errors(layout.url):
            labels = _read(layout.label(shard.name), layout, policies)
        rows = labels.column(ROW.name).to_numpy()
        judged: dict[str, JudgedRows] = {}
        votes: dict[str, Votes] = {}
        for policy in policies:
            name = policy.id
            answers = readers[name].of(shard).at(rows)
            judged[name] = _judged(policy, labels, answers)
            if answers.votes is not None:
                voted = (answers.votes != UNKNOWN).any(axis=1)
                votes[name] = Votes(answers.votes[voted], judged[name].violates[voted])
        yield ShardLabels(shard, rows, judged, votes, _slice_columns(checked, shard, by, rows))


def _read(path: str, layout: Layout, policies: Sequence[Policy]) -> pa.Table:
    with pq.ParquetFile(RemoteFile(layout.fs, path), pre_buffer=True) as file:
        inner = [
            name for policy in policies for name in columns_of_cascade(file, policy.id, _FIELDS)
        ]
        return file.read(columns=[ROW.name, CONTENT_HASH.name, *inner])


def _judged(policy: Policy, labels: pa.Table, answers: GoldAnswers) -> JudgedRows:
    return judged_rows(
        of_cascade(structs(labels.column(policy.id))),
        labels.column(CONTENT_HASH.name).combine_chunks(),
        policy.label_names,
        answers,
    )


def _slice_columns(checked: Checked, shard: Shard, by: Sequence[str], rows: np.ndarray) -> pa.Table:
    if not by:
        return pa.table({})
    columns = pa.concat_tables(input_columns(checked, shard, by, "--by"))
    return rows_at(columns, rows)
