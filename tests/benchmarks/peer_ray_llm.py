"""ray.data.llm over prepared prompts, at its documented best; run in an environment of its own.

Token ids go in and come out: no chat template, no tokenizer, no detokenizer. As many batches at
once as keep the engine full, and errors of a row as a column.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

# Batches in flight: with a batch of 64 rows its own defaults, which are twice what an engine of 256
# requests works on at once. As much is in flight of everyone: what is handed over before the rows
# are counted would be work that others do meanwhile.
BATCHES = 8
# Arguments of the engine that the library gives itself.
ITS_OWN = ("model", "enable_log_requests", "disable_log_stats", "revision")


def main() -> None:
    began = time.monotonic()
    work: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    arguments = {k: v for k, v in work["arguments"].items() if k not in ITS_OWN}
    prompts = pq.read_table(work["prompts"], columns=["ids"])
    sampling = {
        "max_tokens": work["max_tokens"],
        "temperature": 0.0,
        "stop_token_ids": work["stop"],
        "detokenize": False,
    }
    batch = max(1, work["in_flight"] // BATCHES)
    ray.init(num_cpus=2, logging_level="error", log_to_driver=False)
    config = vLLMEngineProcessorConfig(
        model_source=work["arguments"]["model"],
        engine_kwargs=arguments,
        concurrency=1,
        batch_size=batch,
        max_concurrent_batches=BATCHES,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        placement_group_config={"bundles": [{"CPU": 1}]},
        log_engine_metrics=False,
        should_continue_on_error=True,
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {
            "tokenized_prompt": row["ids"],
            "prompt": "",
            "sampling_params": sampling,
        },
        postprocess=lambda row: {"out": row["generated_tokens"]},
    )
    rows = len(prompts)
    ds = processor(ray.data.from_arrow(prompts).repartition(max(1, rows // batch)))
    marks: list[tuple[float, int]] = []
    done = errors = tokens = 0
    for batch in ds.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        done += len(batch)
        names = batch.column_names
        wrong = (
            batch.column("__inference_error__").to_pylist()
            if "__inference_error__" in names
            else []
        )
        errors += sum(map(bool, wrong))
        out = batch.column("out").to_pylist() if "out" in names else []
        tokens += sum(len(one) for one in out if one is not None)
        marks.append((time.monotonic(), done))
    print(json.dumps(figures(work, marks, rows, began, tokens, errors)))


def figures(
    work: dict[str, Any],
    marks: list[tuple[float, int]],
    rows: int,
    began: float,
    tokens: int,
    errors: int,
) -> dict[str, float]:
    """As `benchmarks.bare` gives them; a row is a content under all policies."""
    inner = [mark for mark in marks if 0.2 * rows <= mark[1] <= 0.8 * rows]
    inner = inner if len({done for _, done in inner}) > 1 else [(began, 0), marks[-1]]
    (begin, first), (end, last) = inner[0], inner[-1]
    policies = work["policies"]
    return {
        "rate": (last - first) / (end - begin) / policies,
        "begin": begin,
        "end": end,
        "rows": marks[-1][1] / policies,
        "errors": errors / policies,
        "first": marks[0][0] - began,
        "tokens_out": tokens / rows * policies,
    }


if __name__ == "__main__":
    main()
