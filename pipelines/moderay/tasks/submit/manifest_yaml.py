"""Manifests as YAML that people can read and Kubernetes reads as it is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

# Strings that Kubernetes' YAML would read as something else, though Python's would not, and their
# neighbours: 1e3, 0o7, y.
_LIKE_OTHERS = re.compile(r"[-+.]?\d|[yn]$", re.IGNORECASE)


def to_yaml(manifests: Sequence[dict[str, Any]]) -> str:
    """Manifests as the documents of one YAML text."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=160)


class _Dumper(yaml.SafeDumper):
    """Several lines as a block and nothing by reference, for people.

    Strings are strings in every YAML, for Kubernetes.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text:
        style = "|"
    elif _LIKE_OTHERS.match(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)
