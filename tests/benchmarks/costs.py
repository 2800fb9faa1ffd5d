"""What a million rows cost, by GPU: the arithmetic of `moderay plan`, as a Markdown table.

Nothing is measured here. Requests and tokens are `pipeline.estimate`'s, of documents and a policy
of the lengths that are given. Tokens a second of an H100 are what was published for gpt-oss-20b on
vLLM, with 2,000 tokens in and 100 out; those of other GPUs are that times the lower and the
higher of two ratios of their data sheets, of dense bfloat16 operations and of memory bandwidth,
until `--rate` says what was measured. The price of a GPU-hour is an input.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.pipeline.estimate import Forecast, JudgeProfile, engine_cost
from moderay.pipeline.sample import SampleCounts

ROWS = 1_000_000
H100_TOKENS_PER_S = 33_150
# Of the vendor's data sheets: dense bfloat16 TFLOPS, and GB/s of memory.
SHEETS = {
    "L4": (121, 300),
    "A100 80 GB": (312, 2039),
    "H100 SXM": (989, 3350),
    "H200": (989, 4800),
    "B200": (2250, 8000),
}
# Judges on the engine, in order: what each settles, its requests and the tokens it writes a window.
WAYS: Mapping[str, Sequence[tuple[str, float, int, float]]] = {
    "label alone": [("reason", 1.0, 1, 1)],
    "200 tokens of reasoning": [("reason", 1.0, 1, 200)],
    "glance settles 90% before it": [("glance", 0.9, 1, 1), ("reason", 1.0, 1, 200)],
}


@dataclass(frozen=True)
class Documents:
    """Tokens of a content, and of a policy's prompt around it."""

    tokens: int
    policy: int


def forecast(documents: Documents, way: str, tokens_per_s: float) -> Forecast:
    """A million distinct contents of one window, under one policy."""
    counts = SampleCounts({}, ROWS, 0, ROWS, ROWS * documents.tokens)
    judges = [
        JudgeProfile(name, settles, documents.policy, requests, output)
        for name, settles, requests, output in WAYS[way]
    ]
    cost = engine_cost(judges, counts)
    return Forecast(ROWS, ROWS, ROWS, ROWS, {}, cost, (), tokens_per_s)


def rates(gpu: str, measured: Mapping[str, float]) -> tuple[float, float]:
    """Tokens a second of a GPU, at least and at most."""
    if gpu in measured:
        return measured[gpu], measured[gpu]
    ratios = [ours / theirs for ours, theirs in zip(SHEETS[gpu], SHEETS["H100 SXM"], strict=True)]
    return H100_TOKENS_PER_S * min(ratios), H100_TOKENS_PER_S * max(ratios)


def lines(documents: Documents, price: float, measured: Mapping[str, float]) -> list[str]:
    """The table: GPU-hours of a million rows, and in brackets what they cost at this price."""
    table = [f"| GPU | tokens/s | {' | '.join(WAYS)} |", "|---|---|" + "---|" * len(WAYS)]
    for gpu in SHEETS:
        low, high = rates(gpu, measured)
        cells = []
        for way in WAYS:
            hours = [forecast(documents, way, rate).gpu_hours or 0.0 for rate in (high, low)]
            cells.append(f"{_span(hours)} h ({_span([price * hour for hour in hours])} $)")
        table.append(f"| {gpu} | {_span([low, high])} | {' | '.join(cells)} |")
    return table


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in values)
    return low if low == high else f"{low} to {high}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=50, help="of a content")
    parser.add_argument("--policy", type=int, default=600, help="tokens of the prompt around it")
    parser.add_argument("--price", type=float, default=1.0, help="$ of a GPU-hour")
    parser.add_argument(
        "--rate", nargs=2, action="append", default=[], metavar=("GPU", "TOKENS_PER_S")
    )
    options = parser.parse_args()
    measured = {gpu: float(rate) for gpu, rate in options.rate}
    documents = Documents(options.tokens, options.policy)
    print("\n".join(lines(documents, options.price, measured)))


if __name__ == "__main__":
    main()
