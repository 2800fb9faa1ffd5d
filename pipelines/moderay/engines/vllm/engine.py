"""vLLM in the actor: `AsyncLLM`, one per GPU or tensor-parallel group.

The one file that imports vllm, late: it takes seconds, and a driver needs the spec only.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import itertools
import logging
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from moderay.core.errors import UserError
from moderay.core.events import event
from moderay.engines import checkpoint
from moderay.engines.base import (
    SECOND_REQUEST,
    WITH_THE_ANSWER,
    Completion,
    EngineDeadError,
    Request,
    RequestFailedError,
)
from moderay.engines.harmony.vocabulary import CALL, RETURN, START, vocabulary
from moderay.engines.vllm import capacity, engine_process, gpu_profiles, label_logits
from moderay.engines.vllm.gpu_profiles import Gpu

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

# Held while vllm is imported, which no two threads may do at once.
_IMPORTING = threading.Lock()

# Hands back the logits of a label's tokens with the answer: for the V1 runner in the engine's own
# process, which is what a CPU has. A GPU's runner has no way back for them.
NOTING = {
    "scheduler_cls": "moderay.engines.vllm.noting.NotingScheduler",
    "logits_processors": ["moderay.engines.vllm.noting:LabelLogits"],
}

# Kinds of sampling parameters that are kept: some for each policy.
SHARED_SAMPLING = 256

# Arguments by which memory is not what it is by default.
ELSEWHERE = {"cpu_offload_gb", "kv_cache_memory_bytes", "pipeline_parallel_size"}


@dataclass(frozen=True)
class VllmSpec:
    """A safeguard model and how it is hosted.

    `max_num_seqs` and `max_num_batched_tokens` are always set: outside its own server AsyncLLM
    takes 128 and 2,048 on every GPU. With `gpus` they are bounds until `here` has seen which GPU
    there is.

    Attributes:
        source: A hub id, a folder, one of an object store, or `tiny`.
        revision: Of a hub's model; None: the newest.
        dtype: Of the computation, as vLLM names it.
        quantization: As vLLM names it; None: the checkpoint's own.
        kv_cache_dtype: Of keys and values, as vLLM names it.
        max_model_len: Tokens of the longest prompt and its answer.
        max_num_seqs: Requests in a batch.
        max_num_batched_tokens: Tokens of a step.
        gpus: Of each engine; 0: it runs on a CPU.
        engine: Further arguments of vLLM's `AsyncEngineArgs`; on GPUs all that the job sets, which
            comes before the profile.
        gpu: The one of this machine, set by `here`.
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
        """The model's own."""
        return self.source

    def identity(self) -> Mapping[str, object]:
        """What could change a verdict; not speed and memory."""
        return {
            "model": checkpoint.identity(self.source),
            "revision": self.revision,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kv_cache_dtype": self.kv_cache_dtype,
        }

    def _cpu(self) -> dict[str, Any]:
        """Arguments that a CPU needs."""
        arguments: dict[str, Any] = {
            # A prompt is prefilled in one step: for a seeded request whose prefill is cut, vLLM
            # 0.32 winds back the random generator, which torch's CPU generator cannot do, and the
            # engine dies.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(self.max_num_batched_tokens, self.max_model_len),
            # Of blocks of 128 tokens, the default, much of a prompt's cached part is computed
            # again.
            "block_size": 32,
            # Compiling takes a C++ compiler and ten seconds of each start, and a model that fits a
            # CPU gains little.
            "enforce_eager": True,
        }
        alone = all(
            self.engine.get(name, 1) == 1
            for name in ("tensor_parallel_size", "pipeline_parallel_size")
        )
        if alone:
            arguments["distributed_executor_backend"] = _ONE_PROCESS
            arguments |= NOTING
        return arguments

    def here(self) -> VllmSpec:
        """With the profile of this machine's GPU under what the job says."""
        gpu = gpu_here() if self.gpus else None
        return self if gpu is None else self.on(gpu)

    def on(self, gpu: Gpu) -> VllmSpec:
        """With a GPU's profile under what the job says."""
        profile = gpu_profiles.profiles().of(gpu)
        settings = profile.settings(gpu_profiles.model_size(self.source))
        engine = {**settings.arguments(), **self.engine}
        return replace(
            self,
            gpu=gpu,
            engine=engine,
            max_num_seqs=engine["max_num_seqs"],
            max_num_batched_tokens=engine["max_num_batched_tokens"],
        )

    def refusal(self) -> str | None:
        """Why the GPU cannot hold the model and the longest prompt.

        None where it can, or where that cannot be known beforehand.
        """
        size = gpu_profiles.model_size(self.source)
        if self.gpu is None or size is None or self.engine.keys() & ELSEWHERE:
            return None
        need = capacity.EngineNeed(
            size=size,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            gpu_memory_utilization=self.engine["gpu_memory_utilization"],
            tensor_parallel_size=self.gpus,
            kv_cache_dtype=self.kv_cache_dtype,
        )
        return capacity.refusal(self.gpu, need)

    def preload(self) -> None:
        """Import what `build` needs, here and in the engine's process: most of a start."""
        _quiet()
        if self.gpus == 0:
            if self.engine.get("enforce_eager", True):
                # Of what is left to compile, a count of ranks behind the labels' probabilities,
                # the first row would wait for the compiler, and nothing is gained.
                os.environ["TORCHDYNAMO_DISABLE"] = "1"
            engine_process.begin()
        with _IMPORTING:
            importlib.import_module("vllm.v1.engine.async_llm")

    async def build(self) -> VllmEngine:
        """Fetches the model where that is needed, and loads it.

        Raises:
            UserError: The GPU is too small, or vLLM does not take the model or the arguments.
            TryAgainError: The store that holds the model does not answer.
        """
        if (unfit := self.refusal()) is not None:
            raise UserError(
                f"model {self.source!r} cannot be hosted on {os.uname().nodename}: {unfit}"
            )
        self.preload()
        folder = await asyncio.to_thread(checkpoint.located, self.source)
        from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415  late: it takes seconds
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415  late: it takes seconds

        try:
            args = AsyncEngineArgs(**self._arguments(folder))
            with engine_process.forked() if self.gpus == 0 else nullcontext():
                engine = VllmEngine(AsyncLLM.from_engine_args(args), self.source)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"model {self.source!r} cannot be started: {reason[0]} (see model: in the job)"
            ) from error
        if args.scheduler_cls == NOTING["scheduler_cls"]:
            try:
                await engine.choose_probability()
            except EngineDeadError as error:
                raise UserError(
                    f"model {self.source!r} cannot be started: the engine died of its first prompt "
                    f"({error})"
                ) from error
        return engine

    def _arguments(self, folder: str) -> dict[str, Any]:
        """Of `AsyncEngineArgs`; `folder`: where the model lies on this machine, or its hub id."""
        return {
            "model": folder,
            "revision": self.revision,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kv_cache_dtype": self.kv_cache_dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            # Prompts are ids and answers are parsed as ids: vLLM needs no tokenizer, and has no
            # string to mistake.
            "skip_tokenizer_init": True,
            # Never the pickles that may lie beside them.
            "load_format": "safetensors",
            "enable_prefix_caching": True,
            # Of sliding-window layers vLLM keeps a prompt's end only; the judge comes back for the
            # reasoning behind it.
            "prefix_cache_retention_interval": None,
            "enable_log_requests": False,
            "disable_log_stats": True,
            "seed": 0,
            **(self._cpu() if self.gpus == 0 else {}),
            **self.engine,
        }


def _quiet() -> None:
    """Before vllm is imported."""
    os.environ.update(QUIET)
    logging.getLogger("vllm").setLevel(QUIET["VLLM_LOGGING_LEVEL"])


def gpu_here() -> Gpu | None:
    """The first GPU that this process may use, None without one.

    NVIDIA's driver is asked: to ask torch would open a context, which holds half a GiB of the GPU
    as long as the process lives.
    """
    _quiet()
    with _IMPORTING:
        from vllm.platforms import current_platform  # noqa: PLC0415  late: it takes seconds

    if not current_platform.is_cuda():
        return None
    capability = current_platform.get_device_capability()
    assert capability is not None, "a CUDA platform names its capability"
    return Gpu(
        current_platform.get_device_name(),
        current_platform.get_device_total_memory(),
        (capability.major, capability.minor),
    )


class _Kind(NamedTuple):
    """What many requests have in common, as `Request` has it."""

    max_tokens: int
    temperature: float
    top_p: float
    score: tuple[int, ...]
    after: tuple[int, ...]
    stop: tuple[int, ...]


class VllmEngine:
    """A live `AsyncLLM`; continuous batching over whatever is asked of it at once.

    Attributes:
        probability_by: As `Engine` has it; `choose_probability` looks for the better way.
    """

    def __init__(self, llm: Any, source: str) -> None:
        """Takes over `llm`, an `AsyncLLM`; `source`: the model's, for its vocabulary."""
        from vllm.v1.engine import exceptions  # noqa: PLC0415  late: it takes seconds

        self._llm = llm
        self._vocab = vocabulary(source)
        self._stop = [self._vocab.control[RETURN], self._vocab.control[CALL]]
        self._dead = exceptions.EngineDeadError
        self._number = itertools.count()
        self._shared_sampling = lru_cache(SHARED_SAMPLING)(self._new_sampling)
        self.probability_by = SECOND_REQUEST

    async def choose_probability(self) -> None:
        """Take P with the answer where it is the same as a second request gives.

        One known prompt is asked both ways; only for an engine with `NOTING`.

        Raises:
            EngineDeadError: The engine does not survive that.
        """
        self.probability_by = WITH_THE_ANSWER
        exact = str(self._llm.model_config.dtype) == "torch.float32"
        prompt = [self._vocab.control[START], *self._vocab.encode("assistant")]
        try:
            reason = await label_logits.disagreement(self.generate, prompt, exact)
        except RequestFailedError as error:
            reason = f"a known prompt fails ({error})"
        if reason is not None:
            self.probability_by = f"{SECOND_REQUEST}: {reason}"
            event("probability by a second request", logging.WARNING, reason=reason)

    async def generate(self, request: Request) -> Completion:
        """What the model goes on with.

        Raises:
            EngineDeadError: vLLM's process ended, and everything in flight with it.
            RequestFailedError: vLLM refuses this request.
        """
        sampling = self._sampling(request)
        last = None
        try:
            async for part in self._llm.generate(
                {"prompt_token_ids": request.prompt}, sampling, str(next(self._number))
            ):
                last = part
        except self._dead as error:
            raise EngineDeadError(self._end()) from error
        except ValueError as error:
            raise RequestFailedError(str(error).splitlines()[0]) from error
        if last is None or not last.finished:
            raise RequestFailedError("the engine gave no output")
        place, logprobs = self._scored(request, last)
        tokens = list(last.outputs[0].token_ids)
        return Completion(tokens, logprobs, last.num_cached_tokens or 0, place)

    def _end(self) -> str:
        """How the engine's process ended, as far as that is known."""
        manager = self._llm.engine_core.resources.engine_manager
        codes = [] if manager is None else manager.finished_procs().values()
        for code in codes:
            if code < 0:
                said = signal.strsignal(-code)
                memory = ", as where memory runs out" if -code == signal.SIGKILL else ""
                return f"its process was ended by signal {-code}: {said}{memory}"
        return "its process ended; vLLM's own error lies in its actor's log, below Ray's session"

    def _sampling(self, request: Request) -> Any:
        """A request's `SamplingParams`: all but the seed is shared, since making them is slow."""
        score, after = request.score, request.after
        if after and self.probability_by != WITH_THE_ANSWER:
            score, after = (), ()
        kind = _Kind(
            request.max_tokens, request.temperature, request.top_p, score, after, request.stop
        )
        sampling = self._shared_sampling(kind)
        if request.temperature > 0:
            sampling = copy.copy(sampling)
            sampling.seed = request.seed
        return sampling

    def _new_sampling(self, kind: _Kind) -> Any:
        from vllm.sampling_params import (  # noqa: PLC0415  late: it takes seconds
            RequestOutputKind,
            SamplingParams,
        )

        in_passing = label_logits.wanted(kind.after, kind.score) if kind.after else None
        return SamplingParams(
            max_tokens=kind.max_tokens,
            temperature=kind.temperature,
            top_p=kind.top_p,
            stop_token_ids=[*self._stop, *kind.stop],
            logprob_token_ids=None if kind.after else list(kind.score) or None,
            extra_args=in_passing,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            # Shared, and changed by nobody: vLLM would copy it with all that hangs on it.
            skip_clone=True,
        )

    def _scored(self, request: Request, output: Any) -> tuple[int, dict[int, float]]:
        """Which generated token is scored, and its scores."""
        if request.after:
            place, logits = label_logits.noted(output.kv_transfer_params)
            return place, dict(zip(request.score, logits, strict=False))
        if not request.score:
            return 0, {}
        values = output.outputs[0].logprobs[0]
        return 0, {token: value.logprob for token, value in values.items()}

    def close(self) -> None:
        """What is in flight ends with an error."""
        self._llm.shutdown()
