"""Ten versions of a Delta and of an Iceberg table, each labelled the night after it was written:
what the engine is asked for is what the version before had not. `--rows` are those of the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from support.scripted import write_job

# Answers of the engine to one content: its reasoning and its label.
ANSWERS = 2
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("lang", pa.string())])


def rows_of(first: int, count: int, text: str = "a post") -> pa.Table:
    """Rows with these ids, each of a content of its own, of two languages."""
    ids = range(first, first + count)
    return pa.table(
        {
            "id": list(ids),
            "text": [f"{'your prize' if i % 50 == 0 else text} {i}" for i in ids],
            "lang": ["en" if i % 3 else "de" for i in ids],
        },
        schema=SCHEMA,
    )


class Changing(Protocol):
    """A table as those who write it change it."""

    url: str

    def append(self, rows: pa.Table) -> None: ...
    def update(self, every: int) -> None: ...
    def delete(self, every: int) -> None: ...
    def compact(self) -> None: ...
    def texts(self) -> set[str]: ...


class DeltaTables:
    """Parted by language."""

    def __init__(self, folder: str, options: dict[str, str] | None = None) -> None:
        self.url, self._uri, self._options = f"delta://{folder}", folder, options

    def _open(self) -> Any:
        from deltalake import DeltaTable

        return DeltaTable(self._uri, storage_options=self._options)

    def append(self, rows: pa.Table) -> None:
        from deltalake import write_deltalake

        write_deltalake(
            self._uri,
            rows,
            mode="append",
            partition_by=["lang"],
            storage_options=self._options,
        )

    def update(self, every: int) -> None:
        self._open().update(
            updates={"text": "concat('changed ', text)"}, predicate=f"id % {every} = 1"
        )

    def delete(self, every: int) -> None:
        self._open().delete(f"id % {every} = 2")

    def compact(self) -> None:
        self._open().optimize.compact()

    def texts(self) -> set[str]:
        return set(pa.table(self._open().scan(["text"]).read_all()).column("text").to_pylist())


class IcebergTables:
    """In a catalog of SQLite, parted by language; files are rewritten as a whole."""

    def __init__(self, folder: Path, warehouse: str, properties: dict[str, str]) -> None:
        from pyiceberg.catalog import load_catalog

        folder.mkdir(parents=True, exist_ok=True)
        self.catalog = {
            "type": "sql",
            "uri": f"sqlite:///{folder / 'catalog.db'}",
            "warehouse": warehouse,
            **properties,
        }
        catalog = load_catalog("lake", **self.catalog)
        catalog.create_namespace("db")
        self._table = catalog.create_table("db.posts", SCHEMA)
        with self._table.update_spec() as spec:
            spec.add_identity("lang")
        self.url = "iceberg://lake/db/posts"

    def append(self, rows: pa.Table) -> None:
        self._table.append(rows)

    def _rows(self) -> pa.Table:
        return self._table.scan().to_arrow().cast(SCHEMA)

    def update(self, every: int) -> None:
        rows = self._rows()
        texts = [
            f"changed {text}" if i % every == 1 else text
            for i, text in zip(
                rows.column("id").to_pylist(), rows.column("text").to_pylist(), strict=True
            )
        ]
        self._table.overwrite(rows.set_column(1, "text", pa.array(texts, pa.string())))

    def delete(self, every: int) -> None:
        ids = [i for i in self._rows().column("id").to_pylist() if i % every == 2]
        self._table.delete(f"id in ({', '.join(map(str, ids))})")

    def compact(self) -> None:
        self._table.overwrite(self._rows())

    def texts(self) -> set[str]:
        return set(self._table.scan(selected_fields=("text",)).to_arrow()["text"].to_pylist())


def versions(table: Changing, rows: int) -> Iterator[str]:
    """Write ten versions, one after the other; what was done to each."""
    few = max(10, rows // 10)
    changes: list[tuple[str, Callable[[], None]]] = [
        ("created", lambda: table.append(rows_of(0, rows))),
        ("appended", lambda: table.append(rows_of(rows, few))),
        ("updated", lambda: table.update(17)),
        ("deleted", lambda: table.delete(13)),
        ("appended", lambda: table.append(rows_of(2 * rows, few))),
        ("compacted", table.compact),
        ("updated", lambda: table.update(29)),
        # Contents that were there, in rows that were not.
        ("appended what was there", lambda: table.append(rows_of(0, few))),
        ("deleted", lambda: table.delete(7)),
        ("compacted", table.compact),
    ]
    for name, change in changes:
        change()
        yield name


@dataclass(frozen=True)
class Night:
    """What one version cost.

    Attributes:
        change: What was done to the table before it.
        new: Distinct contents that the version before had not: the labels of older ones are pruned.
        requested: Contents that the engine was asked for.
        seconds: Of the run.
    """

    change: str
    new: int
    requested: int
    seconds: float


def job_of(folder: Path, table: Changing, delay_s: float = 0.0, **sections: Any) -> Path:
    """The job of every night, in `folder`; the engine logs what it is asked for."""
    script = {
        "default": {
            "answer": '{"label": "SP0", "rationale": "Nothing."}',
            "reasoning": "Nothing.",
            "p": 0.95,
        },
        "rules": [
            {
                "content": "prize",
                "answer": '{"label": "SP4", "rationale": "A prize."}',
                "reasoning": "A prize.",
                "p": 0.9,
            }
        ],
        "log": str(folder / "log"),
        "delay": {"mean_s": delay_s},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log").touch()
    catalog = getattr(table, "catalog", None)
    own = {"storage": {"catalogs": {"lake": catalog}}} if catalog else {}
    return write_job(
        folder, script, **{"input": {"path": table.url, "content": "text"}, **own, **sections}
    )


def nights(folder: Path, table: Changing, rows: int, run: Callable[[int], None]) -> Iterator[Night]:
    """Label every version.

    Args:
        folder: Of the job.
        table: The table, of which nothing is written yet.
        rows: Of its first version.
        run: Runs the job; it is told which version it is.
    """
    known: set[str] = set()
    log = folder / "log"
    for number, change in enumerate(versions(table, rows)):
        texts, before, began = table.texts(), log.stat().st_size, time.monotonic()
        run(number)
        requested = (log.stat().st_size - before) // ANSWERS
        yield Night(change, len(texts - known), requested, time.monotonic() - began)
        known = texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", choices=("delta", "iceberg"))
    arguments = parser.parse_args()
    for kind in [arguments.only] if arguments.only else ["delta", "iceberg"]:
        with tempfile.TemporaryDirectory(prefix="moderay-tables-") as name:
            folder = Path(name)
            table: Changing
            if kind == "delta":
                table = DeltaTables(f"{name}/posts")
            else:
                table = IcebergTables(folder / "catalog", f"file://{name}/warehouse", {})
            job = job_of(folder / "job", table)

            def run(_: int, job: Path = job) -> None:
                command = [sys.executable, "-m", "moderay", "run", str(job), "--prune", "--json"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0 and json.loads(done.stdout)["complete"], done.stderr

            for number, night in enumerate(nights(folder / "job", table, arguments.rows, run)):
                print(
                    f"{kind} {number}: {night.change}; new contents {night.new:,}, asked for "
                    f"{night.requested:,}; {night.seconds:.0f} s",
                    flush=True,
                )
                assert night.new == night.requested


if __name__ == "__main__":
    main()
