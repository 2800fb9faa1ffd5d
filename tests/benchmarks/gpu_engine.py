"""One engine of `make gpu`: what it is asked stands in a file, what it does is added to another.

`python -m benchmarks.gpu_engine ASKED.json FOUND.jsonl`: a line for each pass that is through, so
that an engine that is ended at its deadline has told what it has.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.measured import QUIET
from benchmarks.p_ways import Answered, Pass, Prompt, Ways, before_labels, furthest, run_pass
from benchmarks.records import Record
from moderay.engines import checkpoint
from moderay.engines.vllm.engine import VllmSpec

LABELS = 2
# `<|end|><|start|>assistant<|channel|>final<|message|>` in harmony's own ids.
HEADER = [200007, 200006, 173781, 200005, 17196, 200008]
# The first id of harmony's control tokens.
FIRST_CONTROL = 199_998
STOP = [200002, 200012]


class Trial(Record):
    """One thing to measure.

    Attributes:
        name: Of the line in the table.
        ways: To P, in this order in every round.
        rows: Prompts; 0: those of `job`.
        shared: Tokens that all prompts begin with.
        own: Tokens of each prompt alone.
        thought: Tokens of the analysis.
        rest: Tokens of the answer, the label's among them.
        at_once: Requests in flight; None: twice what fits the batch.
        temperature: 0 is greedy.
        seeded: Whether each request has a seed, as the pipeline's have.
        rounds: How often all ways are measured.
        job: A job of which the prompts are, answered as the model answers.
    """

    name: str
    ways: tuple[str, ...]
    rows: int = 0
    shared: int = 0
    own: int = 0
    thought: int = 0
    rest: int = 0
    at_once: int | None = None
    temperature: float = 1.0
    seeded: bool = True
    rounds: int = 1
    job: str | None = None


class Asked(Record):
    """An engine, and what is to be measured on it.

    Attributes:
        source: Folder of the model.
        gpus: 0: on the CPU.
        max_model_len: Tokens of the longest prompt with its answer.
        settings: Of vLLM's engine, over the profile's.
        fill: Whether quantised experts get random bytes.
        seed: Of the prompts.
        trials: In this order.
    """

    source: str
    gpus: int
    max_model_len: int
    settings: dict[str, Any]
    fill: bool
    trials: tuple[Trial, ...]
    seed: int = 0


class Found(Record):
    """A pass over a trial's prompts.

    Attributes:
        trial: Its name.
        way: To P.
        round: From 0.
        rows: Prompts.
        seconds: Of the pass.
        prompt_tokens: Of all prompts.
        output_tokens: Of all answers.
        one_request: Share of the prompts for which one request was enough.
        p_differs: The largest difference of P from way A's, over the answers with the same tokens.
        same: Share of the answers with the same tokens as by way A.
    """

    trial: str
    way: str
    round: int
    rows: int
    seconds: float
    prompt_tokens: int
    output_tokens: int
    one_request: float
    p_differs: float | None = None
    same: float | None = None

    @property
    def rows_s(self) -> float:
        return self.rows / self.seconds

    @property
    def tokens_s(self) -> float:
        return (self.prompt_tokens + self.output_tokens) / self.seconds


class Started(Record):
    """An engine that answers.

    Attributes:
        seconds: Of its start.
        runner: vLLM's: V1 or V2.
        settings: Those of the profile and of the trial.
        filled: Bytes of experts that were filled.
    """

    seconds: float
    runner: str
    settings: dict[str, Any]
    filled: int = 0


Line = TypeAdapter[Started | Found](Started | Found)


@dataclass(frozen=True)
class Fixed:
    """The label's place where lengths are set."""

    place: int

    def __call__(self, tokens: list[int]) -> int | None:
        return self.place if len(tokens) > self.place else None


def random_prompts(trial: Trial, vocabulary: int, seed: int) -> list[Prompt]:
    """Ordinary tokens at random: as many shared by all, and as many of each prompt's own."""
    rng = random.Random(seed)
    highest = min(FIRST_CONTROL, vocabulary - 32)  # tiny's control tokens are its last
    header = HEADER if vocabulary > max(HEADER) else rng.choices(range(highest), k=len(HEADER))
    shared = rng.choices(range(highest), k=trial.shared)
    labels = rng.sample(range(highest), LABELS)
    place = Fixed(trial.thought + len(HEADER))
    return [
        Prompt(
            [*shared, *rng.choices(range(highest), k=trial.own)],
            labels,
            header,
            trial.thought,
            trial.rest,
            place,
        )
        for _ in range(trial.rows)
    ]


def job_prompts(job: Path, gpus: int) -> tuple[list[Prompt], list[int], list[int]]:
    """Those of a job; what stops an answer; and what a well-formed one has before the label."""
    from benchmarks.engine_work import EngineWork, label_tokens, opened
    from moderay.engines.harmony.vocabulary import END, MESSAGE, START

    work = EngineWork(job, gpus)
    [judge] = work.judges
    vocab = judge.safeguard.vocab
    shared, labels = label_tokens(judge)
    header = [
        vocab.control[END],
        vocab.control[START],
        *vocab.encode("assistant"),
        *judge.safeguard.final_header,
        *shared,
    ]

    def place(tokens: list[int]) -> int | None:
        before, parsed = opened(judge, tokens)
        return len(before) + len(shared) if parsed else None

    prompts = [
        Prompt(ids, labels, header, None, 64, place, judge.max_tokens) for _, ids in work.prompts()
    ]
    return prompts, work.stop, [vocab.control[MESSAGE], *shared]


async def measured(asked: Asked, found: Path) -> None:
    """Every trial on one engine."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from benchmarks.engine_work import OURS

    spec = VllmSpec(asked.source, gpus=asked.gpus, max_model_len=asked.max_model_len).here()
    arguments = spec._arguments(checkpoint.located(asked.source))
    arguments = {name: value for name, value in arguments.items() if name not in OURS}
    arguments |= asked.settings
    if asked.fill:
        arguments["worker_extension_cls"] = "benchmarks.p_classes.RandomExperts"
    began = time.monotonic()
    args = AsyncEngineArgs(**arguments)
    llm = AsyncLLM.from_engine_args(args)
    filled = sum(await llm.collective_rpc("fill_experts")) if asked.fill else 0
    runner = "V2" if llm.vllm_config.use_v2_model_runner else "V1"
    told = ("max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "dtype")
    settings = {name: arguments[name] for name in told if name in arguments}
    _add(
        found,
        Started(seconds=time.monotonic() - began, runner=runner, settings=settings, filled=filled),
    )
    vocabulary = llm.vllm_config.model_config.get_vocab_size()
    for trial in asked.trials:
        await _tried(trial, llm, asked, vocabulary, 2 * arguments["max_num_seqs"], found)
    llm.shutdown()


async def _tried(
    trial: Trial, llm: Any, asked: Asked, vocabulary: int, at_once: int, found: Path
) -> None:
    stop: list[int] = STOP if vocabulary > max(STOP) else []
    before: list[int] | None = None
    if trial.job is None:
        prompts = random_prompts(trial, vocabulary, asked.seed)
    else:
        prompts, stop, before = job_prompts(Path(trial.job), asked.gpus)
    ways = Ways(llm, stop, trial.temperature, trial.seeded)
    at_once = trial.at_once or at_once
    after = [before or []] * len(prompts)
    if before is None and set(trial.ways) & {"D", "G"}:
        learnt = await run_pass(ways, "bare", prompts, after, at_once)
        after = before_labels(prompts, learnt.answers, 2)
    for round_ in range(trial.rounds):
        answers: dict[str, Sequence[Answered]] = {}
        for way in trial.ways if round_ % 2 == 0 else trial.ways[::-1]:
            done = await run_pass(ways, way, prompts, after, at_once)
            answers[way] = done.answers
            _add(found, _found(trial, way, round_, prompts, done, answers.get("A")))


def _found(
    trial: Trial,
    way: str,
    round_: int,
    prompts: Sequence[Prompt],
    done: Pass,
    exact: Sequence[Answered] | None,
) -> Found:
    differs, same = (None, None)
    if exact is not None and way not in ("A", "bare"):
        most, same = furthest(done.answers, exact)
        differs = None if math.isnan(most) else most
    return Found(
        trial=trial.name,
        way=way,
        round=round_,
        rows=len(prompts),
        seconds=done.seconds,
        prompt_tokens=sum(len(prompt.ids) for prompt in prompts),
        output_tokens=done.tokens,
        one_request=done.one_request,
        p_differs=differs,
        same=same,
    )


def _add(file: Path, line: Record) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write(line.model_dump_json() + "\n")


def read(file: Path) -> tuple[Started | None, list[Found]]:
    """What an engine told; None where it never answered."""
    lines = (
        [Line.validate_json(line) for line in file.read_text().splitlines()]
        if file.is_file()
        else []
    )
    started = [line for line in lines if isinstance(line, Started)]
    return (started[0] if started else None), [line for line in lines if isinstance(line, Found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("asked", type=Path)
    parser.add_argument("found", type=Path)
    options = parser.parse_args()
    os.environ.update(QUIET)
    asked = Asked.model_validate_json(options.asked.read_text())
    asyncio.run(measured(asked, options.found))
    print(json.dumps({"done": len(asked.trials)}))


if __name__ == "__main__":
    main()
