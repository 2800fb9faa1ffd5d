"""vLLM without moderay over a workload's prompts: one measurement, printed as JSON.

`python -m benchmarks.bare WAY JOB [--gpus 1]`, where WAY is `async` (`AsyncLLM`, one request a
prompt), `p` (the same and a second, scored request for each) or `llm` (`LLM.generate`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.engine_work import EngineWork, label_tokens, opened, steady
from benchmarks.measured import QUIET

WAYS = ("async", "p", "llm")


class Bare:
    """An engine that is fed blindly."""

    def __init__(self, work: EngineWork) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        self._work, self._params = work, SamplingParams
        self._final = RequestOutputKind.FINAL_ONLY
        self._number = 0
        self.llm: Any = None

    def start(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._work.arguments()))

    def sampling(self, max_tokens: int, score: list[int] | None = None) -> Any:
        return self._params(
            max_tokens=max_tokens,
            temperature=0.0,
            stop_token_ids=self._work.stop,
            logprob_token_ids=score,
            detokenize=False,
            output_kind=self._final,
        )

    async def ask(self, prompt: list[int], sampling: Any) -> list[int]:
        self._number += 1
        last = None
        async for part in self.llm.generate(
            {"prompt_token_ids": prompt}, sampling, str(self._number)
        ):
            last = part
        assert last is not None
        return list(last.outputs[0].token_ids)


async def asynchronous(work: EngineWork, scored: bool) -> dict[str, Any]:
    """`AsyncLLM`, as many requests at once as keep it full."""
    bare = Bare(work)
    prompts = work.prompts()
    began = time.monotonic()
    bare.start()
    started = time.monotonic() - began
    gate = asyncio.Semaphore(2 * work.spec.max_num_seqs)
    marks: list[tuple[float, int]] = []
    outputs: list[list[int]] = []
    parsed = 0

    async def one(number: int) -> None:
        nonlocal parsed
        judge, prompt = prompts[number]
        async with gate:
            tokens = await bare.ask(prompt, bare.sampling(judge.max_tokens))
            if scored:
                before, right = opened(judge, tokens)
                parsed += right
                shared, labels = label_tokens(judge)
                await bare.ask([*prompt, *before, *shared], bare.sampling(1, labels))
        outputs.append(tokens)
        marks.append((time.monotonic(), len(outputs)))

    await asyncio.gather(*[one(number) for number in range(len(prompts))])
    bare.llm.shutdown()
    figures = _figures(work, prompts, outputs, marks)
    return {**figures, "start": started, **({"parsed": parsed / len(prompts)} if scored else {})}


def blocking(work: EngineWork) -> dict[str, Any]:
    """`LLM.generate` over all prompts at once, from its call to its return."""
    from vllm import LLM

    prompts = work.prompts()
    arguments = {k: v for k, v in work.arguments().items() if k != "enable_log_requests"}
    began = time.monotonic()
    llm = LLM(**arguments)
    started = time.monotonic() - began
    bare = Bare(work)
    sampling = [bare.sampling(judge.max_tokens) for judge, _ in prompts]
    asked = [{"prompt_token_ids": prompt} for _, prompt in prompts]
    begin = time.monotonic()
    outputs = [
        list(one.outputs[0].token_ids) for one in llm.generate(asked, sampling, use_tqdm=False)
    ]
    marks = [(begin, 0), (time.monotonic(), len(prompts))]
    return {**_figures(work, prompts, outputs, marks), "start": started}


def _figures(
    work: EngineWork,
    prompts: list[tuple[Any, list[int]]],
    outputs: list[list[int]],
    marks: list[tuple[float, int]],
) -> dict[str, Any]:
    """Rows/s, where a row is a content under all policies."""
    rate, begin, end = steady(marks, len(prompts))
    policies = len(work.judges)
    return {
        "rate": rate / policies,
        "begin": begin,
        "end": end,
        "rows": len(prompts) // policies,
        "tokens_in": sum(len(prompt) for _, prompt in prompts) / len(prompts) * policies,
        "tokens_out": sum(map(len, outputs)) / len(prompts) * policies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("job", type=Path)
    parser.add_argument("--gpus", type=int, default=0)
    options = parser.parse_args()
    os.environ.update(QUIET)
    work = EngineWork(options.job, options.gpus)
    if options.way == "llm":
        print(json.dumps(blocking(work)))
    else:
        print(json.dumps(asyncio.run(asynchronous(work, options.way == "p"))))


if __name__ == "__main__":
    main()
