"""Compare two outputs of the same input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from moderay.core.errors import UserError, nearest
from moderay.core.storage import shown
from moderay.core.verdicts import ROW, structs
from moderay.labels.analysis.diff import DiffTally, tally
from moderay.tasks.diff.figures import diff_record
from moderay.tasks.diff.flips import LargestChanges, flips, flips_schema
from moderay.tasks.diff.gold import GoldColumn, gold_columns
from moderay.tasks.diff.pairs import Output, Pairs, open_output, paired_rows
from moderay.tasks.diff.result import Comparison
from moderay.tasks.diff.unpaired import Unpaired, common_policies
from moderay.tasks.parquet_file import whole_parquet

# What is read of a policy's column.
_FIELDS = ("violates", "label", "probability", "rationale", "trace.decided_by", "trace.origin")


@dataclass(frozen=True)
class DiffRequest:
    """What is to be compared.

    Attributes:
        a: URL of one output.
        b: URL of the other one.
        storage: Options of their storage.
        common: Whether rows are left out that the two do not both hold.
        show: Flips of each policy that are kept to be looked at.
        columns: Of the input, which output a carries, to be told with the flips.
        parquet: A file for all flips.
        gold: Columns that output a carries and in which people said what violates, by a truth, a
            label or several votes, each as `policy=column`; the column alone where one policy is
            compared.
    """

    a: str
    b: str
    storage: Mapping[str, Any]
    common: bool = False
    show: int = 6
    columns: tuple[str, ...] = ()
    parquet: Path | None = None
    gold: tuple[str, ...] = ()


def compare_outputs(request: DiffRequest) -> Comparison:
    """Read both outputs once, and count what changed.

    Raises:
        UserError: One is no output, the two are not of the same input, they have no policy in
            common, or a column is not there.
    """
    a, b = (open_output(url, request.storage) for url in (request.a, request.b))
    policies = common_policies(a, b)
    gold = gold_columns(request.gold, policies)
    _assert_carried(a, "--gold", [*gold.values()])
    people = {name: GoldColumn(a, name, column) for name, column in gold.items()}
    schema = flips_schema(_carried(a, request.columns))
    unpaired = Unpaired(a, b)
    if not request.common:
        unpaired.refuse()
    tallies = dict.fromkeys(policies, DiffTally.empty())
    largest = {name: LargestChanges(request.show, schema) for name in policies}
    with _file(request, schema, (a, b)) as file:
        for pairs in _all_pairs(a, b, policies, {*request.columns, *gold.values()}):
            unpaired.add(pairs)
            for name in policies:
                decisions = [structs(each.column(name)) for each in (pairs.a, pairs.b)]
                said = people[name].sides(pairs.a) if name in people else None
                tallies[name] += tally(decisions[0], decisions[1], said)
                flipped = flips(pairs, name, schema)
                largest[name].add(flipped)
                if file is not None:
                    file.write_table(flipped)
        if not request.common:
            unpaired.refuse()
    return Comparison(
        diff_record(a, b, tallies, unpaired.rows, unpaired.record),
        {name: each.rows for name, each in largest.items()},
    )


def _file(request: DiffRequest, schema: pa.Schema, outputs: Sequence[Output]) -> Any:
    """Where all flips go, open; nothing where they go nowhere."""
    if request.parquet is None:
        return nullcontext()
    return whole_parquet(request.parquet, schema, [output.layout for output in outputs])


def _all_pairs(
    a: Output, b: Output, policies: Sequence[str], carried: Iterable[str]
) -> Iterator[Pairs]:
    inner = [f"{policy}.{field}" for policy in policies for field in _FIELDS]
    there = set(b.shards)
    for shard in a.shards:
        if shard in there:
            yield from paired_rows(a, b, shard, ([*carried, *inner], inner))


def _carried(a: Output, columns: Sequence[str]) -> list[pa.Field]:
    """Fields of the columns of the input that output a carries."""
    _assert_carried(a, "--column", columns)
    own = set(flips_schema([]).names)
    for name in columns:
        if name in own:
            raise UserError(f"--column {name}: the result has a column of this name of its own")
    return [a.schema.field(name) for name in columns]


def _assert_carried(a: Output, option: str, columns: Sequence[str]) -> None:
    there = a.schema.names[: a.schema.get_field_index(ROW.name)]
    for name in columns:
        if name not in there:
            hint = nearest(name, there) if there else "it carries none (output.columns in the job)"
            raise UserError(
                f"{option} {name}: {shown(a.layout.url)} carries no such column: {hint}"
            )
