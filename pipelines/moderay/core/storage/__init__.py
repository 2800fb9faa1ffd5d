"""Storage of any kind by URL: what the rest of the package uses of it.

`urls` finds the file system, `retries` is patient with it, `files` reads and writes, `disks` knows
what this machine may run out of, `failures` says what a failure means for the person who runs the
job.
"""

from moderay.core.storage.disks import exhausted, on_disk, scratch_folder
from moderay.core.storage.failures import machine_fault, no_credentials, plain_errors
from moderay.core.storage.files import (
    RemoteFile,
    create,
    details,
    find,
    get,
    names_below,
    put_bytes,
    put_file,
    read,
    remove,
    stamp,
    version,
)
from moderay.core.storage.retries import patiently
from moderay.core.storage.urls import canonical_url, filesystem, is_glob, is_local, shown

__all__ = [
    "RemoteFile",
    "canonical_url",
    "create",
    "details",
    "exhausted",
    "filesystem",
    "find",
    "get",
    "is_glob",
    "is_local",
    "machine_fault",
    "names_below",
    "no_credentials",
    "on_disk",
    "patiently",
    "plain_errors",
    "put_bytes",
    "put_file",
    "read",
    "remove",
    "scratch_folder",
    "shown",
    "stamp",
    "version",
]
