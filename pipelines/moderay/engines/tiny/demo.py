"""The demo corpus: four shards of texts whose carriers `tiny` never saw.

`python -m moderay.engines.tiny.demo --out DIR` writes them.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.engines.tiny.corpus import DEMO, SPELLED, example

POLICIES = ("spam", "harassment", "private_data")
# Of each shard.
ROWS = 300
SHARDS = 4
# Share of the rows that are near the boundary.
AMBIGUOUS = 0.2
EMPTY = (None, "", "   ", "\n\t ")
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def write(out: Path, seed: int = 1) -> None:
    """Writes four Parquet files of 300 rows, the last of conversations.

    Args:
        out: Folder. Columns: id, content, ambiguous, truth_<policy> (null: nothing to judge).
        seed: The same seed gives the same rows.
    """
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        conversations = shard == SHARDS - 1
        rows = [_row(rng, f"{shard}-{number}", conversations) for number in range(ROWS)]
        if not conversations:
            for number, empty in enumerate(EMPTY):
                row = 40 * number + shard
                rows[row] = _nothing(f"{shard}-{row}", empty)
        if shard == 1:
            rows[77] = _nothing("1-77", "a very long text. " * (2**20 // 18))
        schema = _schema(TURNS if conversations else pa.string())
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out / f"part-{shard:03d}.parquet")


def _schema(content: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            ("id", pa.string()),
            ("content", content),
            ("ambiguous", pa.bool_()),
            *[(f"truth_{name}", pa.bool_()) for name in POLICIES],
        ]
    )


def _row(rng: random.Random, name: str, conversation: bool) -> dict[str, Any]:
    drawn = example(rng, DEMO, ambiguous=rng.random() < AMBIGUOUS)
    text = drawn.text if rng.random() > 0.05 else f"{drawn.text} {rng.choice(SPELLED)}"
    return {
        "id": name,
        "content": _turns(rng, text) if conversation else text,
        "ambiguous": drawn.ambiguous,
        **{f"truth_{policy}": drawn.odds(policy) >= 0.5 for policy in POLICIES},
    }


def _turns(rng: random.Random, text: str) -> list[dict[str, str]]:
    """The text alone, or as an answer to something harmless."""
    other = rng.choice(DEMO.neutral)
    if rng.random() < 0.5:
        return [{"role": "user", "content": other}, {"role": "assistant", "content": text}]
    return [{"role": "user", "content": text}]


def _nothing(name: str, content: str | None) -> dict[str, Any]:
    return {
        "id": name,
        "content": content,
        "ambiguous": False,
        **{f"truth_{policy}": None for policy in POLICIES},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
