"""A model's files, wherever they lie.

That is in a folder, in this package (`tiny`), in an object store, or on a hub. Those of an object
store are fetched once per machine, by whichever engine comes first. Credentials and endpoint come
from the environment of the process that fetches.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from moderay.core.errors import UserError
from moderay.core.events import event
from moderay.core.hashing import digest
from moderay.core.storage import filesystem, patiently, plain_errors, read, shown, version

# The embedded checkpoint of the real gpt-oss architecture, for trying and testing (tiny/CARD.md).
TINY = "tiny"
TINY_FOLDER = Path(__file__).parent / "tiny"
TINY_NOTICE = "tiny is for trying and testing: its labels on real content mean nothing"

# What a model is loaded from: never the pickles that may lie beside it, nor what publishers keep in
# folders below.
LOADED = (".safetensors", ".json", ".txt", ".model", ".jinja")
# What an identity is made of.
IDENTIFYING = (".safetensors", ".json")
# Files fetched at once.
PARALLEL = 4
# Environment variable of the folder that fetched weights are kept in.
CACHE = "MODERAY_CACHE"


def located(source: str) -> str:
    """A model's source as a library takes it on this machine.

    `tiny` lies where this package does, on each machine elsewhere; a folder of an object store is
    fetched, if nobody has yet.

    Args:
        source: A hub id, a folder, a URL, or `tiny`.

    Returns:
        A folder of this machine, or the hub id.

    Raises:
        UserError: It holds no model, or this disk has no room for it.
        TryAgainError: The store does not answer.
    """
    if source == TINY:
        return str(TINY_FOLDER)
    return str(_fetched(source)) if "://" in source else source


def identity(source: str) -> str:
    """What a judge key has of a model.

    A hub id as it is; a folder by its files' names and sizes and the text of its config, wherever
    it lies.
    """
    if "://" in source:
        sizes = {name: int(info["size"]) for name, info in _listed(source).items()}
    elif (folder := Path(located(source))).is_dir():
        sizes = {item.name: item.stat().st_size for item in folder.iterdir()}
    else:
        return source
    files = sorted((name, size) for name, size in sizes.items() if name.endswith(IDENTIFYING))
    return digest({"files": files, "config": text(source, "config.json") or ""})


def text(source: str, name: str) -> str | None:
    """A small file of a model; None where there is none, or where the model is a hub's."""
    if "://" in source:
        with plain_errors(source):
            fs, path = filesystem(source)
            data = read(fs, f"{path}/{name}")
        return None if data is None else data.decode("utf-8")
    file = Path(located(source)) / name
    return file.read_text(encoding="utf-8") if file.is_file() else None


def stored_names(source: str) -> list[str]:
    """The files that a model in an object store is loaded from.

    Raises:
        UserError: It holds no model.
        TryAgainError: The store does not answer.
    """
    return list(_listed(source))


def stored_size(source: str, name: str) -> int:
    """Bytes of one of them."""
    return int(_listed(source)[name]["size"])


def _fetched(source: str) -> Path:
    """The folder of this machine that holds a model of an object store, whole.

    Other weights under the same URL are another folder.
    """
    files = _listed(source)
    kept = Path(os.environ.get(CACHE) or Path.home() / ".cache/moderay") / "weights"
    folder = kept / digest(
        [source, sorted((name, int(info["size"]), version(info)) for name, info in files.items())]
    )
    folder.mkdir(parents=True, exist_ok=True)
    # Of several engines on a machine one fetches, and the others find it done; a lock ends with the
    # process that holds it.
    with FileLock(f"{folder}.lock"):
        for cut_off in folder.glob("*.part"):
            cut_off.unlink()
        missing = {name: info for name, info in files.items() if not (folder / name).is_file()}
        if missing:
            _fetch(source, missing, folder)
    return folder


def _fetch(source: str, files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    needed = sum(int(info["size"]) for info in files.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"model {shown(source)!r} needs {needed / 1e9:,.1f} GB in {folder.parent} on "
            f"{os.uname().nodename}, where {free / 1e9:,.1f} are free: "
            f"make room, or name another folder in {CACHE} in the environment of the cluster's "
            "processes"
        )
    event("weights begun", model=shown(source), bytes=needed)
    with plain_errors(source):
        fs, path = filesystem(source)

        def fetch(name: str) -> None:
            aside = folder / f"{name}.part"
            patiently(fs, lambda: fs.get_file(f"{path}/{name}", str(aside)))
            if aside.stat().st_size != int(files[name]["size"]):
                raise OSError(
                    f"{name}: {aside.stat().st_size:,} bytes came instead of "
                    f"{int(files[name]['size']):,}"
                )
            aside.replace(folder / name)

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(fetch, files))
    event("weights fetched", model=shown(source), bytes=needed)


def _listed(source: str) -> dict[str, Mapping[str, Any]]:
    """What a model in an object store is loaded from, with the store's details, by name."""
    with plain_errors(source):
        fs, path = filesystem(source)
        fs.invalidate_cache()
        entries = patiently(fs, lambda: fs.ls(path, detail=True))
    files = {info["name"].rsplit("/", 1)[1]: info for info in entries if info["type"] == "file"}
    loaded = {name: info for name, info in files.items() if name.endswith(LOADED)}
    if "config.json" not in loaded or not any(name.endswith(".safetensors") for name in loaded):
        raise UserError(f"{shown(source)} holds no model: config.json and *.safetensors are needed")
    return loaded
