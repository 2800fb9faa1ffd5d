"""The input of a soak: files that come, go and change, as a model of the truth notes them."""

from __future__ import annotations

import gzip
import io
import json
import random
import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from support.soak_plan import Change
from support.stores import Store
from support.truth import Text, Truth, Version, label_name, text

# Rows of a new file.
ROWS = (20, 60)
# Files that there are at least and at most.
FEWEST, MOST = 3, 10
# Of a row without content.
EMPTY = 0.05


def rendered(texts: Sequence[Text], suffix: str) -> bytes:
    """A file's bytes; as many for other texts, but for gzip."""
    if suffix == ".parquet":
        stream = io.BytesIO()
        table = pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())})
        pq.write_table(table, stream, row_group_size=16, compression="none", use_dictionary=False)
        return stream.getvalue()
    lines = "".join(json.dumps({"id": i, "text": one}) + "\n" for i, one in enumerate(texts))
    return gzip.compress(lines.encode(), mtime=0) if suffix.endswith(".gz") else lines.encode()


class Inputs:
    """Files of one kind in a store."""

    def __init__(self, store: Store, suffix: str, truth: Truth) -> None:
        self._store, self._suffix, self._truth = store, suffix, truth
        self._numbers = 0
        self._names = 0
        self.url = store.url

    @property
    def names(self) -> list[str]:
        return sorted(self._truth.now)

    def change(self, change: Change) -> bool:
        """Make a change; whether that was possible."""
        rng = random.Random(change.seed)
        names = self.names
        name = names[int(change.which * len(names))] if names else ""
        if change.kind in ("new", "copied") and len(names) >= MOST:
            return False
        if change.kind == "deleted" and len(names) <= FEWEST:
            return False
        getattr(self, f"_{change.kind}")(name, rng)
        return True

    def half(self, change: Change) -> None:
        """Rewrite a file in two steps, the first of which leaves the half of it."""
        rng = random.Random(change.seed)
        name = self.names[int(change.which * len(self.names))]
        texts = self._fresh(len(self._truth.now[name].texts), rng)
        some = texts[: len(texts) // 2] if self._suffix == ".jsonl" else texts
        data = rendered(some, self._suffix)
        if self._suffix == ".jsonl":
            self._write(name, some)
        else:  # nobody can read it
            self._store.write(name, data[: len(data) // 2])
        time.sleep(rng.uniform(0.1, 1.0))
        self._write(name, texts)

    def _write(self, name: str, texts: Sequence[Text], mtime_ns: int | None = None) -> None:
        data = rendered(texts, self._suffix)
        written = self._store.write(name, data, mtime_ns)
        self._truth.put(name, Version(tuple(texts), data, written))

    def _fresh(self, rows: int, rng: random.Random) -> list[Text]:
        start, self._numbers = self._numbers, self._numbers + rows
        return [None if rng.random() < EMPTY else text(start + row) for row in range(rows)]

    def _name(self, rng: random.Random) -> str:
        self._names += 1
        return f"{rng.choice(('', 'day=2/', 'a b/'))}{self._names:03}{self._suffix}"

    def _new(self, name: str, rng: random.Random) -> None:
        self._write(self._name(rng), self._fresh(rng.randint(*ROWS), rng))

    def _rewritten(self, name: str, rng: random.Random) -> None:
        self._write(name, self._fresh(len(self._truth.now[name].texts), rng))

    def _rotated(self, name: str, rng: random.Random) -> None:
        texts = self._truth.now[name].texts
        self._write(name, [*texts[1:], texts[0]])

    def _appended(self, name: str, rng: random.Random) -> None:
        before = self._truth.now[name]
        texts = (*before.texts, *self._fresh(rng.randint(1, 15), rng))
        if self._suffix != ".jsonl":
            self._write(name, texts)
            return
        data = rendered(texts, self._suffix)
        written = self._store.append(name, data[len(before.data) :])
        self._truth.put(name, Version(texts, data, written))

    def _renamed(self, name: str, rng: random.Random) -> None:
        other = self._name(rng)
        self._store.rename(name, other)
        self._truth.put(other, self._truth.now.pop(name))

    def _copied(self, name: str, rng: random.Random) -> None:
        self._write(self._name(rng), self._truth.now[name].texts)

    def _deleted(self, name: str, rng: random.Random) -> None:
        self._store.remove(name)
        del self._truth.now[name]

    def _restored(self, name: str, rng: random.Random) -> None:
        """As it was, with the time that it had then."""
        version = rng.choice(self._truth.ever[label_name(name)])
        written = self._store.write(name, version.data, version.mtime_ns)
        self._truth.put(name, Version(version.texts, version.data, written))

    def _swapped(self, name: str, rng: random.Random) -> None:
        other = rng.choice(self.names)
        one, two = self._truth.now[name], self._truth.now[other]
        for target, version in ((name, two), (other, one)):
            written = self._store.write(target, version.data, version.mtime_ns)
            self._truth.put(target, Version(version.texts, version.data, written))
