"""Seconds that 10 and 100,000 literals take on the tweets (or, where that data is not beside the
project, on the demo's texts), in units of 512 rows and in one piece: the best of ROUNDS, after the
first, in which the automaton is made.

python -m benchmarks.rules
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from support.project import ROOT, SHARED

from moderay.config.policy import load_policy
from moderay.judges.rules import Rules
from moderay.judges.rules_file import load_rules

TWEETS = SHARED / "tweets"
UNIT = 512


def corpus() -> list[str]:
    if TWEETS.is_dir():
        return [
            text
            for file in sorted(TWEETS.glob("*.parquet"))
            for text in pq.read_table(file, columns=["text"]).column(0).to_pylist()
        ]
    from moderay.engines.tiny.corpus import DEMO, example

    print(f"no tweets at {TWEETS}: the demo's texts instead")
    rng = random.Random(0)
    return [example(rng, DEMO).text for _ in range(25_000)]


def phrases(texts: list[str], count: int) -> list[str]:
    """Two words of the texts and a number. They begin as the texts do, so that the search always
    goes deep, and hardly any is found: the worst that a list can be, and only its length differs.
    """
    rng = random.Random(count)
    words = sorted({word.lower() for text in texts for word in text.split()})
    return _distinct(lambda: f"{rng.choice(words)} {rng.choice(words)}{rng.randrange(1000)}", count)


def names(count: int) -> list[str]:
    """Invented names of sites, as in a block list."""
    rng = random.Random(count)
    syllables = [
        consonant + vowel
        for consonant in "b c d f g h k l m n p r s t v w z st tr ch sh".split()
        for vowel in "aeiou"
    ]
    return _distinct(
        lambda: (
            "".join(rng.choices(syllables, k=rng.randrange(3, 6)))
            + rng.choice([".example", "-shop.example", " pills"])
        ),
        count,
    )


def _distinct(make: Callable[[], str], count: int) -> list[str]:
    texts: set[str] = set()
    while len(texts) < count:
        texts.add(make())
    return sorted(texts)


def with_literals(folder: Path, literals: list[str], words: bool) -> Rules:
    (folder / "block.txt").write_text("\n".join(literals), encoding="utf-8")
    (folder / "rules.yaml").write_text(
        f"rules: [{{id: block, label: SP4, words: {str(words).lower()}, any_of: block.txt}}]"
    )
    rules = load_rules(load_policy(ROOT / "policies" / "spam"), folder)
    assert rules is not None
    return rules


def measure(folder: Path, kind: str, texts: list[str], words: bool, rounds: int) -> None:
    column, table = pa.array(texts), pa.table({"id": range(len(texts))})
    rules = {
        count: with_literals(
            folder, names(count) if kind == "names" else phrases(texts, count), words
        )
        for count in (10, 100_000)
    }

    def seconds(count: int, rows: int) -> float:
        start = time.perf_counter()
        for at in range(0, len(texts), rows):
            rules[count].settle(column.slice(at, rows), table.slice(at, rows))
        return time.perf_counter() - start

    for rows in (UNIT, len(texts)):
        made = {count: seconds(count, rows) for count in rules}
        # In turn, so that what else the machine does falls on both.
        times = [{count: seconds(count, rows) for count in rules} for _ in range(rounds)]
        best = {count: min(each[count] for each in times) for count in rules}
        figures = ", ".join(
            f"{count:,} literals {best[count]:.3f} s (first {made[count]:.3f} s)" for count in rules
        )
        print(
            f"{kind}, {'as whole words' if words else 'anywhere'}, {rows:,} rows at a time: "
            f"{figures}; ratio {best[100_000] / best[10]:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    texts = corpus()
    print(f"{len(texts):,} texts of {sum(map(len, texts)) // len(texts)} characters")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("names", "phrases"):
            for words in (False, True):
                measure(Path(folder), kind, texts, words, rounds)


if __name__ == "__main__":
    main()
