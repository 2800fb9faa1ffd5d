"""Storage of any kind by URL: what the rest of the package uses of it.

`urls` finds the file system, `retries` is patient with it, `files` reads and writes, `failures`
says what a failure means for the person who runs the job.
"""

from moderay.core.storage.failures import no_credentials, plain_errors
from moderay.core.storage.files import (
    ListedFile,
    RemoteFile,
    create,
    details,
    files_below,
    find,
    get,
    modified,
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
    "ListedFile",
    "RemoteFile",
    "canonical_url",
    "create",
    "details",
    "files_below",
    "filesystem",
    "find",
    "get",
    "is_glob",
    "is_local",
    "modified",
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
