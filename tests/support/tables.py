"""Small Delta and Iceberg tables, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

Actions = list[dict[str, Any]]


def delta_table(folder: Path, *parts: pa.Table, **options: Any) -> str:
    """A Delta table with a version for each of some tables; its URL."""
    from deltalake import write_deltalake

    for part in parts:
        write_deltalake(folder, part, mode="append", **options)
    return f"delta://{folder}"


def rewrite_log(folder: Path, edit: Callable[[dict[str, Any]], None], version: int = 0) -> None:
    """Change the actions of a commit to what somebody else might have written."""
    file = folder / "_delta_log" / f"{version:020}.json"
    actions = [json.loads(line) for line in file.read_text().splitlines()]
    for action in actions:
        edit(action)
    file.write_text("".join(json.dumps(action) + "\n" for action in actions))


def with_protocol(version: int, features: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """An edit that has a table need so much of its readers."""

    def edit(action: dict[str, Any]) -> None:
        if "protocol" in action:
            action["protocol"] = {
                "minReaderVersion": version,
                "minWriterVersion": 7,
                "readerFeatures": list(features),
                "writerFeatures": list(features),
            }

    return edit


def with_deletion_vector(action: dict[str, Any]) -> None:
    """An edit that takes rows out of a file: the vector itself need not be there."""
    with_protocol(3, ["deletionVectors"])(action)
    if "add" in action:
        action["add"]["deletionVector"] = {
            "storageType": "u",
            "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^",
            "offset": 4,
            "sizeInBytes": 40,
            "cardinality": 1,
        }


def with_path(path: str) -> Callable[[dict[str, Any]], None]:
    """An edit that has a table's log name another file."""

    def edit(action: dict[str, Any]) -> None:
        if "add" in action:
            action["add"]["path"] = path

    return edit


def iceberg_catalog(folder: Path, warehouse: str = "", **properties: str) -> dict[str, str]:
    """The properties of a catalog of SQLite below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "type": "sql",
        "uri": f"sqlite:///{folder / 'catalog.db'}",
        "warehouse": warehouse or f"file://{folder / 'warehouse'}",
        **properties,
    }


def iceberg_table(properties: dict[str, str], *parts: pa.Table, name: str = "db.posts") -> Any:
    """A table of a catalog, a snapshot for each of some Arrow tables."""
    from pyiceberg.catalog import load_catalog

    catalog = load_catalog("lake", **properties)
    catalog.create_namespace_if_not_exists(name.rpartition(".")[0])
    table = catalog.create_table(name, parts[0].schema)
    for part in parts:
        table.append(part)
    return table


def add_delete_manifest(table: Any) -> None:
    """Have the table's current snapshot name a manifest of deletes, as Spark or Flink write it."""
    from pyiceberg.manifest import ManifestContent, ManifestFile, write_manifest_list

    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io)
    deletes = ManifestFile.from_args(
        manifest_path=manifests[0].manifest_path + ".deletes.avro",
        manifest_length=1,
        partition_spec_id=0,
        content=ManifestContent.DELETES,
        sequence_number=snapshot.sequence_number,
        min_sequence_number=snapshot.sequence_number,
        added_snapshot_id=snapshot.snapshot_id,
        added_files_count=1,
        existing_files_count=0,
        deleted_files_count=0,
        added_rows_count=1,
        existing_rows_count=0,
        deleted_rows_count=0,
        partitions=[],
        key_metadata=None,
    )
    output = table.io.new_output(snapshot.manifest_list)
    with write_manifest_list(
        format_version=2,
        output_file=output,
        snapshot_id=snapshot.snapshot_id,
        parent_snapshot_id=None,
        sequence_number=snapshot.sequence_number,
        avro_compression="null",
    ) as writer:
        writer.add_manifests([*manifests, deletes])


def with_column_mapping(action: dict[str, Any]) -> None:
    """An edit that calls a table's columns otherwise than its files do."""
    with_protocol(3, ["columnMapping"])(action)
    if "metaData" in action:
        made = action["metaData"]
        made["configuration"]["delta.columnMapping.mode"] = "name"
        schema = json.loads(made["schemaString"])
        for number, field in enumerate(schema["fields"]):
            field["metadata"] = {
                "delta.columnMapping.id": number,
                "delta.columnMapping.physicalName": f"col-{number}",
            }
        made["schemaString"] = json.dumps(schema)
