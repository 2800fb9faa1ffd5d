"""moderay: batch content moderation on Ray with OpenAI's open-weight safety reasoners.

What is offered is loaded when it is used, so that `import moderay` is quick and needs no Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moderay.api import (
        add_golden,
        calibrate,
        check,
        decide,
        diff,
        diff_policy,
        diff_repeats,
        evaluate,
        evaluate_benchmarks,
        evaluate_policies,
        explain,
        export_reviews,
        export_sft,
        filter,
        import_reviews,
        label,
        load_job,
        load_policy,
        output_status,
        plan,
        plan_prevalence,
        prevalence,
        read_labels,
        report,
        run,
        trend,
        verify,
    )
    from moderay.config.job import Job
    from moderay.config.policy import Policy
    from moderay.core.errors import (
        ModerayError,
        Problem,
        Problems,
        StoppedError,
        TryAgainError,
        UserError,
    )
    from moderay.core.verdicts import Status
    from moderay.labels.manifest_record import Manifest

    __version__: str

__all__ = [
    "Job",
    "Manifest",
    "ModerayError",
    "Policy",
    "Problem",
    "Problems",
    "Status",
    "StoppedError",
    "TryAgainError",
    "UserError",
    "__version__",
    "add_golden",
    "calibrate",
    "check",
    "decide",
    "diff",
    "diff_policy",
    "diff_repeats",
    "evaluate",
    "evaluate_benchmarks",
    "evaluate_policies",
    "explain",
    "export_reviews",
    "export_sft",
    "filter",
    "import_reviews",
    "label",
    "load_job",
    "load_policy",
    "output_status",
    "plan",
    "plan_prevalence",
    "prevalence",
    "read_labels",
    "report",
    "run",
    "trend",
    "tune",
    "verify",
    "voided",
]

# Where the names of `__all__` are that `moderay.api` does not hold.
_ELSEWHERE = {
    "Job": "moderay.config.job",
    "Manifest": "moderay.labels.manifest_record",
    "Policy": "moderay.config.policy",
    "Status": "moderay.core.verdicts",
    "ModerayError": "moderay.core.errors",
    "Problem": "moderay.core.errors",
    "Problems": "moderay.core.errors",
    "StoppedError": "moderay.core.errors",
    "TryAgainError": "moderay.core.errors",
    "UserError": "moderay.core.errors",
}

# Not for type checkers: they would take any name for one of moderay's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a name of `__all__` when it is used first."""
        if name == "spark":  # a room of its own, which is loaded when it is used first
            return importlib.import_module("moderay.spark")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "__version__":
            value = importlib.import_module("importlib.metadata").version("moderay")
        else:
            module = importlib.import_module(_ELSEWHERE.get(name, "moderay.api"))
            value = getattr(module, name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def __dir__() -> list[str]:
    """What is offered, loaded or not."""
    return sorted(__all__)
