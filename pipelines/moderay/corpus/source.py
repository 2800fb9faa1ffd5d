"""What an entry of `input.path` was found to name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moderay.corpus.shard import Shard
from moderay.corpus.tables.snapshot import TableVersion

# Size of a file that its store's listing does not say.
UNKNOWN = -1


@dataclass(frozen=True)
class Source:
    """What an entry of `input.path` names.

    Attributes:
        url: As the job has it.
        shards: Its files, without what their footers say.
        lost: By name, what may hold input and cannot be looked into: why.
        passed_over: Names of what is no input: hidden, of another kind, no file.
        roots: Canonical URLs of the folder or file it begins at, and of folders behind links in it.
        real: By canonical URL of each file, its `url` in `shards`.
        table: Of a table, which version its files are of.
    """

    url: str
    shards: tuple[Shard, ...]
    lost: Mapping[str, str]
    passed_over: tuple[str, ...]
    roots: tuple[str, ...]
    real: Mapping[str, str]
    table: TableVersion | None = None
