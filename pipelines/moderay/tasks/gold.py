"""What people said of an input's rows: in a column, or in columns that a condition looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.job import Gold, Job
from moderay.config.policy import Policy
from moderay.config.sections.gold import REVIEWS, SIDES
from moderay.core.errors import Problem, UserError, first_line, nearest
from moderay.core.sql.refusal import EACH_ROW, SqlRefusedError
from moderay.core.sql.row_expression import POLARS_ERRORS, RowExpression
from moderay.corpus.formats import NoType
from moderay.corpus.scan import Scan
from moderay.corpus.shard import Shard
from moderay.corpus.where import row_condition
from moderay.judges.cascade import Cascade
from moderay.pipeline.check import Checked
from moderay.tasks.input_rows import column_names, columns_of

# Where nobody knows.
UNKNOWN = -1

# Positions in a shard, rising, and whether the row there violates.
Truth = tuple[np.ndarray, np.ndarray]
# Whether it violates, and which of the policy's labels it is, each UNKNOWN or a number.
Meaning = tuple[int, int]


@dataclass(frozen=True)
class GoldAnswers:
    """What people said of a shard's rows; each array is as long as the shard.

    Attributes:
        violates: int8: 1, 0 or `UNKNOWN`; of several people's votes the majority, `UNKNOWN` where
            there is none.
        label: int16: position among the policy's labels, or `UNKNOWN`.
        votes: int8, rows x people, as `violates`; None where a row has one answer.
        weights: float64: for how many rows each one stands; None: for itself alone.
    """

    violates: np.ndarray
    label: np.ndarray
    votes: np.ndarray | None = None
    weights: np.ndarray | None = None

    def at(self, rows: np.ndarray) -> GoldAnswers:
        """Of those rows alone, in their order."""
        return GoldAnswers(
            self.violates[rows],
            self.label[rows],
            None if self.votes is None else self.votes[rows],
            None if self.weights is None else self.weights[rows],
        )

    @property
    def truth(self) -> Truth:
        """The rows of which people said something."""
        rows = np.flatnonzero(self.violates != UNKNOWN)
        return rows, self.violates[rows] == 1


def gold_problems(
    job: Job, policies: Sequence[Policy], _: Sequence[Cascade], input_: Scan
) -> Iterator[Problem]:
    """What is wrong with a job's `gold:`, as far as no row has to be read for it."""
    by_id = {policy.id: policy for policy in policies}
    for name, gold in job.gold.items():
        key = f"gold.{name}"
        if (policy := by_id.get(name)) is None:
            yield job.problem(key, f"{key}: the job has no policy {name!r}", nearest(name, by_id))
            continue
        if isinstance(gold, str):
            yield from _hidden_column(job, key, input_)
            continue
        try:
            meanings(labels_of(policy), gold, key)
        except UserError as error:
            yield job.problem(f"{key}.values", str(error))
        for shard, schema in input_.files:
            names = [*schema.names, *[part for part, _ in shard.partitions]]
            try:
                if gold.column not in names:
                    _condition(gold.column, shard, names, key)
            except UserError as error:
                yield job.problem(key, str(error), "a column of the input, or a condition on some")
                break


def _hidden_column(job: Job, key: str, input_: Scan) -> Iterator[Problem]:
    """That reviews may not be what is meant, where a column has their name."""
    for shard, schema in input_.files:
        if REVIEWS in [*schema.names, *[part for part, _ in shard.partitions]]:
            yield job.problem(
                key,
                f"{key}: {REVIEWS} are what people said with moderay review, and {shard.file} has "
                "a column of this name",
                f"{{column: {REVIEWS}}} is the column",
            )
            return


def gold_answers(
    checked: Checked, shard: Shard, policy: Policy, gold: Gold, named: str
) -> GoldAnswers:
    """What people said of a shard's rows.

    Args:
        checked: The job and its input.
        shard: A shard of it.
        policy: The policy it is about.
        gold: Where it stands.
        named: What messages call it.

    Raises:
        UserError: There is no such column, nor is it a condition; or it says what has no meaning.
    """
    columns = column_names(checked, shard)
    if gold.column not in columns:
        return _of_condition(checked, shard, gold.column, columns, named)
    if columns.count(gold.column) > 1:
        raise UserError(f"{named}: {shard.file} has two columns of this name")
    pieces = [
        piece
        for table in columns_of(checked, shard, [gold.column])
        for piece in table.column(gold.column).chunks
    ]
    values = pa.chunked_array(pieces or [pa.nulls(0)])
    return column_answers(values, labels_of(policy), gold, f"{named}: {shard.file}", True)


def column_answers(
    values: pa.ChunkedArray,
    labels: Mapping[str, bool],
    gold: Gold,
    named: str,
    or_condition: bool = False,
) -> GoldAnswers:
    """What the values of a column say.

    Args:
        values: Of the column.
        labels: Whether each label of the policy violates, mildest first.
        gold: What values stand for.
        named: What messages call it.
        or_condition: Whether messages say that a condition may be given instead.

    Raises:
        UserError: A value has no meaning.
    """
    return _answers(values, _Meanings(labels, gold, named, or_condition))


def labels_of(policy: Policy) -> dict[str, bool]:
    """Whether each label of a policy violates, mildest first."""
    return {name: label.violates for name, label in policy.labels.items()}


def _of_condition(
    checked: Checked, shard: Shard, gold: str, columns: Sequence[str], named: str
) -> GoldAnswers:
    condition = _condition(gold, shard, columns, named)
    tables = columns_of(checked, shard, list(condition.columns))
    values = [_values(condition, table, shard, named) for table in tables]
    holds = pl.concat(values) if values else pl.Series([], dtype=pl.Boolean)
    violates = holds.cast(pl.Int8).fill_null(UNKNOWN).to_numpy()
    return GoldAnswers(violates, np.full(len(violates), UNKNOWN, np.int16))


def meanings(labels: Mapping[str, bool], gold: Gold, named: str) -> dict[str, Meaning]:
    """What each value of a column stands for, by its text.

    Args:
        labels: Whether each label of the policy violates, mildest first.
        gold: What values stand for.
        named: What messages call it.

    Raises:
        UserError: `gold.values` names what is neither a label nor a side.
    """
    by_label = {
        name: (int(violates), number) for number, (name, violates) in enumerate(labels.items())
    }
    sides = {name: (int(violates), UNKNOWN) for name, violates in SIDES.items()}
    if gold.values is None:
        truths = {text: sides[side] for text, side in _TRUTHS.items()}
        return truths | by_label
    known = sides | by_label
    if strange := [meant for meant in gold.values.values() if meant not in known]:
        raise UserError(f"{named}.values: no label {strange[0]!r}; valid are {', '.join(known)}")
    return {value: known[meant] for value, meant in gold.values.items()}


_TRUTHS = {"true": "violates", "false": "safe", "1": "violates", "0": "safe"}


class _Meanings:
    """Values of a column -> what they stand for."""

    def __init__(
        self, labels: Mapping[str, bool], gold: Gold, named: str, or_condition: bool
    ) -> None:
        self._known = meanings(labels, gold, named)
        self._column = gold.column
        self._or_condition = or_condition
        self.named = named
        self.labels = len(labels)

    def of(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Of each value whether it violates, and its label; `UNKNOWN` for null.

        Raises:
            UserError: A value has no meaning.
        """
        codes = pc.dictionary_encode(self._texts(values))
        said = codes.dictionary.to_pylist()
        if strange := [value for value in said if value not in self._known]:
            else_ = f', or a condition such as "{self._column} = {strange[0]!r}"'
            raise UserError(
                f"{self.named} says {strange[0]!r}; valid are {', '.join(self._known)}"
                + (else_ if self._or_condition else "")
            )
        table = np.array([*map(self._known.get, said), (UNKNOWN, UNKNOWN)], np.int16)
        found = table[codes.indices.fill_null(len(said)).to_numpy(zero_copy_only=False)]
        return found[:, 0].astype(np.int8), found[:, 1]

    def _texts(self, values: pa.Array) -> pa.StringArray:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_floating(values.type):  # as pandas has numbers with gaps
            values = pc.if_else(pc.is_nan(values), None, values)
        try:
            return values.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(
                f"{self.named}: {self._column} is {values.type}; valid are true or false, 1 or 0, "
                "labels of the policy, or a list of these"
            ) from None


def _answers(values: pa.ChunkedArray, meanings: _Meanings) -> GoldAnswers:
    column = values.combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return GoldAnswers(*meanings.of(column))
    votes, labels = _votes(column, meanings)
    counts = np.stack([(votes == side).sum(axis=1) for side in (0, 1)])
    violates = np.where(counts[0] == counts[1], UNKNOWN, counts.argmax(axis=0)).astype(np.int8)
    return GoldAnswers(violates, _plurality(labels, violates, votes, meanings.labels), votes)


def _votes(column: pa.Array, meanings: _Meanings) -> tuple[np.ndarray, np.ndarray]:
    """Of each row's people whether they say that it violates, and the label; rows x people."""
    lengths = pc.list_value_length(column)
    given = np.unique(lengths.drop_null().to_numpy())
    if len(given) > 1:
        raise UserError(
            f"{meanings.named} has rows of {given[0]} and of {given[1]} votes: give each person a "
            "place of their own, null where they said nothing"
        )
    people = int(given[0]) if len(given) else 0
    violates = np.full((len(column), people), UNKNOWN, np.int8)
    labels = np.full((len(column), people), UNKNOWN, np.int16)
    there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    if people:
        sides, names = meanings.of(column.flatten())
        violates[there], labels[there] = sides.reshape(-1, people), names.reshape(-1, people)
    return violates, labels


def _plurality(
    labels: np.ndarray, violates: np.ndarray, votes: np.ndarray, names: int
) -> np.ndarray:
    """The label that most of those on the winning side named, UNKNOWN where two did as often."""
    if not names:
        return np.full(len(votes), UNKNOWN, np.int16)
    winning = np.where(votes == violates[:, None], labels, UNKNOWN)
    counts = np.stack([(winning == name).sum(axis=1) for name in range(names)], axis=1)
    most = counts.max(axis=1)
    alone = (counts == most[:, None]).sum(axis=1) == 1
    is_known = (most > 0) & alone & (violates != UNKNOWN)
    return np.where(is_known, counts.argmax(axis=1), UNKNOWN).astype(np.int16)


def _condition(gold: str, shard: Shard, columns: Sequence[str], named: str) -> RowExpression:
    has = f"{shard.file} has no such column; it has {', '.join(columns)}"
    try:
        condition = row_condition(gold)
    except SqlRefusedError as error:
        raise UserError(f"{named}: {has}; nor is it a condition: {error}") from None
    if condition.columns == (gold,):
        raise UserError(f"{named}: {has}")
    for name in condition.columns:
        if columns.count(name) != 1:
            count = "two columns" if name in columns else "no column"
            raise UserError(f"{named}: {shard.file} has {count} {name!r}; {nearest(name, columns)}")
    return condition


def _values(condition: RowExpression, table: pa.Table, shard: Shard, named: str) -> pl.Series:
    types = ", ".join(f"{field.name} is {field.type}" for field in table.schema)
    if any(isinstance(field.type, NoType) for field in table.schema):
        raise UserError(f"{named}: {shard.file}: {types}")
    try:
        kind = condition.kind(table.schema)
    except POLARS_ERRORS as error:
        raise UserError(f"{named}: {shard.file}: {first_line(error)}; {types}") from None
    if kind != pl.Boolean:
        raise UserError(f"{named}: it gives {kind}, not true or false; {EACH_ROW}")
    return condition.values(table)
