"""A job's work without moderay: the prompts, and what vLLM's engine is to be told.

Bare engines and peers get the same prompts, engine arguments and sampling as the judge gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import workload
from moderay.config.job_file import load_job
from moderay.engines import checkpoint
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.answer import parse
from moderay.engines.harmony.vocabulary import CALL, RETURN
from moderay.engines.vllm.engine import VllmSpec
from moderay.judges.build import fitted
from moderay.judges.reason import Reason
from moderay.tasks.embedded_job import job_cascades

# What the pipeline adds to learn P on the way: not of a bare engine.
OURS = ("scheduler_cls", "logits_processors", "worker_extension_cls")


@dataclass(frozen=True)
class EngineWork:
    """A folder of `workload.write`, seen from an engine."""

    job: Path
    gpus: int = 0

    @cached_property
    def _built(self) -> tuple[VllmSpec, tuple[Reason, ...]]:
        job, policies = load_job(self.job)
        cascades = job_cascades(job, policies)
        spec = fitted(engine_spec(job, gpus=self.gpus), cascades).here()
        assert isinstance(spec, VllmSpec)
        judges = [cascade.last for cascade in cascades]
        return spec, tuple(judge for judge in judges if isinstance(judge, Reason))

    @property
    def spec(self) -> VllmSpec:
        return self._built[0]

    @property
    def judges(self) -> tuple[Reason, ...]:
        return self._built[1]

    def arguments(self) -> dict[str, Any]:
        """Of vLLM's engine, those of the pipeline."""
        spec = self.spec
        arguments = spec._arguments(checkpoint.located(spec.source))
        return {name: value for name, value in arguments.items() if name not in OURS}

    def prompts(self) -> list[tuple[Reason, list[int]]]:
        """Who asks, and the token ids; rows in the order of the corpus, every policy for each.

        A broken row is rendered as a script would that does not look: null as nothing.
        """
        contents = workload.contents(self.job.parent)
        encode = self.judges[0].safeguard.vocab.encode
        return [
            (judge, judge.safeguard.prompt.render(ids))
            for ids in (encode(content or "") for content in contents)
            for judge in self.judges
        ]

    @property
    def stop(self) -> list[int]:
        control = self.judges[0].safeguard.vocab.control
        return [control[RETURN], control[CALL]]


def opened(judge: Reason, tokens: list[int]) -> tuple[list[int], bool]:
    """What stands before the label: the output up to there, or as the judge opens the final channel
    itself; and whether the output could be parsed.
    """
    answer = parse(tokens, judge.policy, judge.safeguard.vocab)
    if answer is None:
        return judge._opened(tokens), False
    return tokens[: answer.final], True


def label_tokens(judge: Reason) -> tuple[list[int], list[int]]:
    """What all labels begin with, and the ids at which they part."""
    openings = list(judge.safeguard.openings.values())
    shared = next(
        place for place, ids in enumerate(zip(*openings, strict=False)) if len(set(ids)) > 1
    )
    return openings[0][:shared], sorted({opening[shared] for opening in openings})


def steady(marks: list[tuple[float, int]], rows: int) -> tuple[float, float, float]:
    """Rows/s from the first mark past 20% to the last before 80%, and these two moments; of so few
    marks that there are none, between the first and the last.

    Args:
        marks: When, and how many rows were done.
        rows: In all.
    """
    inner = [(when, done) for when, done in marks if 0.2 * rows <= done <= 0.8 * rows]
    if len({done for _, done in inner}) < 2:
        inner = marks
    (begin, first), (end, last) = inner[0], inner[-1]
    return (last - first) / (end - begin) if end > begin else float("nan"), begin, end
