"""Storage of any kind by URL: what the rest of the package uses of it.

`urls` finds the file system, `retries` is patient with it, `listing` says what there is, `files`
reads and writes, `probe` tries whether it may, `opened` reads by ranges, `stamps` tells a file from
another of its name, `disks` knows what this machine may run out of, `failures` says what a failure
means for the person who runs the job.
"""

from moderay.core.storage.disks import exhausted, on_disk, scratch_folder
from moderay.core.storage.failures import machine_fault, no_credentials, plain_errors
from moderay.core.storage.files import (
    ListedFile,
    create,
    details,
    file_size,
    files_below,
    get,
    modified,
    put_bytes,
    put_file,
    read,
    remove,
    size_and_version,
    version,
)
from moderay.core.storage.listing import Listing, glob_root, list_folder, list_glob
from moderay.core.storage.opened import ChangedError, FileState, RemoteFile
from moderay.core.storage.probe import assert_writable
from moderay.core.storage.retries import patiently
from moderay.core.storage.stamps import HASHED, content_version, stamp
from moderay.core.storage.urls import (
    canonical,
    canonical_url,
    filesystem,
    is_glob,
    is_local,
    is_web,
    listed_file,
    listed_url,
    shown,
    store_options,
)

__all__ = [
    "HASHED",
    "ChangedError",
    "FileState",
    "ListedFile",
    "Listing",
    "RemoteFile",
    "assert_writable",
    "canonical",
    "canonical_url",
    "content_version",
    "create",
    "details",
    "exhausted",
    "file_size",
    "files_below",
    "filesystem",
    "get",
    "glob_root",
    "is_glob",
    "is_local",
    "is_web",
    "list_folder",
    "list_glob",
    "listed_file",
    "listed_url",
    "machine_fault",
    "modified",
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
    "size_and_version",
    "stamp",
    "store_options",
    "version",
]
