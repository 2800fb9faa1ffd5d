"""A Delta table: which files its log names, at one version."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from moderay.core.errors import TryAgainError, UserError, first_line
from moderay.core.redaction import shown
from moderay.core.storage import filesystem, plain_errors, read
from moderay.corpus.formats.table_schema import plainest_schema
from moderay.corpus.tables.delta_store import library, storage_options
from moderay.corpus.tables.location import DELTA, TableUrl
from moderay.corpus.tables.snapshot import DataFile, Snapshot, TableVersion, below, decoded

if TYPE_CHECKING:
    from deltalake import DeltaTable

# A table's folder of commits.
LOG = "_delta_log"
# What a reader has to know of the tables that are read here, beside plain ones.
_FEATURES = {
    *("timestampNtz", "deletionVectors", "v2Checkpoint", "vacuumProtocolCheck", "columnMapping"),
}
_NEWEST = 3
# What terminals show in colours, and the numbered stack of a Rust error.
_NOISE = re.compile(r"\x1b\[[0-9;]*m|↳|<\?xml[\s\S]*|\n\s+\d+: [\s\S]*")
_REFUSED = re.compile(
    r"\b40[13]\b|AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|Permission denied"
)
_ABSENT = re.compile(r"\b404\b|NoSuchBucket|does not exist|No files in log segment")
_NEWER = re.compile(r"Unsupported|Invalid protocol|[Ff]eature")


def delta_snapshot(
    table: TableUrl, version: int | datetime | None, storage: Mapping[str, Any]
) -> Snapshot:
    """The files of a Delta table.

    Args:
        table: Where it is.
        version: Which version, or as of when; None: the latest.
        storage: The job's `storage:`.

    Raises:
        UserError: There is none, or none that can be read here.
        TryAgainError: The store does not answer.
    """
    url = shown(DELTA + table.url)
    uri, options = storage_options(table.url, storage)
    delta_table = library()
    with delta_errors(url):
        opened = delta_table(uri, storage_options=options)
        if isinstance(version, datetime):
            asked = version
            version = _version_at(asked, opened.version(), lambda at: _written(uri, at, storage))
            if version < 0:
                raise UserError(f"{url} has no version of {_iso(asked)}, as far as its log tells")
        if version is not None:
            _travel(opened, version, url)
        _assert_readable(opened, url)
        files = pa.table(opened.get_add_actions()).to_pylist()
        schema = plainest_schema(pa.schema(opened.schema().to_arrow()))
    written = _written(uri, opened.version(), storage)
    at = TableVersion(url, opened.version(), _iso(written))
    return Snapshot(
        at,
        uri,
        schema,
        tuple(
            DataFile(
                below(url, decoded(file["path"]), file["path"]),
                file.get("partition") or {},
            )
            for file in files
        ),
    )


def _travel(opened: DeltaTable, version: int, url: str) -> None:
    """Go to a version."""
    from deltalake.exceptions import DeltaError  # noqa: PLC0415  an extra

    latest = opened.version()
    # deltalake counts up to a number that is too high, commit by commit.
    if not 0 <= version <= latest:
        raise UserError(
            f"{url} has no version {version}: input.version may be 0 to {latest}, as far as its "
            "log goes back"
        )
    try:
        opened.load_as_version(version)
    except DeltaError as error:
        raise UserError(
            f"{url}: version {version} is not in its log any more ({_reason(error)}): name a "
            "later input.version"
        ) from None


def _version_at(time: datetime, latest: int, written: Callable[[int], datetime | None]) -> int:
    """The last version that was written by a time; -1 where the log knows of none.

    By what the commits say. deltalake goes by the times of their files, which a copy has anew.

    Args:
        time: The time.
        latest: The latest version.
        written: When a version was written; None of those that are in the log no more.
    """
    below, above = -1, latest + 1
    while above - below > 1:
        middle = (below + above) // 2
        at = written(middle)
        below, above = (middle, above) if at is None or at <= time else (below, middle)
    return below if below < 0 or written(below) is not None else -1


def _written(folder: str, version: int, storage: Mapping[str, Any]) -> datetime | None:
    """When a version was written, as its commit says; None where that is gone, or does not say.

    deltalake's own `history` numbers the commits wrongly where an earlier version is loaded.
    """
    fs, root = filesystem(folder, storage)
    with plain_errors(folder):
        commit = read(fs, f"{root}/{LOG}/{version:020}.json")
    actions = map(json.loads, (commit or b"").splitlines())
    infos = (action["commitInfo"] for action in actions if "commitInfo" in action)
    info: dict[str, Any] = next(infos, {})
    stamp = info.get("inCommitTimestamp", info.get("timestamp"))
    return None if stamp is None else datetime.fromtimestamp(stamp / 1000, UTC)


def _iso(time: datetime | None) -> str:
    return "" if time is None else time.isoformat(timespec="seconds")


def _assert_readable(opened: DeltaTable, url: str) -> None:
    """Assert that the files are what the table holds: nothing is hidden, renamed or widened.

    Raises:
        UserError: A reader has to do more than read the files.
    """
    protocol = opened.protocol()
    unknown = sorted({*(protocol.reader_features or ())} - _FEATURES)
    if unknown or protocol.min_reader_version > _NEWEST:
        need = ", ".join(unknown) or f"reader version {protocol.min_reader_version}"
        raise UserError(
            f"{url} needs {need} of its readers, which moderay does not know: drop the feature "
            "(ALTER TABLE ... DROP FEATURE), or write a copy without"
        )
    mode = opened.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode != "none":
        raise UserError(
            f"{url} maps its columns by {mode}: set delta.columnMapping.mode to none, which "
            "rewrites the files, or write a copy"
        )
    if _has_deletion_vectors(opened):
        raise UserError(
            f"{url} has deletion vectors: rows that are in its files and not in the table; write "
            "the files without them, with REORG TABLE ... APPLY (PURGE)"
        )


def _has_deletion_vectors(opened: DeltaTable) -> bool:
    from deltalake.exceptions import DeltaError  # noqa: PLC0415  an extra

    try:
        return bool(pa.table(opened.deletion_vectors()).num_rows)
    except DeltaError:
        # One is named, and it is gone or does not fit its file.
        return True


@contextmanager
def delta_errors(url: str) -> Iterator[None]:
    """What deltalake raises, as one sentence.

    Raises:
        UserError: There is no such table, it is broken, or the store refuses.
        TryAgainError: The store does not answer.
    """
    from deltalake.exceptions import DeltaError, TableNotFoundError  # noqa: PLC0415  an extra

    try:
        yield
    except TableNotFoundError as error:
        raise UserError(f"{url}: no Delta table is there ({_reason(error)})") from None
    except (DeltaError, OSError) as error:
        reason = _reason(error)
        if _ABSENT.search(str(error)):
            raise UserError(f"{url}: no Delta table is there ({reason})") from None
        if _REFUSED.search(str(error)):
            raise UserError(
                f"{url}: access denied ({reason}); check storage:, the store's environment "
                "variables, and who may read its files"
            ) from None
        if isinstance(error, OSError):
            raise TryAgainError(f"{url}: the storage does not answer ({reason})") from None
        if _NEWER.search(reason):
            raise UserError(
                f"{url} is of a Delta protocol that is not known here ({reason}): take a newer "
                "deltalake, or write a copy without"
            ) from None
        raise UserError(f"{url}: the table's log cannot be read ({reason})") from None


def _reason(error: Exception) -> str:
    """What a Rust error says first and last, in one line."""
    lines = [" ".join(line.split()) for line in _NOISE.sub("", str(error)).splitlines()]
    lines = [line for line in lines if line]
    said = lines[0] if len(lines) < 2 else f"{lines[0]}: {lines[-1]}"
    return first_line(Exception(said[:300])) if lines else type(error).__name__
