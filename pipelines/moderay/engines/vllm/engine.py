"""vLLM in the actor: `AsyncLLM`, one per GPU or tensor-parallel group. The one file that imports
vllm.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moderay.core.errors import UserError
from moderay.engines import checkpoint
from moderay.engines.base import Completion, EngineDeadError, Request, RequestFailedError
from moderay.engines.harmony.vocabulary import CALL, RETURN, vocabulary
from moderay.engines.vllm import gpu_profiles
from moderay.engines.vllm.gpu_profiles import Gpu, Wanted

# Set before vllm is imported: no telemetry, and no log line per engine start in the user's
# terminal.
QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
    "VLLM_CONFIGURE_LOGGING": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # vLLM would otherwise take a share of the machine's memory, which Ray's object store also
    # counts on. GiB.
    "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "2"),
    # vLLM would otherwise tie each engine of a machine to the same cores: two on two cores had one
    # of them.
    "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
}

# The model in the engine's own process. Named as a class: by its short name vLLM 0.32 does not take
# it on a CPU, and starts one process more, which on two cores made a start take 37 s instead of 25,
# and the demo an eighth longer.
_ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"

# Arguments by which memory is not what it is by default.
ELSEWHERE = {"cpu_offload_gb", "kv_cache_memory_bytes", "pipeline_parallel_size"}


@dataclass(frozen=True)
class VllmSpec:
    """A safeguard model and how it is hosted.

    `source`: a hub id, a folder, one of an object store, or `tiny`. `max_model_len`: tokens of the
    longest prompt and its answer. `max_num_seqs` and `max_num_batched_tokens` are always given:
    outside its own server AsyncLLM takes 128 and 2,048 on every GPU. With `gpus` they are bounds
    until `here` has seen which GPU there is. `engine`: further arguments of vLLM's
    `AsyncEngineArgs`; on GPUs all that the job gives, which comes before the profile. `gpu`: found
    by `here`.
    """

    source: str
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    max_model_len: int = 16384
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    gpus: int = 0
    engine: Mapping[str, Any] = field(default_factory=dict)
    gpu: Gpu | None = None

    @property
    def vocabulary_source(self) -> str | None:
        return self.source

    def identity(self) -> Mapping[str, object]:
        return {
            "model": checkpoint.identity(self.source),
            "revision": self.revision,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kv_cache_dtype": self.kv_cache_dtype,
        }

    def _cpu(self) -> dict[str, Any]:
        """What a CPU needs. A prompt is prefilled in one step: for a seeded request whose prefill
        is cut, vLLM 0.32 winds back the random generator, which torch's CPU generator cannot do,
        and the engine dies. Small blocks: of 128 tokens, the default, much of a prompt's cached
        part is computed again. Not compiled: that takes a C++ compiler and ten seconds of each
        start, and a model that fits a CPU gains little.
        """
        whole = max(self.max_num_batched_tokens, self.max_model_len)
        given = {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": whole,
            "block_size": 32,
            "enforce_eager": True,
        }
        alone = all(
            self.engine.get(name, 1) == 1
            for name in ("tensor_parallel_size", "pipeline_parallel_size")
        )
        return given | {"distributed_executor_backend": _ONE_PROCESS} if alone else given

    def here(self) -> VllmSpec:
        """With the profile of this machine's GPU under what the job says."""
        gpu = gpu_here() if self.gpus else None
        if gpu is None:
            return self
        engine = {
            **gpu_profiles.profiles()
            .of(gpu)
            .settings(gpu_profiles.model_size(self.source))
            .arguments(),
            **self.engine,
        }
        return replace(
            self,
            gpu=gpu,
            engine=engine,
            max_num_seqs=engine["max_num_seqs"],
            max_num_batched_tokens=engine["max_num_batched_tokens"],
        )

    def refusal(self) -> str | None:
        """Why the GPU cannot hold the model and the longest prompt; None where it can, or where
        that cannot be said beforehand.
        """
        size = gpu_profiles.model_size(self.source)
        if self.gpu is None or size is None or self.engine.keys() & ELSEWHERE:
            return None
        share = self.engine["gpu_memory_utilization"]
        wanted = Wanted(
            size,
            self.max_model_len,
            self.max_num_seqs,
            self.max_num_batched_tokens,
            share,
            self.gpus,
            self.kv_cache_dtype,
        )
        return gpu_profiles.refusal(self.gpu, wanted)

    async def build(self) -> VllmEngine:
        if (unfit := self.refusal()) is not None:
            raise UserError(
                f"model {self.source!r} cannot be hosted on {os.uname().nodename}: {unfit}"
            )
        folder = await asyncio.to_thread(checkpoint.located, self.source)
        _quiet()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            args = AsyncEngineArgs(
                **{
                    "model": folder,
                    "revision": self.revision,
                    "dtype": self.dtype,
                    "quantization": self.quantization,
                    "kv_cache_dtype": self.kv_cache_dtype,
                    "max_model_len": self.max_model_len,
                    "max_num_seqs": self.max_num_seqs,
                    "max_num_batched_tokens": self.max_num_batched_tokens,
                    # Prompts are ids and answers are parsed as ids: vLLM needs no tokenizer, and
                    # has no string to mistake.
                    "skip_tokenizer_init": True,
                    # Never the pickles that may lie beside them.
                    "load_format": "safetensors",
                    "enable_prefix_caching": True,
                    # Of sliding-window layers vLLM keeps a prompt's end only; the judge comes back
                    # for the reasoning behind it.
                    "prefix_cache_retention_interval": None,
                    "enable_log_requests": False,
                    "disable_log_stats": True,
                    "seed": 0,
                    **(self._cpu() if self.gpus == 0 else {}),
                    **self.engine,
                }
            )
            return VllmEngine(AsyncLLM.from_engine_args(args), self.source)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"model {self.source!r} cannot be started: {reason[0]} (see model: in the job)"
            ) from error


def _quiet() -> None:
    """Before vllm is imported."""
    os.environ.update(QUIET)
    logging.getLogger("vllm").setLevel(QUIET["VLLM_LOGGING_LEVEL"])


def gpu_here() -> Gpu | None:
    """The first GPU that this process may use, None without one. NVIDIA's driver is asked: to ask
    torch would open a context, which holds half a GiB of the GPU as long as the process lives.
    """
    _quiet()
    from vllm.platforms import current_platform

    if not current_platform.is_cuda():
        return None
    capability = current_platform.get_device_capability()
    assert capability is not None, "a CUDA platform names its capability"
    return Gpu(
        current_platform.get_device_name(),
        current_platform.get_device_total_memory(),
        (capability.major, capability.minor),
    )


class VllmEngine:
    """A live `AsyncLLM`; continuous batching over whatever is asked of it at once."""

    def __init__(self, llm: Any, source: str) -> None:
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine import exceptions

        control = vocabulary(source).control
        self._llm = llm
        self._stop = [control[RETURN], control[CALL]]
        self._params = SamplingParams
        self._final = RequestOutputKind.FINAL_ONLY
        self._dead = exceptions.EngineDeadError
        self._number = itertools.count()

    async def generate(self, request: Request) -> Completion:
        sampling = self._params(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed if request.temperature > 0 else None,
            stop_token_ids=self._stop,
            logprob_token_ids=list(request.score) or None,
            detokenize=False,
            output_kind=self._final,
        )
        last = None
        try:
            async for output in self._llm.generate(
                {"prompt_token_ids": request.prompt}, sampling, str(next(self._number))
            ):
                last = output
        except self._dead as error:
            raise EngineDeadError(str(error) or "the engine's process ended") from error
        except ValueError as error:
            raise RequestFailedError(str(error).splitlines()[0]) from error
        if last is None or not last.finished:
            raise RequestFailedError("the engine gave no output")
        said = last.outputs[0]
        logprobs = (
            {token: value.logprob for token, value in said.logprobs[0].items()}
            if request.score
            else {}
        )
        return Completion(list(said.token_ids), logprobs, last.num_cached_tokens or 0)

    def close(self) -> None:
        self._llm.shutdown()
