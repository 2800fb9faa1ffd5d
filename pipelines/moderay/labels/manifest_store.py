"""The manifests of an output: a chain of files of which the last counts, none ever overwritten.

A manifest is made from the one before it, and created under the next number only if nobody else has
created that one meanwhile: what two drivers write at once is put in one after the other.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from moderay.core.records import OtherVersionError
from moderay.core.storage import filesystem, is_local, patiently, read, remove
from moderay.labels.layout import PRIVATE, Layout
from moderay.labels.manifest_record import Manifest

# Manifests that are kept: the last one, and those that somebody may just be reading.
KEPT = 8
_NUMBER = re.compile(r"manifest-(\d+)\.json")
# The one manifest, over which earlier versions wrote.
_FIRST_FORM = "manifest.json"


def read_manifest(layout: Layout) -> Manifest | None:
    """The output's manifest; None where there is none.

    Raises:
        RecordRefusedError: it is of another version, or damaged.
    """
    return _last(layout)[1]


def append_manifest(layout: Layout, change: Callable[[Manifest | None], Manifest]) -> Manifest:
    """Put a manifest behind the last one.

    Args:
        layout: of the output.
        change: the new manifest, made from the last one; called again where another driver was
            faster.

    Raises:
        RecordRefusedError: the last one is of another version, or damaged.
    """
    while True:
        number, before = _last(layout)
        # No other writer's is like it, as `create` needs.
        manifest = change(before).model_copy(update={"id": uuid.uuid4().hex})
        if layout.create(manifest_path(layout, number + 1), manifest.to_json()):
            for old in manifest_numbers(layout):
                if old <= number + 1 - KEPT:
                    remove(layout.fs, manifest_path(layout, old))
            return manifest


def manifest_path(layout: Layout, number: int) -> str:
    """Path of a manifest."""
    return layout.private(f"manifest-{number}.json")


def manifest_numbers(layout: Layout) -> list[int]:
    """Numbers of the manifests that are there, rising."""
    return sorted(
        int(match[1])
        for name in _names(layout, layout.private(""))
        if (match := _NUMBER.fullmatch(name))
    )


def _last(layout: Layout) -> tuple[int, Manifest | None]:
    """The last manifest with its number, from 1; (0, None) where there is none."""
    while numbers := manifest_numbers(layout):
        path = manifest_path(layout, numbers[-1])
        # One that is gone by now is no longer the last.
        if (data := read(layout.fs, path)) is not None:
            return numbers[-1], Manifest.from_json(data, path)
    if _FIRST_FORM in _names(layout, layout.private("")):
        raise OtherVersionError(
            layout.private(_FIRST_FORM),
            "is of an earlier version of moderay, whose labels this one neither reads nor writes",
            "read them with that version",
            "label into a new output.path",
        )
    return 0, None


def _names(layout: Layout, folder: str) -> list[str]:
    """Names of the files in a folder; none where there is no such folder."""
    fs = layout.fs
    fs.invalidate_cache(folder.rstrip("/"))
    try:
        paths = patiently(fs, lambda: fs.ls(folder.rstrip("/"), detail=False))
    except FileNotFoundError:
        return []
    return [path.rpartition("/")[2] for path in paths]


def outputs(url: str, options: Mapping[str, Any]) -> list[str]:
    """The outputs that a glob such as labels/date=* names, in order."""
    fs, path = filesystem(url, options)
    pattern = f"{path.rstrip('/')}/{PRIVATE}/manifest-*.json"
    folders = sorted(
        {name.rpartition(f"/{PRIVATE}/")[0] for name in patiently(fs, lambda: fs.glob(pattern))}
    )
    return folders if is_local(fs) else [fs.unstrip_protocol(name) for name in folders]
