"""Everything that can be known before a cluster is touched: the job, its policies, its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moderay import tiny
from moderay.engines import EngineSpec, ScriptedSpec, VllmSpec
from moderay.errors import Problem, Problems, TryAgain, UserError
from moderay.job import SCRIPTED, Draft, Job, draft_job
from moderay.judges.reason import Reason, reason_judges
from moderay.policy import Policy
from moderay.shards import Scan, scan

# Requests in one engine's batch and tokens in one of its steps. vLLM's own defaults outside its server are 128 and 2,048
# on every GPU; a CPU is slower with more.
GPU_BATCH = (1024, 16384)
CPU_BATCH = (256, 8192)


@dataclass(frozen=True)
class Checked:
    """A job that can run: nothing of it is wrong as far as can be told from here."""

    job: Job
    policies: tuple[Policy, ...]
    scan: Scan


def check(file: str | Path, sets: Sequence[str] = ()) -> Checked:
    """Read and check a job file, its policies and its input. Raises `Problems` with everything wrong, `UserError` or
    `TryAgain` where the storage does not answer."""
    draft = draft_job(file, sets)
    if draft.job is not None and not draft.problems:
        return check_job(draft.job, draft.policies)
    raise Problems([*draft.problems, *_input_problems(draft)])


def _input_problems(draft: Draft) -> list[Problem]:
    """What is wrong with the input of a job that cannot run anyway; a store that does not answer now is asked next time."""
    if draft.job is None:
        return []
    try:
        return list(scan(draft.job, [policy.id for policy in draft.policies]).problems)
    except TryAgain:
        return []
    except UserError as error:
        return [draft.job.problem("input.path", str(error))]


def check_job(job: Job, policies: Sequence[Policy]) -> Checked:
    """The same for a job made in Python."""
    found = scan(job, [policy.id for policy in policies])
    if found.problems:
        raise Problems(found.problems)
    return Checked(job, tuple(policies), found)


def engine_and_judges(job: Job, policies: Sequence[Policy], gpus: int) -> tuple[EngineSpec, list[Reason]]:
    """The engine's spec, long enough for every policy's longest prompt, and a judge per policy. `gpus`: on the cluster."""
    if job.model.source.startswith(SCRIPTED):
        file, seqs = job.model.source.removeprefix(SCRIPTED), job.model.engine.get("max_num_seqs", CPU_BATCH[0])
        spec: EngineSpec = ScriptedSpec.load(file, seqs)
        return spec, reason_judges(job, policies, spec)
    engine = dict(job.model.engine)
    seqs, tokens = GPU_BATCH if gpus else CPU_BATCH
    vllm = VllmSpec(
        source=str(tiny.FOLDER) if job.model.source == "tiny" else job.model.source,
        revision=job.model.revision,
        dtype=job.model.dtype,
        quantization=job.model.quantization,
        kv_cache_dtype=job.model.kv_cache_dtype,
        max_num_seqs=engine.pop("max_num_seqs", seqs),
        max_num_batched_tokens=engine.pop("max_num_batched_tokens", tokens),
        gpus=int(engine.get("tensor_parallel_size", 1)) if gpus else 0,
        engine=engine,
    )
    judges = reason_judges(job, policies, vllm)
    needed = max(judge.max_model_len for judge in judges)
    given = engine.pop("max_model_len", needed)
    if given < needed:
        raise UserError(f"model.engine.max_model_len is {given}, but policies, windows and budget need {needed}: raise it or lower windows.tokens")
    return replace(vllm, max_model_len=given, engine=engine), judges
