"""moderay: batch content moderation on Ray with OpenAI's open-weight safety reasoners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ray.data

    from moderay.pipeline.flow import Outcome

__all__ = ["label", "run"]


def run(
    job: str | Path,
    sets: Sequence[str] = (),
    replace: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
) -> Outcome:
    """Label the corpus of a job file, as `moderay run` does. `sets`: like `--set`. Raises
    `errors.ModerayError`.
    """
    from moderay.pipeline.check import check
    from moderay.pipeline.flow import run as run_checked

    return run_checked(check(job, sets), replace=replace, retry_failed=retry_failed, prune=prune)


def label(
    ds: ray.data.Dataset,
    content: str,
    policies: Sequence[str | Path],
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> ray.data.Dataset:
    """Add verdict columns to a Ray Dataset: `content_hash`, `flagged`, and a struct per policy
    (`verdicts.DECISION`).

    `content`: column or template; `policies`: policy folders; `model` and `settings`: as in a job
    file. Lazy: nothing is judged before the result is consumed. Raises `errors.Problems` for a
    policy or setting that is wrong.
    """
    from moderay.config.job import Job
    from moderay.config.policy import load_policy
    from moderay.tasks.embed import label_dataset

    job = Job.model_validate(
        {
            "input": {"path": "", "content": content},
            "output": {"path": ""},
            "policies": [str(p) for p in policies],
            "model": model or {},
            **settings,
        }
    )
    return label_dataset(ds, job, [load_policy(folder) for folder in policies])
