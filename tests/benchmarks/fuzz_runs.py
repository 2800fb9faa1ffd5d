"""`python -m benchmarks.fuzz_runs --files 10000`: runs over mutated files, so many in each.

Every run must end whole: each file is named with what is wrong, or has all its rows, each with the
label of its own text. What a row's text is, is what another reader says: pyarrow's own of a whole
Parquet file, Python's of a line of JSON.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from support.line_files import expected, put_mutants, rows_of
from support.outputs import labels
from support.parquet_mutation import WAYS, mutated, originals
from support.scripted import write_job

from moderay import run

# A row's text, or None where it has none that could be judged.
Texts = list[bytes | None]
ENDS = ("jsonl", "jsonl.gz", "ndjson.zst")


def put_parquet(folder: Path, seed: int, files: int) -> None:
    """Write folder/in/*.parquet: `files` mutated ones, and one that is sound."""
    whole = originals(folder)
    del whole["conversations"]  # their column is of another type
    (folder / "in").mkdir()
    (folder / "in/sound.parquet").write_bytes(whole["snappy"])
    for number in range(seed, seed + files):
        chance = random.Random(number)
        data = mutated(whole[chance.choice(list(whole))], chance)
        (folder / f"in/{number:07}.parquet").write_bytes(data)


def put_lines(folder: Path, seed: int, files: int) -> None:
    end = ENDS[seed // files % len(ENDS)]
    put_mutants(folder, end, seed, files if end == "jsonl" else files // 2)


def parquet_texts(file: Path) -> Texts:
    column = pq.read_table(file, columns=["text"], page_checksum_verification=True)["text"]
    return [value for chunk in column.chunks for value in chunk.cast(pa.large_binary()).to_pylist()]


def line_texts(file: Path) -> Texts:
    values = [(expected(line) or {}).get("text") for line in rows_of(file)]
    return [value.encode() if isinstance(value, str) else None for value in values]


def one_run(folder: Path, texts: Callable[[Path], Texts]) -> Counter[str]:
    """Label all of folder/in.

    Raises:
        AssertionError: A file is neither labelled nor named, or a row has another's label.
    """
    carried = {"path": "out", "columns": ["id", "text"]}
    job = write_job(folder, output=carried, unit={"rows": 100}, limits={"max_failed": 1.0})
    outcome = run(job)
    published = labels(folder / "out")
    sources = {_stem(file.name): file for file in (folder / "in").iterdir()}
    named = {*outcome.manifest.failed, *outcome.manifest.unreadable}
    assert {_stem(name) for name in (*published, *named)} == sources.keys()
    for name, table in published.items():
        source = sources[_stem(name)]
        assert_labels_of(table, texts(source), source)
    rows = sum(map(len, published.values()))
    return Counter(files=len(sources), labelled=len(published), named=len(named), rows=rows)


def _stem(name: str) -> str:
    """What a file and its labels have in common."""
    return name.partition(".")[0]


def assert_labels_of(table: pa.Table, texts: Texts, source: Path) -> None:
    assert table["row"].to_pylist() == list(range(len(texts))), source
    for row, (text, flagged) in enumerate(zip(texts, table["flagged"].to_pylist(), strict=True)):
        is_bad = any(word in (text or b"") for word in (b"prize", b"shop"))
        assert flagged in (None, is_bad), (source, row, text, flagged)
        if text is not None and text.strip() and _is_utf8(text):
            assert flagged is not None, (source, row, text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="half of them Parquet")
    parser.add_argument("--together", type=int, default=500, help="of one run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    together = min(options.together, math.ceil(options.files / 2))
    for name, put, texts in (
        (f"Parquet, {len(WAYS) - 1} ways", put_parquet, parquet_texts),
        ("JSON lines, plain, gzip and zstd", put_lines, line_texts),
    ):
        began, seed = time.monotonic(), options.seed
        total: Counter[str] = Counter()
        while total["files"] < options.files / 2:
            folder = Path(tempfile.mkdtemp(prefix="moderay-fuzz-"))
            put(folder, seed, together)
            try:
                total += one_run(folder, texts)
            except BaseException:
                print(f"seed {seed}: {folder}")
                raise
            shutil.rmtree(folder)
            seed += together
            total["runs"] += 1
        counts = ", ".join(f"{count:,} {what}" for what, count in total.items())
        print(f"{name}: {counts}, in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
