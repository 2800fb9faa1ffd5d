"""What the benchmarks put into vLLM's own processes: named by its path in the engine's arguments.

`LabelStepScheduler` is way D to P: log-probabilities are computed for every token, as in B, and
handed on for the label's alone. `RandomExperts` fills quantised experts, which vLLM's loader of
random weights leaves at zero.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.p_ways import AFTER
from moderay.engines.vllm.noting import NotingScheduler

# A scale of 2^-7 for each 32 weights, as MXFP4 writes it.
SCALE = 120


class _LabelStep:
    """A step's log-probabilities; a request's are given only where its label comes now."""

    __slots__ = ("_lists", "_wanted")

    def __init__(self, lists: Any, wanted: set[int]) -> None:
        self._lists, self._wanted = lists, wanted

    def slice_request(self, index: int, count: int) -> Any:
        return self._lists.slice_request(index, count) if index in self._wanted else None


def with_label_steps_only(requests: dict[str, Any], output: Any) -> Any:
    """A step's output without the log-probabilities that nobody asked for."""
    if output.logprobs is None:
        return output
    wanted = set()
    for name, index in output.req_id_to_index.items():
        request = requests.get(name)
        params = None if request is None else request.sampling_params
        after = (params.extra_args or {}).get(AFTER) if params is not None else None
        if request is None or after is None or request.output_token_ids[-len(after) :] == after:
            wanted.add(index)
    output.logprobs = _LabelStep(output.logprobs, wanted)
    return output


class LabelStepScheduler(NotingScheduler):
    """Way D; and G, whose scheduler it is built on."""

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        kept = with_label_steps_only(self.requests, model_runner_output)
        return super().update_from_output(scheduler_output, kept)


class RandomExperts:
    """An extension of vLLM's worker."""

    model_runner: Any

    def fill_experts(self) -> int:
        """Random bytes for MXFP4 weights and one small scale for all; bytes that were filled.

        Zeros would draw less power than weights do, and a GPU that draws less runs faster.
        """
        filled = 0
        for name, parameter in self.model_runner.model.named_parameters():
            if parameter.dtype != torch.uint8:
                continue
            if "scale" in name:
                parameter.data.fill_(SCALE)
            else:
                parameter.data.random_(0, 256)
            filled += parameter.numel()
        return filled
