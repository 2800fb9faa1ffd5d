"""`model:` who judges, and how it is asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from moderay.config.paths import ModelSource
from moderay.config.sections.base import Section

Effort = Literal["low", "medium", "high"]


class Sampling(Section):
    """How tokens are drawn; each request is seeded from content hash and judge key."""

    temperature: float = Field(default=1.0, ge=0)
    """Default: 1, as published with gpt-oss-safeguard; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Default: 1, as published."""


class Replicas(Section):
    """How many engines, between two bounds."""

    min: int = Field(default=1, ge=1)
    """Engines the run begins with."""
    max: int = Field(default=1, ge=1)
    """Engines it may grow to."""

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class Model(Section):
    """Who judges."""

    source: ModelSource = "tiny"
    """Hub id, local folder, folder of an object store (fetched once per machine, into
    MODERAY_CACHE, by default ~/.cache/moderay, with the credentials of the environment there),
    `tiny` (embedded, for trying only), or `scripted:FILE` (tests).
    """
    endpoint: str | None = None
    """Instead of a source: base URL of an OpenAI-compatible Responses API, such as
    https://models.example.org/v1. The key comes from OPENAI_API_KEY in the environment.
    """
    name: str | None = None
    """The model as the endpoint calls it. With an endpoint, revision, dtype, quantization and
    kv_cache_dtype are what you state of it: part of the judge key, and checked by nobody.
    """
    concurrency: int = Field(default=64, ge=1)
    """Requests in flight at the endpoint, from each replica."""
    logprobs: bool = False
    """Whether the endpoint gives log-probabilities of its answers: verdicts then have a
    probability, and glance may have a band. Default: no; vLLM's gives none for gpt-oss.
    """
    revision: str | None = None
    """A commit of the hub's repository. Default: the newest one, which the manifest records."""
    effort: Effort = "low"
    """Reasoning effort. Default: low, the cheapest."""
    sampling: Sampling = Sampling()
    """How tokens are drawn."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Default: the checkpoint's own. Part of the judge key, never chosen by the machine."""
    quantization: str | None = None
    """A vLLM method. Default: the checkpoint's own."""
    kv_cache_dtype: str = "auto"
    """Default: the model's. fp8 only where the verdicts have been compared."""
    replicas: Annotated[int, Field(ge=1)] | Replicas | None = None
    """Engines. Default: one for each GPU or tensor-parallel group, one without GPUs."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM engine arguments, passed through; max_num_seqs and max_num_batched_tokens among
    them.
    """

    @field_validator("endpoint")
    @classmethod
    def _plain(cls, endpoint: str | None) -> str | None:
        # The URL is not in the messages: what is wrong with it may be a secret in it.
        url = urlsplit(endpoint or "https://none")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("is the base URL of an API, such as https://models.example.org/v1")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                "takes no user, password, query or fragment: the key belongs into OPENAI_API_KEY "
                "in the environment"
            )
        return endpoint

    @model_validator(mode="after")
    def _one_model(self) -> Model:
        written = self.model_fields_set
        if self.endpoint is None:
            if only := written & {"name", "concurrency", "logprobs"}:
                raise ValueError(
                    f"{', '.join(sorted(only))} without endpoint: it is said of a model that is "
                    "served there"
                )
        elif both := written & {"source", "engine"}:
            raise ValueError(
                f"{', '.join(sorted(both))} beside endpoint: leave one out; what an endpoint "
                "serves is loaded and set up there"
            )
        elif not self.name:
            raise ValueError("endpoint without name: which of its models is to judge")
        return self
