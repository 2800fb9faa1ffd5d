"""What was in which input file when, and so what its label file must hold.

The scripted engine answers from the content (`script`): a text's number tells its label and its
rationale. So a label of another content is seen, whether or not the content stands beside it, and
`content_hash` tells which content a label is of.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from support.project import ROOT

POLICY = "spam"
# As long as each other, so that other texts make a file of the same size.
WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "hazel")
LABELS = ("SP0", "SP2", "SP4")

Text = str | None


def text(number: int) -> str:
    """A content like no other."""
    return f"{WORDS[number % len(WORDS)]} {number:07}"


def script() -> dict[str, Any]:
    """Rules of the scripted engine: a label and a rationale for each word."""
    rules = [
        {
            "content": f"^{word} ",
            "answer": f'{{"label": "{LABELS[number % 3]}", "rationale": "It is {word}."}}',
            "reasoning": word,
        }
        for number, word in enumerate(WORDS)
    ]
    return {"default": {"fail": "request"}, "rules": rules}


def policy() -> str:
    return str(ROOT / "policies" / POLICY)


def expected(content: Text) -> tuple[str, str | None, str | None]:
    """Status, label and rationale of a content."""
    if content is None:
        return "empty", None, None
    word = content.partition(" ")[0]
    return "ok", LABELS[WORDS.index(word) % 3], f"It is {word}."


def content_hash(content: Text) -> str | None:
    if content is None:
        return None
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def label_name(name: str) -> str:
    """The label file of an input file."""
    return name.partition(".")[0] + ".parquet"


@dataclass(frozen=True)
class Version:
    """What a file held for a while.

    Attributes:
        texts: Of its rows.
        data: Its bytes.
        mtime_ns: When it was written, where the store takes such a time back.
    """

    texts: tuple[Text, ...]
    data: bytes
    mtime_ns: int | None = None

    @property
    def contents(self) -> set[str]:
        return {content for content in self.texts if content is not None}


class Truth:
    """The model.

    Attributes:
        now: What each input file holds.
        ever: What each has held, the first time first.
        published: What each label file is of, as of the last time that all was right.
    """

    def __init__(self) -> None:
        self.now: dict[str, Version] = {}
        self.ever: defaultdict[str, list[Version]] = defaultdict(list)
        self.published: dict[str, Version] = {}

    def put(self, name: str, version: Version) -> None:
        """A file holds this from now on."""
        self.now[name] = version
        self.ever[label_name(name)].append(version)

    def wrong_now(self, labels: Mapping[str, pa.Table], pruned: bool) -> Iterator[str]:
        """How an output that is said to be complete contradicts the input, a sentence each.

        Args:
            labels: Its label files.
            pruned: Whether labels of files that are gone must be gone as well.
        """
        names = {label_name(name): version for name, version in self.now.items()}
        for name, version in names.items():
            if name not in labels:
                yield f"{name}: there are no labels"
            else:
                yield from wrong_rows(name, labels[name], [version])
        for name in labels.keys() - names.keys():
            if pruned:
                yield f"{name}: the input is gone, and its labels are not"
            else:
                yield from wrong_rows(name, labels[name], self.ever[name])

    def wrong_ever(self, labels: Mapping[str, pa.Table]) -> Iterator[str]:
        """How label files contradict all that their inputs have ever held."""
        for name, table in labels.items():
            yield from wrong_rows(name, table, self.ever[name])

    def settle(self, labels: Iterable[str]) -> None:
        """All is right now, and these label files are there."""
        now = {label_name(name): version for name, version in self.now.items()}
        self.published = {
            name: now.get(name, self.published.get(name, Version((), b""))) for name in labels
        }

    def alive(self) -> dict[str, int]:
        """By label file, how many versions of its input are over."""
        there = {label_name(name) for name in self.now}
        return {name: len(versions) - (name in there) for name, versions in self.ever.items()}

    def to_pay(self, since: Mapping[str, int]) -> Counter[str]:
        """How often each content may be asked for: once for every version of a file that has
        lived, unless the labels that the file has hold it.

        Args:
            since: By label file, how many of its versions were over by then.
        """
        paid: Counter[str] = Counter()
        for name, versions in self.ever.items():
            there = self.published.get(name, Version((), b"")).contents
            for version in versions[since.get(name, 0) :]:
                paid.update(version.contents - there)
        return paid


def wrong_rows(name: str, table: pa.Table, versions: list[Version]) -> Iterator[str]:
    """How a label file is none of any of these versions."""
    hashes = table.column("content_hash").to_pylist()
    for version in reversed(versions):
        if hashes == [content_hash(content) for content in version.texts]:
            yield from _wrong_verdicts(name, table, version)
            return
    held = [len(version.texts) for version in versions]
    yield f"{name}: its {len(hashes)} rows are of no version of its input (with {held} rows)"


def _wrong_verdicts(name: str, table: pa.Table, version: Version) -> Iterator[str]:
    if table.column("row").to_pylist() != list(range(len(version.texts))):
        yield f"{name}: its rows are not numbered from 0"
    if "text" in table.column_names and table.column("text").to_pylist() != [*version.texts]:
        yield f"{name}: other texts stand beside its labels than were judged"
    for row, (content, verdict) in enumerate(
        zip(version.texts, table.column(POLICY).to_pylist(), strict=True)
    ):
        seen = verdict["status"], verdict["label"], verdict["rationale"]
        if seen != expected(content):
            yield f"{name} row {row}: {content!r} is {expected(content)}, its label says {seen}"
