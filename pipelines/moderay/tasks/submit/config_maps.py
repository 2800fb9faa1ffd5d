"""A job's files in ConfigMaps, as few as hold them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moderay.core.errors import UserError
from moderay.core.hashing import digest

# Bytes of one ConfigMap: Kubernetes takes 1 MiB of keys and values.
CONFIG_BYTES = 1_000_000
# Characters of a key, of which Kubernetes takes 253.
_KEY_LENGTH = 200

Manifest = dict[str, Any]


@dataclass(frozen=True)
class ConfigMap:
    """Files in a ConfigMap.

    Attributes:
        manifest: For Kubernetes.
        paths: By key, the path of its file below the folder where it is mounted.
    """

    manifest: Manifest
    paths: Mapping[str, str]

    def source(self) -> Manifest:
        """As a volume takes it."""
        items = [{"key": key, "path": path} for key, path in self.paths.items()]
        return {"configMap": {"name": self.manifest["metadata"]["name"], "items": items}}


def labels_of(name: str) -> dict[str, str]:
    """Kubernetes' labels of what belongs to a job."""
    return {"app.kubernetes.io/name": "moderay", "app.kubernetes.io/instance": name}


def config_maps(name: str, files: Mapping[str, bytes | Path]) -> Iterator[ConfigMap]:
    """The ConfigMaps of a job's files, which are given by path.

    Raises:
        UserError: A file is too large for one.
    """
    batch: dict[str, bytes] = {}
    for path, content in sorted(files.items()):
        data = content.read_bytes() if isinstance(content, Path) else content
        if len(data) > CONFIG_BYTES:
            raise UserError(
                f"{path} has {len(data) / 2**20:.1f} MiB, and a ConfigMap takes 1: make it "
                "smaller, or start infra/raycluster.yaml and submit with --address"
            )
        if batch and sum(map(len, batch.values())) + len(data) > CONFIG_BYTES:
            yield _config_map(name, batch)
            batch = {}
        batch[path] = data
    yield _config_map(name, batch)


def _config_map(name: str, files: Mapping[str, bytes]) -> ConfigMap:
    """Text as text, for people who review it.

    The name has the hash of what is in it: a run that goes on, or begins at night, finds what it
    was submitted with, whatever has been submitted since.
    """
    paths = _keys(files)
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, path in paths.items():
        try:
            text[key] = files[path].decode("utf-8")
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(files[path]).decode()
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{name}-{digest([text, binary, paths])[:8]}",
            "labels": labels_of(name),
        },
        "immutable": True,
    }
    if text:
        manifest["data"] = text
    if binary:
        manifest["binaryData"] = binary
    return ConfigMap(manifest, paths)


def _keys(paths: Iterable[str]) -> dict[str, str]:
    """Paths by what a ConfigMap takes for a key: no slash, and not two the same."""
    by_key: dict[str, str] = {}
    for path in paths:
        key = re.sub("[^A-Za-z0-9._-]", "_", path)[-_KEY_LENGTH:]
        by_key[f"{key}-{len(by_key)}" if key in by_key else key] = path
    return by_key
