"""The engine that a job asks for."""

from __future__ import annotations

from dataclasses import replace

from moderay.config.job import SCRIPTED, Job, Model
from moderay.engines.base import EngineSpec
from moderay.engines.remote.spec import RemoteSpec
from moderay.engines.scripted import ScriptedSpec
from moderay.engines.vllm import gpu_profiles
from moderay.engines.vllm.engine import VllmSpec, gpu_here

# Requests in one engine's batch and tokens in one of its steps on a CPU, which is slower with more.
# Of GPUs each kind has its profile, which only the worker can choose.
CPU_BATCH = (256, 8192)


def engine_spec(job: Job, gpus: int) -> EngineSpec:
    """The engine that a job asks for.

    Args:
        job: Its model: served, scripted, or to be hosted here.
        gpus: On the cluster; 0: the engine runs on CPUs.
    """
    if job.model.endpoint is not None:
        return _remote_spec(job.model, job.model.endpoint)
    if job.model.source.startswith(SCRIPTED):
        return ScriptedSpec.load(
            job.model.source.removeprefix(SCRIPTED),
            job.model.engine.get("max_num_seqs", CPU_BATCH[0]),
        )
    return _vllm_spec(job.model, gpus)


def _remote_spec(model: Model, endpoint: str) -> RemoteSpec:
    return RemoteSpec(
        endpoint=endpoint,
        name=model.name or "",
        revision=model.revision,
        dtype=model.dtype,
        quantization=model.quantization,
        kv_cache_dtype=model.kv_cache_dtype,
        logprobs=model.logprobs,
        max_num_seqs=model.concurrency,
    )


def _vllm_spec(model: Model, gpus: int) -> VllmSpec:
    """On GPUs what the job says under model.engine stays in `engine`.

    There it comes before the worker's profile; where it says nothing the largest profile is the
    bound.
    """
    engine = dict(model.engine)
    most = gpu_profiles.most()
    seqs, tokens = (most.max_num_seqs, most.max_num_batched_tokens) if gpus else CPU_BATCH
    take = engine.get if gpus else engine.pop
    return VllmSpec(
        source=model.source,
        revision=model.revision,
        dtype=model.dtype,
        quantization=model.quantization,
        kv_cache_dtype=model.kv_cache_dtype,
        max_num_seqs=take("max_num_seqs", seqs),
        max_num_batched_tokens=take("max_num_batched_tokens", tokens),
        gpus=int(engine.get("tensor_parallel_size", 1)) if gpus else 0,
        engine=engine,
    )


def engine_here(job: Job, max_model_len: int) -> EngineSpec:
    """The engine that a job asks for, in this process, on a GPU where there is one.

    Args:
        job: For its model.
        max_model_len: Tokens of the longest prompt with its answer.
    """
    spec = engine_spec(job, gpus=0)
    if isinstance(spec, VllmSpec) and gpu_here() is not None:
        spec = engine_spec(job, gpus=1)
    if isinstance(spec, VllmSpec | RemoteSpec):
        return replace(spec, max_model_len=max_model_len)
    return spec
