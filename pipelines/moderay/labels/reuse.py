"""Verdicts that were paid for already.

A row takes the one its content got before, where the same judge would give it again.

They lie in label files: this output's own, and those of the outputs that `reuse:` names. A reader
looks through the files of the same name as its shard (`ReadAlong`), where most of its contents will
be; the index knows the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.storage import ChangedError, RemoteFile
from moderay.core.verdicts import CONTENT_HASH, ROW, Status, judged_field, structs
from moderay.judges.glance import Band
from moderay.labels.earlier_outputs import LabelFile
from moderay.labels.label_file import file_version
from moderay.labels.layout import Layout
from moderay.labels.lookup import Payloads, ReplacedError, given_up, judged
from moderay.labels.partition import File, Numbers, Partition, Source, hash_keys, hits, policy_masks

# What `takable` looks at. Of a row that people decided, what the judges said may be taken; files of
# an earlier form have no such field, and none of that name is read there.
_TAKABLE = (
    *("status", "trace.decided_by", "probability"),
    *(f"trace.overruled.{name}" for name in ("status", "decided_by", "probability")),
)


class ReadAlong:
    """Verdicts of a few label files, by content."""

    def __init__(
        self, outputs: Sequence[Layout], files: Sequence[LabelFile], policies: Sequence[str]
    ) -> None:
        """Read which contents the files judge.

        One that is gone or broken has none, and its rows are judged.

        Args:
            outputs: layouts, as the files number them.
            files: label files.
            policies: whose verdicts may be taken.

        Raises:
            OSError: the store does not give a file; its verdicts are paid for.
        """
        self._known, self._payloads = Partition(), Payloads(outputs, policies)
        # The shard's own file last: of two entries for a content the later counts, and a row keeps
        # the verdict it has.
        for file in sorted(files, key=lambda file: -file.output):
            try:
                self._add(outputs[file.output], file, policies)
            except (pa.ArrowException, FileNotFoundError, ReplacedError, ChangedError) as error:
                given_up(file.shard, error)

    def _add(self, layout: Layout, file: LabelFile, policies: Sequence[str]) -> None:
        for source, hashes, rows, masks in entries(layout, file, policies):
            good = np.flatnonzero(hashes.is_valid().to_numpy(zero_copy_only=False) & (masks != 0))
            self._known.add(
                File(source), hash_keys(hashes.take(pa.array(good))), rows[good], masks[good]
            )

    def find(self, hashes: Sequence[str | None]) -> dict[str, pa.StructArray]:
        """The earlier verdicts on contents.

        Returns:
            By policy, structs of `VERDICT` with the origin `reused`, null where there is nothing to
            take.
        """
        column = pa.array(hashes, pa.string())
        at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        return self._payloads.read(
            hits(hashes, [(at, self._known.find(hash_keys(column.drop_null())))])
        )


def entries(
    layout: Layout, file: LabelFile, policies: Sequence[str]
) -> Iterator[tuple[Source, pa.StringArray, Numbers, Numbers]]:
    """Source, hashes, positions and masks of a label file's row groups.

    A mask is 0 where nothing may be taken.

    Raises:
        OSError: the file cannot be read, as pa.ArrowException and ValueError.
    """
    source = Source(file.output, file.shard, version=file_version(layout, file.shard))
    with pq.ParquetFile(RemoteFile(layout.fs, layout.label(file.shard)), pre_buffer=True) as labels:
        if not {ROW.name, CONTENT_HASH.name} <= set(labels.schema_arrow.names):
            raise ReplacedError("a Parquet file, but no label file of moderay")
        taken = judged(
            labels.schema_arrow, [policy for policy in policies if policy in file.usable]
        )
        fields = [f"{policy}.{name}" for policy in taken for name in _TAKABLE]
        for group in range(labels.num_row_groups):
            table = labels.read_row_group(group, columns=[ROW.name, CONTENT_HASH.name, *fields])
            none = np.zeros(len(table), bool)
            columns = [
                takable(structs(table.column(policy)), file.usable[policy])
                if policy in taken
                else none
                for policy in policies
            ]
            yield (
                source,
                structs(table.column(CONTENT_HASH.name)),
                table.column(ROW.name).to_numpy(),
                policy_masks(columns, len(table)),
            )


def takable(decisions: pa.StructArray, judges: Mapping[str, Band | None]) -> Numbers:
    """Bool: which of a label file's decisions may be taken.

    Those of status ok, by one of these judges, and outside its band, whatever people said since.
    Needs the fields status, trace.decided_by and probability, and of trace.overruled the same.
    """
    settled = np.zeros(len(decisions), bool)
    probability = judged_field(decisions, "probability").to_numpy(zero_copy_only=False)
    decided_by = judged_field(decisions, "decided_by")
    for judge, band in judges.items():
        mine = pc.fill_null(pc.equal(decided_by, judge), False).to_numpy(zero_copy_only=False)
        settled |= mine if band is None else mine & band.settles(probability)
    ok = pc.equal(judged_field(decisions, "status"), Status.OK.value).to_numpy(zero_copy_only=False)
    return np.asarray(settled & ok)
