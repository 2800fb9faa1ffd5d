"""An output whose verdicts are explained: what it says of itself, and rows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import UserError, nearest
from moderay.core.storage import RemoteFile, plain_errors, shown
from moderay.core.verdicts import CONTENT_HASH, ROW
from moderay.labels.layout import Layout, State, list_state, read_markers
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import read_manifest
from moderay.labels.records import ShardMarker
from moderay.tasks.output_contents import OutputContents, row_groups

# Rows of which hashes are compared at once.
STEP = 2**20


@dataclass(frozen=True)
class OpenOutput:
    """An output that is read.

    Attributes:
        layout: Of it.
        manifest: Its last one.
        state: What it holds.
        storage: Options of its storage, and of its input's.
    """

    layout: Layout
    manifest: Manifest
    state: State
    storage: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def shards(self) -> list[str]:
        """Published ones, in order."""
        return sorted(shard for shard in self.state.markers if self.state.published(shard))

    @cached_property
    def contents(self) -> OutputContents:
        """What was judged."""
        return OutputContents(self.layout, self.manifest.selection.content, self.storage)

    def marker(self, shard: str) -> ShardMarker:
        """That of a published shard."""
        name = self.state.published(shard)
        assert name is not None, f"{shard} is not published"
        with plain_errors(self.layout.url):
            [marker] = read_markers(self.layout, [self.layout.marker(shard, name)])
        return marker

    def shard(self, named: str | None) -> str:
        """The shard that a person means; without a name, the only one.

        Raises:
            UserError: There is no such shard, or there are several.
        """
        if named is None and len(self.shards) > 1:
            raise UserError(
                f"--shard is missing: {shown(self.layout.url)} has {len(self.shards):,} label "
                f"files, such as {self.shards[0]}"
            )
        if named is not None and named not in self.shards:
            raise UserError(
                f"--shard {named}: no published label file of this name in "
                f"{shown(self.layout.url)}: {nearest(named, self.shards)}"
            )
        return named or self.shards[0]

    def rows(self, shard: str, rows: np.ndarray | None = None) -> pa.Table:
        """Label rows of a shard.

        Args:
            shard: A published one.
            rows: Positions in the input file, rising. None: all.
        """
        with plain_errors(self.layout.url), self._opened(shard) as file:
            if rows is None:
                return file.read()
            table = file.read_row_groups(row_groups(file, rows))
            chosen = np.isin(table.column(ROW.name).to_numpy(), rows)
            return table.filter(pa.array(chosen))

    def row_of_hash(self, content_hash: str, shards: Sequence[str]) -> tuple[str, int] | None:
        """The first row of this content in these shards; None where none has it."""
        with plain_errors(self.layout.url):
            for shard in shards:
                with self._opened(shard) as file:
                    for batch in file.iter_batches(STEP, columns=[ROW.name, CONTENT_HASH.name]):
                        at = pc.index(batch.column(CONTENT_HASH.name), content_hash).as_py()
                        if at >= 0:
                            return shard, batch.column(ROW.name)[at].as_py()
        return None

    def _opened(self, shard: str) -> pq.ParquetFile:
        return pq.ParquetFile(RemoteFile(self.layout.fs, self.layout.label(shard)), pre_buffer=True)


def open_output(url: str, storage: Mapping[str, Any]) -> OpenOutput:
    """Look at an output.

    Raises:
        UserError: There are no labels, or not yet.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        state = list_state(layout)
    if manifest is None:
        raise UserError(
            f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
        )
    output = OpenOutput(layout, manifest, state, storage)
    if not output.shards:
        raise UserError(f"{shown(url)}: no shard of it is labelled yet")
    return output
