"""Storage of any kind by URL: what the rest of the package uses of it.

`urls` finds the file system, `retries` is patient with it, `files` reads and writes, `opened` reads
by ranges, `failures` says what a failure means for the person who runs the job.
"""

from moderay.core.storage.failures import no_credentials, plain_errors
from moderay.core.storage.files import (
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
from moderay.core.storage.opened import ChangedError, FileState, RemoteFile, ctime_ns
from moderay.core.storage.retries import patiently
from moderay.core.storage.urls import canonical_url, filesystem, is_glob, is_local, shown

__all__ = [
    "ChangedError",
    "FileState",
    "RemoteFile",
    "canonical_url",
    "create",
    "ctime_ns",
    "details",
    "filesystem",
    "find",
    "get",
    "is_glob",
    "is_local",
    "names_below",
    "no_credentials",
    "patiently",
    "plain_errors",
    "put_bytes",
    "put_file",
    "read",
    "remove",
    "shown",
    "stamp",
    "version",
]
