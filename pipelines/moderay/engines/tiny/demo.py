"""The demo corpus: `python -m moderay.engines.tiny.demo --out DIR` writes four shards of texts
whose carriers `tiny` never saw.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.engines.tiny.corpus import DEMO, SPELLED, Example, example

POLICIES = ("spam", "harassment", "private_data")
ROWS, SHARDS, AMBIGUOUS = 300, 4, 0.2
EMPTY = (None, "", "   ", "\n\t ")
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def write(out: Path, seed: int = 1) -> None:
    """Four files of 300 rows, the last of conversations; columns id, content, ambiguous,
    truth_<policy> (null: nothing to judge).
    """
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        conversations = shard == SHARDS - 1
        rows = [_row(rng, f"{shard}-{number}", conversations) for number in range(ROWS)]
        if not conversations:
            for number in range(len(EMPTY)):
                rows[40 * number + shard] = _nothing(
                    f"{shard}-{40 * number + shard}", EMPTY[number]
                )
        if shard == 1:
            rows[77] = _nothing("1-77", "a very long text. " * (2**20 // 18))
        kind = TURNS if conversations else pa.string()
        schema = pa.schema(
            [
                ("id", pa.string()),
                ("content", kind),
                ("ambiguous", pa.bool_()),
                *[(f"truth_{name}", pa.bool_()) for name in POLICIES],
            ]
        )
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out / f"part-{shard:03d}.parquet")


def _row(rng: random.Random, name: str, conversation: bool) -> dict[str, Any]:
    found = example(rng, DEMO, ambiguous=rng.random() < AMBIGUOUS)
    text = found.text if rng.random() > 0.05 else f"{found.text} {rng.choice(SPELLED)}"
    said: Any = text
    if conversation:
        other = rng.choice(DEMO.neutral)
        said = (
            [{"role": "user", "content": other}, {"role": "assistant", "content": text}]
            if rng.random() < 0.5
            else [{"role": "user", "content": text}]
        )
    return {
        "id": name,
        "content": said,
        "ambiguous": found.ambiguous,
        **{f"truth_{policy}": _truth(found, policy) for policy in POLICIES},
    }


def _truth(found: Example, policy: str) -> bool:
    return found.odds(policy) >= 0.5


def _nothing(name: str, content: str | None) -> dict[str, Any]:
    return {
        "id": name,
        "content": content,
        "ambiguous": False,
        **{f"truth_{policy}": None for policy in POLICIES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
