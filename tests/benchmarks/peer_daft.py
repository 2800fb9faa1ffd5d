"""Daft over prepared prompts, with its own vLLM provider; run in an environment of its own.

The provider takes texts only. The tokenizer beside the model gives the ids that the others get.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

os.environ["DAFT_ANALYTICS_ENABLED"] = "0"

import daft
from daft import col
from daft.ai.vllm.provider import VLLMPrefixCachingProvider
from daft.functions import prompt
from vllm import SamplingParams


def main() -> None:
    began = time.monotonic()
    work: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    arguments = {
        name: value
        for name, value in work["arguments"].items()
        if name not in ("model", "skip_tokenizer_init", "revision")
    }
    texts = pq.read_table(work["prompts"], columns=["text"]).column("text").to_pylist()
    sampling = SamplingParams(
        max_tokens=work["max_tokens"],
        temperature=0.0,
        stop_token_ids=work["stop"],
        skip_special_tokens=False,
        include_stop_str_in_output=True,
    )
    answers = prompt(
        col("prompt"),
        provider=VLLMPrefixCachingProvider(),
        model=work["arguments"]["model"],
        engine_args=arguments,
        generate_args={"sampling_params": sampling},
        num_gpus=0,
        gpus_per_actor=0,
        concurrency=1,
    )
    table = daft.from_pydict({"prompt": texts}).with_column("answer", answers)
    marks: list[tuple[float, int]] = []
    outputs: list[str] = []
    for part in table.iter_partitions():
        outputs += part.to_pydict()["answer"]
        marks.append((time.monotonic(), len(outputs)))
    print(json.dumps(figures(work, marks, began, outputs)))


def figures(
    work: dict[str, Any], marks: list[tuple[float, int]], began: float, outputs: list[str]
) -> dict[str, float]:
    """As `benchmarks.bare` gives them. A table that comes in one piece has no steady state: then
    the rate is that from the engine's start to the end, which the note of the table says.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(work["arguments"]["model"]) / "tokenizer.json"))
    tokens = sum(len(tokenizer.encode(out).ids) for out in outputs)
    rows = len(outputs)
    inner = [mark for mark in marks if 0.2 * rows <= mark[1] <= 0.8 * rows]
    inner = inner if len({done for _, done in inner}) > 1 else [(began, 0), marks[-1]]
    (begin, first), (end, last) = inner[0], inner[-1]
    policies = work["policies"]
    return {
        "rate": (last - first) / (end - begin) / policies,
        "begin": begin,
        "end": end,
        "rows": rows / policies,
        "first": marks[0][0] - began,
        "tokens_out": tokens / rows * policies,
    }


if __name__ == "__main__":
    main()
