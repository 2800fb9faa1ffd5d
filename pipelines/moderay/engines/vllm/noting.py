"""What vLLM's own process is given, to note the logits of labels while it generates.

A logits processor looks on while vLLM's V1 runner generates: where a request's output ends in the
ids behind which its labels part, it notes their logits. The scheduler hands the note back with the
finished request. Nothing that is generated changes, and nothing is computed twice.

Processor and scheduler meet in the sampling parameters of a request, which are one object for both
as long as model and scheduler share a process; so a note goes with its request, whatever becomes of
it. Neither class is of vLLM's public interface: `VllmEngine` tries them on a known prompt when it
starts, and asks a second time for P where they do not tell the truth.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request as ScheduledRequest
from vllm.v1.sample.logits_processor.interface import (
    BatchUpdate,
    LogitsProcessor,
    MoveDirectionality,
)

from moderay.engines.vllm.label_logits import AFTER, NOTE, SCORE


class _Watched(NamedTuple):
    """A request of the batch whose labels are waited for."""

    generated: list[int]  # as vLLM goes on with it
    after: list[int]
    args: dict[str, Any]

    def is_due(self) -> bool:
        """Whether the next token is the one at which labels part."""
        after, generated = self.after, self.generated
        # The last id first: at nearly every token it says no already.
        return generated[-1:] == after[-1:] and generated[-len(after) :] == after


def _allow_amx() -> None:
    """Ask Linux for the tiles of AMX, where a CPU has it: who uses them unasked dies by SIGILL.

    The attention of vLLM 0.32 does, and leaves the asking to oneDNN, whose turn may come later.
    """
    torch.cpu._init_amx()


class LabelLogits(LogitsProcessor):  # type: ignore[misc]  # vllm is not typed
    """Notes logits, and changes none."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        """Of an empty batch."""
        _allow_amx()
        self._watched: dict[int, _Watched] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Each is good: what is not meant for it, it does not look at."""

    def is_argmax_invariant(self) -> bool:
        """False, though it is: for a greedy batch vLLM calls no others."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests to their places in the batch."""
        if batch_update is None:
            return
        watched = self._watched
        for place in batch_update.removed:
            watched.pop(place, None)
        for place, params, _, generated in batch_update.added:
            watched.pop(place, None)
            if params.extra_args and AFTER in params.extra_args:
                watched[place] = _Watched(generated, params.extra_args[AFTER], params.extra_args)
        for source, target, direction in batch_update.moved:
            moved, displaced = watched.pop(source, None), watched.pop(target, None)
            if moved is not None:
                watched[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                watched[source] = displaced

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Note what is due.

        Args:
            logits: float32, a row for each place of the batch, before any temperature.
        """
        for place, request in self._watched.items():
            if request.is_due():
                scores = logits[place, request.args[SCORE]].tolist()
                request.args[NOTE] = [len(request.generated), scores]
        return logits


class NotingScheduler(Scheduler):  # type: ignore[misc]  # vllm is not typed
    """Hands the notes back, in the place where vLLM hands back where a request's cache lies."""

    def _free_request(
        self, request: ScheduledRequest, delay_free_blocks: bool = False
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        cache, encoder = super()._free_request(request, delay_free_blocks)
        params = request.sampling_params
        note = (params.extra_args or {}).get(NOTE) if params is not None else None
        return (cache if note is None else {**(cache or {}), NOTE: note}), encoder
