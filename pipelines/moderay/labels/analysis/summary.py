"""A night in a few lines, for a pager, and the same for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moderay.config.job import Job
from moderay.core.storage import shown
from moderay.core.wording import alarm_line, counted, selected, titled
from moderay.labels.analysis.trend import Night, nights
from moderay.labels.counts import PolicyCounts
from moderay.labels.manifest_record import Manifest, PolicyRecord


def brief(job: Job, manifest: Manifest, worked: bool) -> dict[str, Any]:
    """The night of the manifest's last run, all runs of its date together.

    Args:
        job: whose night it is.
        manifest: as the run left it.
        worked: whether there was anything to do.

    Returns:
        For JSON. `empty`: whether the input has no rows; `new`: shards published for the first time
        and `changed` ones, with the rows judged in them; `published`: what the output holds, `rows`
        of the `input_rows` that were read for it; `policies`: of the new rows; `judged`: rows that
        this run had judged; `requests` and `tokens`: of the night; `gone`, `unreadable` and
        `failed`: shards.
    """
    run = manifest.last_run
    date = run.date or ""
    night = next(
        (night for night in nights(manifest.runs) if night.date == date),
        Night(date, 0, 0, 0, 0, {}),
    )
    return {
        "job": manifest.name,
        "date": night.date,
        "output": shown(job.output.path),
        "complete": manifest.complete,
        "worked": worked,
        "empty": manifest.complete and not manifest.rows,
        "new": {
            "shards": night.shards,
            "changed": night.changed,
            "rows": night.rows,
            "flagged": night.flagged,
        },
        "published": {
            "shards": manifest.shards,
            "rows": manifest.rows,
            "input_rows": manifest.input_rows,
        },
        "judged": run.judged if worked else 0,
        "seconds": run.seconds if worked else 0.0,
        "requests": night.requests,
        "tokens": night.tokens,
        "policies": {
            name: _counts(counts, manifest.policies.get(name))
            for name, counts in night.policies.items()
        },
        "gone": list(manifest.gone),
        "unreadable": manifest.unreadable,
        "failed": manifest.failed,
        "alarms": list(manifest.alarms),
    }


def lines(night: Mapping[str, Any]) -> list[str]:
    """For a pager: alarms first, and nothing that is as it should be but the counts."""
    new = night["new"]
    shards = f"shards: {new['shards']:,} new, {new['changed']:,} changed"
    head = f"{night['job']} {night['date']}: {counted(new['rows'], 'new row')}; {shards}"
    published = night["published"]
    if published["rows"] != published["input_rows"]:
        head += f"; in all {selected(published['rows'], published['input_rows'])}"
    policies = [_policy(name, counts) for name, counts in night["policies"].items()]
    wrong = [
        f"shards {kind}: {len(night[kind]):,}, such as {_first(night[kind])}"
        for kind in ("unreadable", "failed", "gone")
        if night[kind]
    ]
    if night["empty"]:
        head += "; the input is empty"
    elif not night["worked"]:
        head += "; nothing to do now"
    return [
        *map(alarm_line, night["alarms"]),
        head,
        *policies,
        *wrong,
    ]


def _first(shards: Mapping[str, str] | Sequence[str]) -> str:
    """A shard, and the reason where there is one."""
    name = next(iter(shards))
    return f"{name}: {shards[name]}" if isinstance(shards, Mapping) else name


def _counts(counts: PolicyCounts, policy: PolicyRecord | None) -> dict[str, Any]:
    titles = policy.label_titles if policy is not None else {}
    return {
        "judged": counts.ok,
        "flagged": counts.flagged,
        "failed": counts.failed,
        "forced": counts.forced,
        "labels": {
            label: {"title": titles.get(label), "rows": rows}
            for label, rows in sorted(counts.labels.items())
        },
    }


def _policy(name: str, counts: Mapping[str, Any]) -> str:
    share = f" ({counts['flagged'] / counts['judged']:.2%})" if counts["judged"] else ""
    labels = ", ".join(
        f"{titled(label, about['title'])} {about['rows']:,}"
        for label, about in counts["labels"].items()
    )
    return (
        f"{name}: {counts['flagged']:,} flagged of {counts['judged']:,}{share}, "
        f"{counts['failed']:,} failed, {counts['forced']:,} forced"
        + (f"; {labels}" if labels else "")
    )
