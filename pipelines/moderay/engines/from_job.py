"""The engine that a job asks for."""

from __future__ import annotations

from moderay.config.job import SCRIPTED, Job
from moderay.engines.base import EngineSpec
from moderay.engines.remote.spec import RemoteSpec
from moderay.engines.scripted import ScriptedSpec
from moderay.engines.vllm import gpu_profiles
from moderay.engines.vllm.engine import VllmSpec

# Requests in one engine's batch and tokens in one of its steps on a CPU, which is slower with more.
# Of GPUs each kind has its profile, which only the worker can choose.
CPU_BATCH = (256, 8192)


def engine_spec(job: Job, gpus: int) -> EngineSpec:
    """The engine that a job asks for; `gpus`: on the cluster. There, what the job says under
    model.engine stays in `engine`, where it comes before the worker's profile, and where it says
    nothing the largest profile is the bound.
    """
    if job.model.endpoint is not None:
        return RemoteSpec(
            endpoint=job.model.endpoint,
            name=job.model.name or "",
            revision=job.model.revision,
            dtype=job.model.dtype,
            quantization=job.model.quantization,
            kv_cache_dtype=job.model.kv_cache_dtype,
            logprobs=job.model.logprobs,
            max_num_seqs=job.model.concurrency,
        )
    if job.model.source.startswith(SCRIPTED):
        return ScriptedSpec.load(
            job.model.source.removeprefix(SCRIPTED),
            job.model.engine.get("max_num_seqs", CPU_BATCH[0]),
        )
    engine = dict(job.model.engine)
    most = gpu_profiles.most()
    seqs, tokens = (most.max_num_seqs, most.max_num_batched_tokens) if gpus else CPU_BATCH
    take = engine.get if gpus else engine.pop
    return VllmSpec(
        source=job.model.source,
        revision=job.model.revision,
        dtype=job.model.dtype,
        quantization=job.model.quantization,
        kv_cache_dtype=job.model.kv_cache_dtype,
        max_num_seqs=take("max_num_seqs", seqs),
        max_num_batched_tokens=take("max_num_batched_tokens", tokens),
        gpus=int(engine.get("tensor_parallel_size", 1)) if gpus else 0,
        engine=engine,
    )
