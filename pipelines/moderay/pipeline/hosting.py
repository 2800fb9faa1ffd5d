"""Whether a job's model can be had, and hosted on this machine, before an engine is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moderay.config.job import SCRIPTED, Job
from moderay.core.errors import Problem
from moderay.engines.from_job import engine_spec
from moderay.engines.model_source import inspect_source
from moderay.engines.vllm.engine import VllmSpec
from moderay.engines.vllm.gpu_profiles import Size, least_memory, model_size
from moderay.engines.vllm.nvml import gpus_here
from moderay.judges.build import fitted
from moderay.judges.cascade import Cascade

_ELSEWHERE = (
    "run it on a cluster that has one (RAY_ADDRESS, or moderay submit), or ask a model that is "
    "served (model.endpoint); model.source: tiny tries the rest without a GPU"
)
_KEY = "model.source"


@dataclass(frozen=True)
class ModelReport:
    """What was seen of a job's model.

    Attributes:
        problems: Why it cannot be the model.
        notes: What a person should know of it.
        elsewhere: Why it cannot be had on this machine, and may on another.
    """

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    elsewhere: tuple[Problem, ...] = ()


def model_report(job: Job) -> ModelReport:
    """Look at a job's model. Raises `TryAgainError` where its store does not answer."""
    source = job.model.source
    if job.model.endpoint is not None or source.startswith(SCRIPTED):
        return ModelReport()
    report = inspect_source(source, job.model.revision)
    if report.problem:
        return ModelReport(problems=(job.problem(_KEY, report.problem, report.hint),))
    if not report.unseen:
        return ModelReport()
    problem = job.problem(_KEY, report.unseen, report.hint)
    # An engine may still reach a hub that did not answer here; offline it does not try.
    if report.offline:
        return ModelReport(elsewhere=(problem,))
    return ModelReport(notes=(str(problem),))


def unhosted(job: Job, cascades: Sequence[Cascade]) -> list[Problem]:
    """Why this machine cannot host the model; empty where it can, or where that is not known."""
    spec = engine_spec(job, gpus=1)
    if not isinstance(spec, VllmSpec) or (size := model_size(spec.source)) is None:
        return []
    gpus = gpus_here()
    if gpus is None:
        return []
    if not gpus:
        return [job.problem(_KEY, f"{needs_gpu(size)}, and this machine has none", _ELSEWHERE)]
    if len(gpus) < spec.gpus:
        message = f"an engine of {spec.gpus} GPUs is asked for, and this machine has {len(gpus)}"
        return [job.problem("model.engine", message, "model.engine.tensor_parallel_size")]
    fitting = fitted(spec, cascades)
    assert isinstance(fitting, VllmSpec)
    refusals = [fitting.on(gpu).refusal() for gpu in gpus]
    if any(refusal is None for refusal in refusals):
        return []
    return [job.problem(_KEY, f"the model does not fit here: {refusals[0]}")]


def needs_gpu(size: Size) -> str:
    """What a published model needs, for a sentence."""
    return f"gpt-oss {size} needs a GPU of {least_memory(size):g} GiB or more"
