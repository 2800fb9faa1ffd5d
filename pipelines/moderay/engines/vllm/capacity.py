"""Whether a GPU can hold a model and the longest prompt, by counting bytes."""

from __future__ import annotations

from dataclasses import dataclass

from moderay.engines.vllm.gpu_profiles import GIB, HIDDEN, MOST_GPUS, Gpu, Size, profiles

# Of both models, beside HIDDEN.
HEADS = 64
KV_HEADS = 8
# Width of a head.
HEAD = 64
VOCABULARY = 201_088
# Tokens that every second layer looks back.
SLIDING = 128
# Steps that are under way at once: while the GPU computes one, vLLM prepares the next.
STEPS = 2
# CUDA's context and graphs, at least.
CONTEXT_BYTES = GIB // 2
# Compute capability from which a GPU has bfloat16 (Ampere).
BFLOAT16 = (8, 0)
# The same of fp8 keys and values (Ada).
FP8 = (8, 9)


@dataclass(frozen=True)
class EngineNeed:
    """What a job asks of its GPUs, named as vLLM names it.

    Attributes:
        size: Of the model.
        max_model_len: Tokens of the longest prompt and its answer.
        max_num_seqs: Requests in a batch.
        max_num_batched_tokens: Tokens of a step.
        gpu_memory_utilization: Share of the GPU's memory that vLLM may take.
        tensor_parallel_size: GPUs of one engine.
        kv_cache_dtype: Of keys and values; `auto`: two bytes.
    """

    size: Size
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    tensor_parallel_size: int = 1
    kv_cache_dtype: str = "auto"

    def weights(self, gpu: Gpu, gpus: int) -> int:
        """Bytes of weights on one of so many GPUs, in the layout of the kernels it runs."""
        model = profiles().models[self.size]
        hopper = gpu.capability[0] == 9
        hidden = HIDDEN if hopper else _up(HIDDEN, 256)
        inner = _up(HIDDEN // gpus, 64 if hopper else 128) * gpus
        experts = model.layers * model.experts * 3 * hidden * inner * 17 // 32
        attention = model.layers * HIDDEN * 2 * (HEADS + KV_HEADS) * HEAD * 2
        return (experts + attention + 2 * VOCABULARY * HIDDEN * 2) // gpus

    def step(self) -> int:
        """Bytes of a step's activations and of sampling, and CUDA's own."""
        return (
            CONTEXT_BYTES
            + self.max_num_batched_tokens * 4 * 4 * HIDDEN * 2
            + self.max_num_seqs * 3 * VOCABULARY * 4
        )

    def kv(self, tokens: int, gpus: int) -> int:
        """Bytes of keys and values of one prompt on one of so many GPUs."""
        width = 1 if self.kv_cache_dtype.startswith("fp8") else 2
        half = profiles().models[self.size].layers // 2 * 2 * KV_HEADS * HEAD * width
        return (
            (tokens + min(tokens, SLIDING - 1 + STEPS * self.max_num_batched_tokens)) * half // gpus
        )

    def fits(self, gpu: Gpu, tokens: int, gpus: int) -> bool:
        """Whether so many GPUs of a kind hold the model and one prompt of so many tokens."""
        return (
            self.weights(gpu, gpus) + self.step() + self.kv(tokens, gpus)
            <= gpu.memory * self.gpu_memory_utilization
        )


def refusal(gpu: Gpu, need: EngineNeed) -> str | None:
    """Why this GPU cannot hold what the job asks for, and what to change; None where it can.

    An estimate that counts what vLLM takes at least: vLLM itself, which measures, may still refuse.
    """
    capability = ".".join(map(str, gpu.capability))
    if gpu.capability < BFLOAT16:
        return (
            f"{gpu.name} (compute capability {capability}) has no bfloat16, which the model "
            "is computed in: take a GPU of compute capability 8.0 or above"
        )
    if need.kv_cache_dtype.startswith("fp8") and gpu.capability < FP8:
        return (
            f"{gpu.name} (compute capability {capability}) cannot keep keys and values in "
            f"{need.kv_cache_dtype}: leave out model.kv_cache_dtype"
        )
    if need.fits(gpu, need.max_model_len, need.tensor_parallel_size):
        return None
    return _too_small(gpu, need)


def _too_small(gpu: Gpu, need: EngineNeed) -> str:
    """What does not fit, and what to change."""
    enough = fewest_gpus(gpu, need)
    more = (
        "take a larger GPU"
        if enough is None
        else f"set model.engine.tensor_parallel_size: {enough} (GPUs for each engine)"
    )
    has = f"{gpu.name} has {gpu.memory / GIB:.1f} GiB"
    if not need.fits(gpu, 1, need.tensor_parallel_size):
        needed = need.weights(gpu, need.tensor_parallel_size) + need.step()
        return (
            f"{has}, of which {need.gpu_memory_utilization:.0%} may be used, and its share "
            f"of gpt-oss {need.size} takes {needed / GIB:.1f} GiB: {more}"
        )
    room = (
        f"enough for {_longest(gpu, need):,} tokens, not the {need.max_model_len:,} of the "
        "longest prompt"
    )
    return f"{has}, and beside gpt-oss {need.size} that is {room}: lower windows.tokens, or {more}"


def _longest(gpu: Gpu, need: EngineNeed) -> int:
    """Tokens of the longest prompt that fits, to the hundred below."""
    low = 0
    high = need.max_model_len
    while high - low > 100:
        middle = (low + high) // 2
        if need.fits(gpu, middle, need.tensor_parallel_size):
            low = middle
        else:
            high = middle
    return low // 100 * 100


def fewest_gpus(gpu: Gpu, need: EngineNeed) -> int | None:
    """GPUs of this kind that one engine needs; None where no node's would be enough."""
    return next((n for n in _gpu_counts() if need.fits(gpu, need.max_model_len, n)), None)


def _gpu_counts() -> tuple[int, ...]:
    """Into which 64 heads and 8 KV heads can be divided."""
    return tuple(n for n in range(1, MOST_GPUS + 1) if KV_HEADS % n == 0)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
