"""A served model, as the driver describes it to its actors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moderay.core.errors import StoppedError

if TYPE_CHECKING:
    from moderay.engines.remote.client import RemoteEngine

# Seconds in which an endpoint that is starting must answer. A host tries ten times one after the
# other: a server may take ten minutes to come back.
START_S = 60.0


@dataclass(frozen=True)
class RemoteSpec:
    """A served model.

    Attributes:
        endpoint: URL of the API, up to its version.
        name: As the endpoint calls the model.
        revision: What the job states of the model; nobody checks it, but it is part of the judge
            key. The same for the next three.
        dtype: As `revision`.
        quantization: As `revision`.
        kv_cache_dtype: As `revision`.
        logprobs: Whether log-probabilities are asked for, and verdicts have a probability.
        max_num_seqs: Requests in flight.
        max_model_len: Tokens of the longest prompt with its answer.
        gpus: Of this cluster; the endpoint has its own.
        vocabulary_source: None, harmony's own: windows are cut in the tokens of the real models,
            whatever is served.
    """

    endpoint: str
    name: str
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    logprobs: bool = False
    max_num_seqs: int = 64
    max_model_len: int = 0
    gpus: int = 0
    vocabulary_source: str | None = None

    def identity(self) -> Mapping[str, object]:
        """Not the endpoint: the same model is the same judge wherever it is served."""
        return {
            "api": "responses",
            "model": self.name,
            "revision": self.revision,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kv_cache_dtype": self.kv_cache_dtype,
            "logprobs": self.logprobs,
        }

    def here(self) -> RemoteSpec:
        """Itself: it is the same from every machine."""
        return self

    def preload(self) -> None:
        """Nothing that takes long."""

    async def build(self) -> RemoteEngine:
        """A session; waits for an endpoint that is starting.

        Raises:
            StoppedError: The endpoint does not answer.
            UserError: It refuses the key, or holds shorter prompts than the job's.
        """
        from moderay.engines.remote.client import (  # noqa: PLC0415  late: aiohttp is slow to load
            RemoteEngine,
        )

        engine = RemoteEngine(
            self.endpoint,
            self.name,
            logprobs=self.logprobs,
            max_num_seqs=self.max_num_seqs,
            max_model_len=self.max_model_len,
        )
        deadline = time.monotonic() + START_S
        try:
            while (problem := await engine.problem()) is not None:
                if time.monotonic() > deadline:
                    raise StoppedError(
                        f"the endpoint {self.endpoint} does not answer ({problem}); what was "
                        "judged is saved, and the same command goes on",
                        3,
                    )
                await asyncio.sleep(1)
        except BaseException:  # a cancelled start too
            engine.close()
            raise
        return engine
