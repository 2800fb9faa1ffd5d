"""deltalake, and the job's `storage:` as it wants it, which has file systems of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moderay.core.errors import UserError
from moderay.core.redaction import shown
from moderay.core.storage import store_options

if TYPE_CHECKING:
    from deltalake import DeltaTable

# By protocol: an option of fsspec's file system, and what object_store calls it.
_S3 = {
    "key": "aws_access_key_id",
    "secret": "aws_secret_access_key",
    "token": "aws_session_token",
    "username": "aws_access_key_id",
    "password": "aws_secret_access_key",
    "endpoint_url": "aws_endpoint_url",
    "region_name": "aws_region",
    "aws_access_key_id": "aws_access_key_id",
    "aws_secret_access_key": "aws_secret_access_key",
    "aws_session_token": "aws_session_token",
    "anon": "aws_skip_signature",
}
_AZURE = {
    "account_name": "azure_storage_account_name",
    "account_key": "azure_storage_account_key",
    "sas_token": "azure_storage_sas_token",
    "tenant_id": "azure_storage_tenant_id",
    "client_id": "azure_storage_client_id",
    "client_secret": "azure_storage_client_secret",
    "anon": "azure_skip_signature",
}
_GOOGLE = {"token": "google_service_account", "endpoint_url": "google_base_url"}
_NAMES: dict[str, dict[str, str]] = {
    "s3": _S3,
    "s3a": _S3,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
}
# Options that say how fast fsspec reads and what it keeps, not where or as whom.
_TUNING = {
    *("config_kwargs", "default_block_size", "default_fill_cache", "default_cache_type"),
    *("max_concurrency", "use_listings_cache", "listings_expiry_time", "skip_instance_cache"),
    *("project", "cache_regions", "asynchronous", "block_size", "fixed_upload_size"),
}


def library() -> type[DeltaTable]:
    """The table of deltalake.

    Raises:
        UserError: It is not installed.
    """
    try:
        from deltalake import DeltaTable  # noqa: PLC0415  an extra
    except ImportError:
        raise UserError(
            "delta:// needs the package deltalake: pip install 'moderay[delta]', also on the "
            "cluster"
        ) from None
    return DeltaTable


def storage_options(url: str, job_storage: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """What deltalake opens a table with: `DeltaTable(uri, storage_options=options)`.

    What the job does not say, deltalake takes from the environment, as fsspec does.

    Args:
        url: `TableUrl.url` of a Delta table.
        job_storage: The job's `storage:`, options of fsspec.

    Returns:
        The table's URI, and options of object_store.

    Raises:
        UserError: deltalake does not know this store, or an option of it, or opens no such path.
    """
    if "%" in url:
        raise UserError(f"{shown(url)}: deltalake opens no table with a % in its path: move it")
    protocol, is_remote, path = url.partition("://")
    if not is_remote:
        return os.path.abspath(url), {}
    names = _NAMES.get(protocol)
    if names is None:
        known = ", ".join(f"{name}://" for name in _NAMES)
        raise UserError(
            f"{shown(url)}: a Delta table lies in a folder of this machine or in {known}"
        )
    given = _flat(store_options(protocol, job_storage))
    options = {}
    for name, value in given.items():
        if name in names:
            options[names[name]] = _text(value)
        elif name not in _TUNING:
            raise UserError(
                f"{shown(url)}: storage: {name} is not known for Delta tables, only "
                f"{', '.join(names)}; or set the store's environment variables"
            )
    if options.get("aws_endpoint_url", "").startswith("http://"):
        options["aws_allow_http"] = "true"
    scheme = {"gcs": "gs", "abfs": "abfss"}.get(protocol, protocol)
    return f"{scheme}://{path}", options


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with those of botocore's client, which s3fs takes apart from its own."""
    own = {name: value for name, value in options.items() if name != "client_kwargs"}
    return {**own, **(options.get("client_kwargs") or {})}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
