"""Plans and estimates of prevalence: where they lie in an output, and how they are read.

A plan is `_moderay/prevalence/<plan>.json`, and an estimate `<plan>-<hash of what it says>.json`
beside it. Neither is ever overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from moderay.core.errors import UserError
from moderay.core.hashing import digest
from moderay.core.storage import files_below, get
from moderay.labels.layout import Layout, read_files
from moderay.labels.prevalence_records import PrevalenceEstimate, PrevalencePlan

FOLDER = "prevalence"
_PLAN = re.compile(r"([0-9a-f]{16})\.json")
_ESTIMATE = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.json")
# What two estimates of the same answers differ in.
_TIMES = {"created"}


def add_plan(layout: Layout, plan: PrevalencePlan) -> bool:
    """Keep a plan; whether it was not there before."""
    return layout.create(_path(layout, f"{plan.id}.json"), plan.to_json())


def has_plan(layout: Layout, plan: str) -> bool:
    """Whether there is a plan of this id."""
    return f"{plan}.json" in _names(layout, _PLAN)


def read_plan(layout: Layout, plan: str) -> PrevalencePlan:
    """A plan.

    Raises:
        UserError: there is none of this id.
        RecordRefusedError: it is damaged, or of another version.
    """
    path = _path(layout, f"{plan}.json")
    if not has_plan(layout, plan):
        raise UserError(f"{path}: there is no such plan; `moderay prevalence --plan` makes one")
    return PrevalencePlan.from_json(get(layout.fs, path), path)


def read_plans(layout: Layout) -> list[PrevalencePlan]:
    """All plans, the newest last.

    Raises:
        RecordRefusedError: one is damaged, or of another version.
    """
    paths = [_path(layout, name) for name in _names(layout, _PLAN)]
    plans = [PrevalencePlan.from_json(data, path) for path, data in read_files(layout, paths)]
    return sorted(plans, key=lambda plan: (plan.created, plan.id))


def add_estimate(layout: Layout, estimate: PrevalenceEstimate) -> None:
    """Keep an estimate, unless one that says the same is there."""
    said = digest(estimate.model_dump(mode="json", exclude=_TIMES))
    layout.create(_path(layout, f"{estimate.plan}-{said}.json"), estimate.to_json())


def read_estimates(layout: Layout) -> list[PrevalenceEstimate]:
    """The last estimate of each plan, in the order of the plans' times.

    Raises:
        RecordRefusedError: one is damaged, or of another version.
    """
    paths = [_path(layout, name) for name in _names(layout, _ESTIMATE)]
    found = [PrevalenceEstimate.from_json(data, path) for path, data in read_files(layout, paths)]
    last = {each.plan: each for each in sorted(found, key=lambda each: each.created)}
    return sorted(last.values(), key=lambda each: (each.planned, each.plan))


def latest_estimates(layout: Layout) -> dict[str, PrevalenceEstimate]:
    """By policy, the last estimate of the plan that was made last, of those with a figure.

    Raises:
        RecordRefusedError: one is damaged, or of another version.
    """
    return {each.policy: each for each in read_estimates(layout) if each.corpus is not None}


def _names(layout: Layout, pattern: re.Pattern[str]) -> Sequence[str]:
    below = files_below(layout.fs, layout.private(FOLDER))
    return sorted(file.name for file in below if pattern.fullmatch(file.name))


def _path(layout: Layout, name: str) -> str:
    return layout.private(f"{FOLDER}/{name}")
