"""URLs of tables: `delta://WHERE` and `iceberg://CATALOG/NAMESPACE/TABLE`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moderay.core.errors import UserError
from moderay.core.redaction import shown

DELTA = "delta://"
ICEBERG = "iceberg://"


@dataclass(frozen=True)
class TableUrl:
    """Where a table is.

    Attributes:
        kind: Which sort of table.
        url: Of Delta, the folder of the table: a path of this machine or the URL of a store. Of
            Iceberg, where the catalog says that it is: empty here.
        catalog: Of Iceberg, the catalog's name in pyiceberg's configuration.
        namespace: Of Iceberg, one part or several.
        table: Of Iceberg, the table's name.
    """

    kind: Literal["delta", "iceberg"]
    url: str = ""
    catalog: str = ""
    namespace: tuple[str, ...] = ()
    table: str = ""


def parse(url: str) -> TableUrl | None:
    """A table's URL taken apart; None for the URL of files.

    Raises:
        UserError: It begins like a table's and names none.
    """
    if url.startswith(DELTA):
        return TableUrl("delta", _folder(url))
    if url.startswith(ICEBERG):
        catalog, *namespace, table = _names(url)
        return TableUrl("iceberg", catalog=catalog, namespace=tuple(namespace), table=table)
    return None


def _folder(url: str) -> str:
    folder = url.removeprefix(DELTA)
    is_remote = "://" in folder
    if not folder.strip("/") or folder.startswith(("file:", DELTA, ICEBERG)):
        raise UserError(
            f"{shown(url)} names no table: delta:///FOLDER, delta://FOLDER beside the job file, or "
            "delta://s3://BUCKET/FOLDER"
        )
    if is_remote and {".", ".."} & set(folder.split("/")):
        raise UserError(f"{shown(url)}: a store has no folders . and ..: write the path without")
    return folder.rstrip("/")


def _names(url: str) -> list[str]:
    """Catalog, parts of the namespace, and table."""
    names = url.removeprefix(ICEBERG).rstrip("/").split("/")
    if len(names) < 3 or not all(names):
        raise UserError(f"{shown(url)} names no table: iceberg://CATALOG/NAMESPACE/TABLE")
    return names
