"""What of an output is to be in its table: the label files of published shards."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from moderay.core.errors import UserError, first_line
from moderay.core.storage import is_local, plain_errors, shown
from moderay.core.verdicts import todays_schema
from moderay.corpus.formats import BoundedFile, UnreadableError
from moderay.labels.layout import Layout, MarkerName, list_state, read_markers
from moderay.labels.manifest_store import read_manifest
from moderay.labels.reader import hive_values
from moderay.tasks.tables.delta_commit import TableFile
from moderay.tasks.tables.delta_schema import delta_schema, united

# The value that stands in a folder's name for none.
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class LabelFiles:
    """The label files of an output that belong in its table.

    Attributes:
        layout: Of the output.
        files: By path below it.
        names: Of their markers.
        gone: Shards that the input no longer has; None: as the manifest has them.
    """

    layout: Layout
    files: Mapping[str, TableFile]
    names: Mapping[str, MarkerName]
    gone: Collection[str] | None = None

    def again(self) -> LabelFiles:
        """Those that are there by now; markers that have been read are not read again."""
        names = published_names(self.layout, self.gone)
        known = {
            shard: file
            for shard, file in self.files.items()
            if names.get(shard) == self.names[shard]
        }
        new = {shard: name for shard, name in names.items() if shard not in known}
        files = known | dict(_files(self.layout, new))
        return LabelFiles(self.layout, files, names, self.gone)

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the hive folders in which all of them lie."""
        each = {tuple(file.partition) for file in self.files.values()}
        return each.pop() if len(each) == 1 else ()

    def schema(self, files: Sequence[str]) -> pa.Schema:
        """What a table calls the columns of these files, each in one of them at least.

        Files that one run wrote alike are alike: one of them is read.

        Raises:
            UserError: A file cannot be read, or its columns cannot be in a table.
        """
        layout = self.layout
        alike = {self.names[file][1:3]: file for file in sorted(files, reverse=True)}
        return united((_schema(layout, file) for file in sorted(alike.values())), layout.url)


def published_names(layout: Layout, gone: Collection[str] | None = None) -> dict[str, MarkerName]:
    """The markers of published shards, without those that the input no longer has.

    Args:
        layout: Of the output.
        gone: These; by default as the manifest has them.
    """
    if gone is None:
        manifest = read_manifest(layout)
        gone = manifest.gone if manifest is not None else ()
    state = list_state(layout)
    return {
        shard: name
        for shard in sorted(state.markers.keys() - set(gone))
        if (name := state.published(shard)) is not None
    }


def label_files(
    layout: Layout, names: Mapping[str, MarkerName], gone: Collection[str] | None = None
) -> LabelFiles:
    """The label files of an output.

    Args:
        layout: Of the output.
        names: As `published_names` gives them.
        gone: As there.
    """
    return LabelFiles(layout, dict(_files(layout, names)), names, gone)


def _files(layout: Layout, names: Mapping[str, MarkerName]) -> Iterator[tuple[str, TableFile]]:
    now = int(time.time() * 1000)
    paths = [layout.marker(shard, name) for shard, name in names.items()]
    for marker in read_markers(layout, paths):
        file = marker.label_file
        # Of a store's etag, no time can be told.
        modified = int(float(file.version) * 1000) if is_local(layout.fs) else now
        partition = {
            key: None if value == _NULL else value
            for key, value in hive_values(marker.shard).items()
        }
        yield marker.shard, TableFile(marker.shard, file.size, marker.rows, modified, partition)


def _schema(layout: Layout, shard: str) -> pa.Schema:
    path = layout.label(shard)
    try:
        with plain_errors(path), BoundedFile(layout.fs, path) as file:
            return delta_schema(todays_schema(file.schema_arrow), path)
    except UnreadableError as error:
        raise UserError(f"{shown(path)} cannot be read: {first_line(error)}") from error
