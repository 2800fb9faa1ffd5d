"""What `verify` says of a file that is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass

from moderay.core.records import OtherVersionError, RecordRefusedError
from moderay.labels.layout import Layout

# The remedy of what is broken and cannot be made again.
FOR_GOOD = "its input is gone: verify --repair removes what is left of it"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        path: Of the file, below the output.
        problem: What is wrong.
        remedy: What a person may do, in the imperative.
        drop: Paths of what a repair removes.
    """

    path: str
    problem: str
    remedy: str
    drop: tuple[str, ...] = ()


def refused(layout: Layout, path: str, error: RecordRefusedError) -> Finding:
    """A record that cannot be read; what another version of moderay knows is not dropped."""
    drop = () if isinstance(error, OtherVersionError) else (path,)
    return Finding(below(layout, path), error.reason, error.remedy, drop)


def below(layout: Layout, path: str) -> str:
    """A path as people are shown it: below the output."""
    return path.removeprefix(f"{layout.root}/")
