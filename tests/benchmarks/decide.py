"""`moderay decide` on a million labelled rows, beside a scan and a write of the same columns in
Polars, in turn: once with people's answers on a thousand contents, once under another threshold.

`python -m benchmarks.decide [--rows N]`, from `tests/`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from support.project import ROOT
from support.published import published_output

import moderay
from moderay.config.policy import load_policy
from moderay.core.verdicts import VERDICT
from moderay.labels.corrections import reviewed_policies
from moderay.labels.layout import Layout
from moderay.labels.manifest_store import read_manifest
from moderay.labels.review_records import Review, review_id, review_time, session_id
from moderay.labels.reviews import ReviewStore

SHARDS, ANSWERS, TURNS = 20, 1_000, 3
TEXT_WORDS, RATIONALE_WORDS, REASONING_WORDS = 40, 15, 60
WORDS = pa.array([f"word{number}" for number in range(5_000)])


def sentences(rng: np.random.Generator, rows: int, words: int) -> pa.Array:
    """A text of so many words in each row."""
    drawn = WORDS.take(pa.array(rng.integers(0, len(WORDS), rows * words)))
    offsets = pa.array(np.arange(rows + 1) * words, pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, drawn), " ")


def verdicts(rng: np.random.Generator, rows: int, labels: int) -> pa.StructArray:
    """What a judge says: a tenth violates, and has its reasoning kept."""
    bad = rng.random(rows) < 0.1
    p = np.where(bad, rng.uniform(0.5, 1, rows), rng.uniform(0, 0.5, rows)).astype(np.float32)
    table = np.zeros((rows, labels), np.float32)
    table[:, 0], table[:, -1] = 1 - p, p
    offsets = pa.array(np.arange(rows + 1) * labels, pa.int32())
    columns = {
        "status": pa.repeat("ok", rows),
        "scores": pa.ListArray.from_arrays(offsets, pa.array(table.ravel())),
        "rationale": sentences(rng, rows, RATIONALE_WORDS),
        "reasoning": pc.if_else(pa.array(bad), sentences(rng, rows, REASONING_WORDS), None),
        "decided_by": pa.repeat("reason", rows),
        "origin": pa.repeat("judged", rows),
        "run": pa.array(np.zeros(rows), pa.int16()),
        "prompt_tokens": pa.array(rng.integers(400, 900, rows), pa.int32()),
        "output_tokens": pa.array(rng.integers(20, 200, rows), pa.int32()),
    }
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in VERDICT]
    return pa.StructArray.from_arrays(
        [array.cast(field.type) for array, field in zip(arrays, VERDICT, strict=True)],
        fields=list(VERDICT),
    )


def written(folder: Path, rows: int) -> Layout:
    """Labels of so many rows."""
    rng, policy = np.random.default_rng(0), load_policy(ROOT / "policies/spam")
    each = rows // SHARDS
    shards = {
        f"{number:03}.parquet": (
            sentences(rng, each, TEXT_WORDS),
            [verdicts(rng, each, len(policy.label_names))],
        )
        for number in range(SHARDS)
    }
    return published_output(folder, [policy], shards)


def answer(layout: Layout, rng: np.random.Generator) -> None:
    """A person says that contents are harmless, all over the output."""
    manifest = read_manifest(layout)
    assert manifest is not None
    spam, session = reviewed_policies(manifest)["spam"], session_id()
    given = []
    for number in range(SHARDS):
        name = f"{number:03}.parquet"
        hashes = pq.read_table(layout.label(name), columns=["content_hash"]).column(0)
        given += [
            Review(
                id=review_id(),
                session=session,
                reviewer="bench",
                time=review_time(),
                policy="spam",
                policy_hash=spam.hash,
                content_hash=hashes[int(row)].as_py(),
                shard=name,
                row=int(row),
                label=next(iter(spam.labels)),
                queue="api",
            )
            for row in rng.choice(len(hashes), ANSWERS // SHARDS, replace=False)
        ]
    ReviewStore(layout).add_all(session, given)


def in_polars(layout: Layout, folder: Path) -> None:
    """The same columns, read and written."""
    scan = pl.scan_parquet(f"{layout.root}/*.parquet")
    scan.sink_parquet(folder / "polars.parquet", compression="zstd", compression_level=1)


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def beside(
    layout: Layout,
    folder: Path,
    decided: Callable[[int], object],
    first: Callable[[], None] = lambda: None,
) -> str:
    """One beside the other, in turn; how they compare.

    Args:
        layout: Of the labels.
        folder: Where Polars writes.
        decided: What is timed, by the number of the turn.
        first: What comes before, each time, and is not timed.
    """
    ours, theirs = [], []
    for number in range(TURNS):
        first()
        theirs.append(seconds(lambda: in_polars(layout, folder)))
        ours.append(seconds(lambda: decided(number)))  # noqa: B023  # called at once
    a, b = statistics.median(ours), statistics.median(theirs)
    return f"decide {a:.2f} s, Polars {b:.2f} s, ratio {a / b:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(prefix="moderay-decide-") as name:
        folder = Path(name)
        layout = written(folder, rows)
        size = sum(file.stat().st_size for file in (folder / "out").glob("*.parquet"))
        print(f"{rows:,} rows in {SHARDS} shards, {size / 2**20:,.0f} MiB")

        def with_answers(_: int) -> None:
            assert moderay.decide(layout.url).rewritten == SHARDS

        def under_threshold(number: int) -> None:
            assert moderay.decide(layout.url, {"spam": 0.6 + number / 10}).rewritten == SHARDS

        print(
            f"{ANSWERS:,} answers: "
            f"{beside(layout, folder, with_answers, lambda: answer(layout, rng))}"
        )
        print(f"another threshold: {beside(layout, folder, under_threshold)}")
        print(f"nothing to do: {seconds(lambda: moderay.decide(layout.url)):.2f} s")


if __name__ == "__main__":
    main()
