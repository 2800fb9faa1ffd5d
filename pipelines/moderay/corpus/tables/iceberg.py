"""An Iceberg table: which files its manifests name, in one snapshot."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moderay.core.errors import TryAgainError, UserError, first_line
from moderay.core.storage import store_options
from moderay.corpus.formats.table_schema import plainest_schema
from moderay.corpus.tables.location import ICEBERG, TableUrl
from moderay.corpus.tables.snapshot import DataFile, Snapshot, TableVersion, below

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile as Entry
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot as IcebergSnapshot

# The key of `storage:` under which catalogs stand, by name.
CATALOGS = "catalogs"
# An option of s3fs, and what pyiceberg calls it.
_S3 = {
    "key": "s3.access-key-id",
    "secret": "s3.secret-access-key",
    "token": "s3.session-token",
    "endpoint_url": "s3.endpoint",
    "region_name": "s3.region",
    "aws_access_key_id": "s3.access-key-id",
    "aws_secret_access_key": "s3.secret-access-key",
    "aws_session_token": "s3.session-token",
    "anon": "s3.anonymous",
}
_HADOOP_S3 = re.compile(r"^s3[an]://")
_SQLITE = "sqlite:///"
# By the names of errors, of which pyiceberg and SQLAlchemy need not be installed: what they mean.
_SAYS = {
    "NoSuchNamespaceError NoSuchTableError NoSuchIdentifierError": (
        "no such table is in this catalog ({reason})"
    ),
    "NotInstalledError ImportError": (
        "pyiceberg needs a further package for this catalog ({reason})"
    ),
    "UnauthorizedError ForbiddenError OAuthError AuthorizationExpiredError PermissionError": (
        "access denied ({reason}); check the credentials of the catalog {catalog} and of the store"
    ),
    "FileNotFoundError": (
        "a file of its metadata is gone ({reason}): the catalog names what is not there any more"
    ),
    "ValueError KeyError TypeError": (
        "pyiceberg cannot read it ({reason}); the catalog {catalog} stands in .pyiceberg.yaml, in "
        "PYICEBERG_CATALOG__... variables, or in storage.catalogs"
    ),
}


def iceberg_snapshot(
    table: TableUrl, version: int | datetime | None, storage: Mapping[str, Any]
) -> Snapshot:
    """The files of an Iceberg table.

    Args:
        table: Where it is.
        version: Which snapshot, or as of when; None: the current one.
        storage: The job's `storage:`.

    Raises:
        UserError: There is none, or none that can be read here.
        TryAgainError: The catalog or the store does not answer.
    """
    url = ICEBERG + "/".join((table.catalog, *table.namespace, table.table))
    with iceberg_errors(url, table):
        catalog = open_catalog(table.catalog, storage)
        opened = catalog.load_table((*table.namespace, table.table))
        io = _own_io(catalog, opened)
        snapshot = _snapshot(opened, version, url)
        # A state of before has the columns of then.
        is_old = snapshot is not None and version is not None
        scan = opened.scan(snapshot_id=snapshot.snapshot_id if snapshot and is_old else None)
        schema = plainest_schema(scan.projection().as_arrow())
        folder = _folder(opened, url)
        if snapshot is None:
            return Snapshot(TableVersion(url, None), folder, schema, ())
        files = tuple(_files(opened, snapshot, io, folder, url))
        written = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
    at = TableVersion(url, snapshot.snapshot_id, written.isoformat(timespec="seconds"))
    return Snapshot(at, folder, schema, files)


def open_catalog(name: str, storage: Mapping[str, Any]) -> Catalog:
    """A catalog of pyiceberg's configuration, or of `storage.catalogs`.

    Raises:
        UserError: pyiceberg is not installed, or the catalog is a file that cannot be read.
        ValueError: pyiceberg does not know the catalog.
    """
    try:
        from pyiceberg.catalog import load_catalog  # noqa: PLC0415  an extra
    except ImportError:
        raise UserError(
            "iceberg:// needs the package pyiceberg: pip install 'moderay[iceberg]'"
        ) from None
    from pyiceberg.utils.config import Config  # noqa: PLC0415  an extra

    own = {str(key): str(value) for key, value in storage.get(CATALOGS, {}).get(name, {}).items()}
    given = {**(Config().get_catalog_config(name) or {}), **own}
    place = str(given.get("uri", "")).partition("?")[0]
    if place.startswith(_SQLITE):
        _assert_readable(place.removeprefix(_SQLITE), name)
    # A reader makes no tables in a catalog's database.
    return load_catalog(name, **{**_s3_properties(storage), "init_catalog_tables": "false", **own})


def _assert_readable(database: str, name: str) -> None:
    """Assert that a catalog's database can be read: SQLite would make one, or not say why."""
    if not os.path.exists(database):
        raise UserError(f"iceberg://{name}: its catalog {database} is not there")
    if not os.access(database, os.R_OK):
        raise UserError(
            f"iceberg://{name}: its catalog {database}: access denied; whoever runs this has to be "
            "let in"
        )


def _s3_properties(storage: Mapping[str, Any]) -> dict[str, str]:
    """The job's options of S3 as pyiceberg's file systems have them."""
    options = store_options("s3", storage)
    options |= options.pop("client_kwargs", None) or {}
    return {_S3[name]: str(value) for name, value in options.items() if name in _S3}


def _own_io(catalog: Catalog, opened: Table) -> FileIO:
    """What reads the table's manifests, without what the table itself says of it.

    pyiceberg takes a table's properties for those of its store: whoever can write a table could
    have credentials sent to another endpoint.
    """
    from pyiceberg.io import load_file_io  # noqa: PLC0415  an extra

    told = opened.metadata.properties
    vended = {name: value for name, value in opened.io.properties.items() if name not in told}
    return load_file_io({**vended, **catalog.properties}, opened.metadata_location)


def _snapshot(opened: Table, version: int | datetime | None, url: str) -> IcebergSnapshot | None:
    """The snapshot that is asked for; None where the table has none yet."""
    if version is None:
        return opened.current_snapshot()
    if isinstance(version, int):
        found = opened.snapshot_by_id(version)
        asked = f"snapshot {version}"
    else:
        found = opened.snapshot_as_of_timestamp(int(version.timestamp() * 1000))
        asked = f"snapshot of {version.isoformat()}"
    if found is None:
        known = [str(snapshot.snapshot_id) for snapshot in opened.snapshots()]
        raise UserError(
            f"{url} has no {asked}: it has {', '.join(known[-3:]) or 'none'}"
            f"{f', and {len(known) - 3} older ones' if len(known) > 3 else ''}"
        )
    return found


def _folder(opened: Table, url: str) -> str:
    """The folder that holds a table's metadata, below which its files have to be."""
    folder, found, _ = opened.metadata_location.rpartition("/metadata/")
    if not found:
        raise UserError(
            f"{url}: its metadata {opened.metadata_location} is in no folder named metadata: "
            "only tables with their metadata beside their data are read"
        )
    return _local(folder)


def _local(location: str) -> str:
    """A location as this package writes it: a local one is a path, and S3 has one name."""
    if location.startswith("file:"):
        return "/" + location.removeprefix("file:").lstrip("/")
    return _HADOOP_S3.sub("s3://", location)


def _files(
    opened: Table, snapshot: IcebergSnapshot, io: FileIO, folder: str, url: str
) -> Iterator[DataFile]:
    from pyiceberg.manifest import FileFormat, ManifestContent  # noqa: PLC0415  an extra

    manifests = snapshot.manifests(io)
    for manifest in manifests:
        if manifest.content == ManifestContent.DELETES and _has_files(manifest):
            raise UserError(
                f"{url} has position or equality deletes: rows that are in its files and not in "
                "the table; write the files without them, with rewrite_data_files("
                "options => map('delete-file-threshold', '1'))"
            )
    for manifest in manifests:
        for entry in manifest.fetch_manifest_entry(io, discard_deleted=True):
            file = entry.data_file
            if file.file_format != FileFormat.PARQUET:
                raise UserError(
                    f"{url}: its file {file.file_path!r} is {file.file_format.name}, not Parquet: "
                    "rewrite the table"
                )
            yield DataFile(
                below(url, _below_folder(file.file_path, folder), file.file_path),
                _values(opened, manifest.partition_spec_id, file),
            )


def _has_files(manifest: ManifestFile) -> bool:
    return manifest.has_added_files() or manifest.has_existing_files()


def _below_folder(location: str, folder: str) -> str:
    """What a location is below a folder; the whole location where it is not below it."""
    place = _local(location)
    return place.removeprefix(f"{folder}/") if place.startswith(f"{folder}/") else f"//{location}"


def _values(opened: Table, spec: int, file: Entry) -> dict[str, Any]:
    """Columns by whose values the table is parted, and those whose first value is not null."""
    from pyiceberg.transforms import IdentityTransform  # noqa: PLC0415  an extra

    schema = opened.schema()
    values = {
        field.name: field.initial_default
        for field in schema.fields
        if field.initial_default is not None
    }
    for position, part in enumerate(opened.specs()[spec].fields):
        name = schema.find_column_name(part.source_id)
        if isinstance(part.transform, IdentityTransform) and name is not None:
            values[name] = file.partition[position]
    return values


@contextmanager
def iceberg_errors(url: str, table: TableUrl) -> Iterator[None]:
    """What pyiceberg raises, as one sentence.

    Raises:
        UserError: There is no such catalog or table, or one of them refuses.
        TryAgainError: The catalog or the store does not answer.
    """
    try:
        yield
    except (UserError, TryAgainError):
        raise
    except Exception as error:
        if (said := _said(error, url, table)) is None:
            raise
        raise said from None


def _said(error: Exception, url: str, table: TableUrl) -> UserError | TryAgainError | None:
    """What to say of an error of pyiceberg or of what lies below it; None where it is a bug."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    reason = first_line(error)
    for names, says in _SAYS.items():
        if kinds & set(names.split()):
            return UserError(f"{url}: {says.format(reason=reason, catalog=table.catalog)}")
    if kinds & {"OperationalError", "RESTError", "RequestException", "OSError"}:
        return TryAgainError(f"{url}: the catalog or the store does not answer ({reason})")
    return None
