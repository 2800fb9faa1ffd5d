"""What a report is made of: the manifest, and what the markers add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moderay.core.errors import UserError
from moderay.core.storage import plain_errors, shown
from moderay.labels.layout import Layout, list_state, read_markers
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import read_manifest
from moderay.pipeline.manifest import OutputTotal


@dataclass(frozen=True)
class ReportSource:
    """An output as far as a report needs it; its size does not hang on the number of rows.

    Attributes:
        layout: Of the output.
        manifest: What produced the labels.
        total: What the published shards' markers add up to.
        storage: Options of the output's and the input's storage.
    """

    layout: Layout
    manifest: Manifest
    total: OutputTotal
    storage: Mapping[str, Any]


def read_source(url: str, storage: Mapping[str, Any]) -> ReportSource:
    """Read an output's manifest and, one after the other, its markers.

    Raises:
        UserError: There are no labels, or the storage refuses.
        RecordRefusedError: A marker or the manifest is damaged, or of another version.
        TryAgainError: The storage does not answer.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
            )
        state = list_state(layout)
        paths = [
            layout.marker(shard, name)
            for shard in sorted(state.markers)
            if (name := state.published(shard)) is not None
        ]
        total = OutputTotal()
        for marker in read_markers(layout, paths):
            total.add(marker)
    return ReportSource(layout, manifest, total, storage)
