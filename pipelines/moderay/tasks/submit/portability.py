"""What of a job file must not go to another machine: paths of this one, and secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moderay.config.paths import SCRIPTED
from moderay.config.yaml_document import VARIABLE, Document
from moderay.core.storage import shown

# Keys whose values are secrets, in the options of stores and engines: aws_secret_access_key,
# secretAccessKey, X-Api-Key, Authorization.
_SECRET = re.compile(
    r"(?:^|[_-]|(?<=[a-z])(?=[A-Z]))(?i:(?:api|access|secret)?key|secret|token|password|passwd|passphrase|credentials?|"
    r"connection_string|connectionstring|authorization|auth|cookie|sas|signature|sig)$"
)
_SHARED = "a URL, or the absolute path of a folder that all nodes share"
_ENVIRONMENT = (
    "leave it out and set the store's usual variables there, or write ${NAME} in "
    "storage:, which is filled in there"
)


def note_what_stays_here(document: Document, folder: Path) -> None:
    """Note, as the document's problems, whatever would mean something else there, or be seen.

    Args:
        document: A job file.
        folder: Where it lies.
    """
    for key, value in _texts(document.data):
        for message, hint in (*_path_problems(key, value, folder), *_secret_problems(key, value)):
            document.wrong(key, f"{key}: {message}", hint)


def _path_problems(key: str, value: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Messages and hints."""
    section, _, rest = key.partition(".")
    is_data = (section in ("input", "output") and rest.split(".")[0] == "path") or (
        section == "reuse"
    )
    if is_data:
        if "://" not in value and not value.startswith(("/", "${")):
            yield f"{value!r} lies beside the job file, where no node of a cluster looks", _SHARED
    elif key == "model.source":
        is_remote = value.startswith((SCRIPTED, "/")) or "://" in value
        if not is_remote and (folder / value).is_dir():
            yield (
                f"the folder {value!r} is not shipped: weights are too large",
                f"a hub id, {_SHARED}",
            )


def _secret_problems(key: str, value: str) -> Iterator[tuple[str, str]]:
    """Messages and hints."""
    address = value.partition("?")[0]
    if shown(address) != address:
        yield "user and password in a URL would lie on the cluster in clear", _ENVIRONMENT
    elif shown(value) != value or _has_signed_query(value):
        yield (
            "the signature or key in a URL's query would lie on the cluster in clear",
            _ENVIRONMENT,
        )
    in_storage = key.startswith("storage.")
    if not in_storage and not key.startswith("model.engine."):
        return
    if _SECRET.search(key.rpartition(".")[2]) and not VARIABLE.search(value):
        yield (
            "a secret would lie on the cluster in clear",
            _ENVIRONMENT if in_storage else "set it in the workers' environment",
        )


def _has_signed_query(value: str) -> bool:
    """Whether a URL's query opens what it names: X-Amz-Signature, sig, token, api_key."""
    if "://" not in value:
        return False
    names = (part.partition("=")[0] for part in re.split("[?&;]", value)[1:])
    return any(_SECRET.search(name) for name in names)


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text and number below, with its dotted key: a password may be all digits."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        yield key, str(value)
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _texts(below, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _texts(below, f"{key}.{number}".lstrip("."))
