"""Rows to try a policy on: of a file, of the golden set, or one text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from moderay.config.job import Input, Job, Output, UnitSize
from moderay.config.paths import absolute_path
from moderay.config.policy import GoldenCase
from moderay.core.errors import UserError
from moderay.corpus.content import Content, texts
from moderay.corpus.formats import NoType
from moderay.corpus.golden import golden_content
from moderay.corpus.scan import Scan, scan
from moderay.corpus.shard import Shard, shard_errors
from moderay.corpus.where import File, named_once
from moderay.pipeline.stages.prepare import POSITION
from moderay.pipeline.stages.spans import RowStream, selected_rows, spans
from moderay.tasks.init.corpus_look import only_text, refuse

# The output of a job that writes no labels.
NOWHERE = ""


@dataclass(frozen=True)
class TrialRow:
    """One content.

    Attributes:
        name: For people: where it comes from.
        content: What is judged.
        right: The label that it should get, where it is a golden case.
        table: One row of the input's columns; None where there are none.
    """

    name: str
    content: Content
    right: str | None = None
    table: pa.Table | None = None

    @property
    def key(self) -> str:
        """The same for the same content."""
        return self.content.hash or self.name

    def columns(self, names: Sequence[str]) -> pa.Table:
        """One row of these columns, null where it has none, and its `POSITION`."""
        known = [] if self.table is None else self.table.column_names
        values = {
            name: self.table.column(name) if self.table is not None and name in known
            else pa.nulls(1)
            for name in names
        }  # fmt: skip
        return pa.table({**values, POSITION: pa.array([0], pa.int64())})


@dataclass(frozen=True)
class DataRows:
    """Rows of somebody's file.

    Attributes:
        rows: The first that were selected.
        files: What rules may read, for what is wrong with theirs.
    """

    rows: tuple[TrialRow, ...]
    files: tuple[File, ...]


def text_row(text: str | bytes, name: str = "content") -> TrialRow:
    """A row of one text; bytes may be none."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    [content] = texts(pa.chunked_array([pa.array([data], pa.binary())]))
    return TrialRow(name, content)


def golden_rows(cases: Sequence[GoldenCase]) -> list[TrialRow]:
    """The cases of a golden set, named after their lines."""
    return [
        TrialRow(f"golden {number}", golden_content(case), case.label)
        for number, case in enumerate(cases, start=1)
    ]


def data_rows(
    path: str, content: str | None, where: str | None, limit: int, policy: str
) -> DataRows:
    """The first rows of a file, a folder or a glob.

    Args:
        path: As `input.path` of a job.
        content: The column, or the template of columns; by default the only one that it can be.
        where: Which rows.
        limit: How many, at most.
        policy: Id of the policy.

    Raises:
        UserError: They cannot be read.
        Problems: The same, with several reasons.
    """
    path = absolute_path(path, Path.cwd())
    content = content or only_text(path, "--content-column")
    job = Job(
        input=Input(path=path, content=content, where=where),
        output=Output(path=NOWHERE, columns=[]),
        policies=["policy"],
    )
    scanned = scan(job, [policy])
    refuse(scanned.problems)
    rows = tuple(_first_rows(job, scanned, limit))
    if not rows:
        among = f" for which {where} holds" if where else ""
        raise UserError(f"{path} has no row{among}")
    return DataRows(rows, tuple(scanned.files))


def _first_rows(job: Job, scanned: Scan, limit: int) -> Iterator[TrialRow]:
    left = limit
    for shard, schema in scanned.files:
        for row in _rows_of(job, shard, schema, left):
            yield row
            left -= 1
        if not left:
            return


def _rows_of(job: Job, shard: Shard, schema: pa.Schema, limit: int) -> Iterator[TrialRow]:
    names = [
        name
        for name in dict.fromkeys(schema.names)
        if named_once(schema, name) and not isinstance(schema.field(name).type, NoType)
    ]
    wanted = list(dict.fromkeys([*names, *(key for key, _ in shard.partitions)]))
    for span in spans(shard, [(0, shard.rows)], UnitSize(rows=limit)):
        with shard_errors(shard):
            stream = RowStream(span, job, wanted)
            start = span.first_row
            while start < span.end_row and limit:
                unit = stream.upto(start, min(start + span.step, span.end_row))
                start += len(unit)
                table, contents = selected_rows(unit, shard, job)
                for number, content in enumerate(contents[:limit]):
                    one = table.slice(number, 1)
                    position = one.column(POSITION)[0].as_py()
                    yield TrialRow(f"{shard.file} row {position}", content, None, one)
                    limit -= 1
