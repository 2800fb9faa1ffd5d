"""Verdicts on golden cases: kept in the output, so that a gate is not paid for twice.

Immutable files below `_moderay/gate/<policy>/`, of the form of saved units. A row of them is a case
by its number in the golden set of that day; what counts is its content's hash, so that cases may be
added, moved and labelled anew. One that is broken counts for nothing.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.storage import files_below
from moderay.core.verdicts import CONTENT_HASH, VERDICTS, Status, structs, unit_schema
from moderay.corpus.ranges import Range
from moderay.labels.layout import Layout, read_files
from moderay.labels.unit_file import BrokenUnitError, parse_unit, unit_bytes

# <cascade key>-<run>-<start>-<end>.arrow
_NAME = re.compile(r"([0-9a-f]{16})-(\d+)-(\d+)-(\d+)\.arrow")
_KEPT = pa.schema([CONTENT_HASH, pa.field("verdict", VERDICTS)])


def save_golden(  # noqa: PLR0913, PLR0917  # a file's place is its policy, key, run and cases
    layout: Layout, policy: str, cascade: str, run: int, cases: Range, judged: pa.Table
) -> None:
    """Save the verdicts on cases of a golden set.

    Args:
        layout: Of the output.
        policy: Id of the policy.
        cascade: Key of its cascade.
        run: Number of the run.
        cases: Which ones, by their numbers in the golden set.
        judged: Rows of `verdicts.unit_schema` of this policy alone.
    """
    name = f"{cascade}-{run}-{cases[0]}-{cases[1]}.arrow"
    layout.write(f"{_folder(layout, policy)}/{name}", unit_bytes(judged, cases))


def kept_golden(layout: Layout, policy: str, cascade: str) -> pa.Table:
    """The verdicts that are kept under a cascade key, those of the latest run first.

    Returns:
        `content_hash` and `verdict`, of status ok alone: the others are asked again.
    """
    files: list[tuple[int, str, Range]] = []
    for file in files_below(layout.fs, _folder(layout, policy)):
        match = _NAME.fullmatch(file.name)
        if match is not None and match[1] == cascade:
            files.append((int(match[2]), file.name, (int(match[3]), int(match[4]))))
    files.sort(reverse=True)
    ranges = {f"{_folder(layout, policy)}/{name}": cases for _, name, cases in files}
    tables = [_KEPT.empty_table()]
    for path, data in read_files(layout, list(ranges)):
        try:
            table = parse_unit(data, ranges[path])
        except BrokenUnitError:
            continue
        if table.schema != unit_schema([policy]):
            continue
        verdicts = structs(table.column(policy))
        hashes = table.column(CONTENT_HASH.name)
        kept = pa.table([hashes, pa.chunked_array([verdicts])], schema=_KEPT)
        tables.append(kept.filter(pc.equal(verdicts.field("status"), Status.OK.value)))
    return pa.concat_tables(tables)


def _folder(layout: Layout, policy: str) -> str:
    return layout.private(f"gate/{policy}")
