"""Make an output's report, and put it where people find it."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moderay.core.errors import UserError, first_line
from moderay.core.events import event
from moderay.core.storage import plain_errors, shown
from moderay.corpus.content import template_columns
from moderay.labels.layout import Layout
from moderay.pipeline.check import Checked
from moderay.pipeline.outcome import Outcome
from moderay.tasks.pages.page import SCRIPTS, render
from moderay.tasks.report import overview
from moderay.tasks.report.known import known_rows
from moderay.tasks.report.policies import PolicySection, policy_section
from moderay.tasks.report.samples import Sample, samples
from moderay.tasks.report.source import ReportSource, read_source

# Among moderay's own files, which readers of the labels pass over.
NAME = "report.html"


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        place: Path or URL of the page.
        size: In bytes.
        samples: Rows that it shows.
    """

    place: str
    size: int
    samples: int


def write_report(
    url: str, storage: Mapping[str, Any], out: Path | None = None, contents: bool = True
) -> Report:
    """Write the report of an output.

    Args:
        url: The output.
        storage: Options of its storage.
        out: The file to write. Default: `report.html` among moderay's own files in the output.
        contents: Whether the chosen rows' contents are shown.

    Raises:
        UserError: There are no labels, or a file cannot be read or written.
        TryAgainError: The storage does not answer.
    """
    return _write(read_source(url, storage), out, contents)


def report_of_run(checked: Checked, outcome: Outcome) -> Report:
    """Write the report of a run that has ended; the markers are not read again.

    Contents are shown where the labels carry them: who keeps them out of the labels does not want
    them beside these.
    """
    job = checked.job
    layout = Layout(job.output.path, job.storage)
    assert outcome.total is not None, "a run that has worked knows what its output adds up to"
    source = ReportSource(layout, outcome.manifest, outcome.total, job.storage)
    return _write(source, None, _carries_content(checked))


def with_report(checked: Checked, outcome: Outcome) -> Outcome:
    """A run's outcome with the place of its report.

    The labels are published by then: whatever goes wrong here is told, and ends nothing.
    """
    try:
        return replace(outcome, report=report_of_run(checked, outcome).place)
    except Exception as error:
        event("report failed", logging.WARNING, error=repr(error))
        return replace(outcome, report_failed=first_line(error))


def _carries_content(checked: Checked) -> bool:
    columns = checked.job.output.columns
    return columns == "all" or set(template_columns(checked.job.input.content)) <= set(columns)


def _write(source: ReportSource, out: Path | None, contents: bool) -> Report:
    layout = source.layout
    chosen = samples(source, contents)
    page = report_page(source, chosen).encode()
    if out is not None:
        if not out.parent.is_dir():
            raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
        out.write_bytes(page)
        return Report(str(out), len(page), len(chosen))
    with plain_errors(layout.url):
        layout.write(layout.private(NAME), page)
    return Report(f"{shown(layout.url).rstrip('/')}/_moderay/{NAME}", len(page), len(chosen))


def report_page(source: ReportSource, chosen: list[Sample]) -> str:
    """The page's text.

    Args:
        source: The output.
        chosen: The rows that it shows.
    """
    manifest, total = source.manifest, source.total
    known = known_rows(source)
    policies = [
        policy_section(name, record, total, known.get(name))
        for name, record in manifest.policies.items()
    ]
    counts = {policy.id: policy.counts for policy in policies}
    nights, by_policy = overview.nights_of(manifest)
    return render(
        "report.html.j2",
        scripts=(*SCRIPTS, "report.js"),
        data={"policies": [policy.slider for policy in policies if policy.slider is not None]},
        manifest=manifest,
        output=shown(source.layout.url),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        total=total,
        facts=overview.run_facts(manifest, shown(source.layout.url)),
        judge_facts=overview.judge_facts,
        policies=policies,
        statuses=_statuses(policies),
        population=_population(source),
        cost=overview.cost(manifest, counts),
        failures=overview.failures(counts),
        nights=nights,
        nights_by_policy=by_policy,
        samples=chosen,
        titles={name: record.label_titles for name, record in manifest.policies.items()},
        filters=_filters(chosen),
    )


def _statuses(policies: list[PolicySection]) -> list[str]:
    """Those that some row has, in order."""
    return list(dict.fromkeys(status for policy in policies for status, _ in policy.statuses))


def _population(source: ReportSource) -> str:
    """What the intervals of shares speak of."""
    selection = source.manifest.selection
    if selection.sample is not None:
        of = "all rows that the job's `where` selects" if selection.where else "the whole input"
        return f"The judged rows are a sample, chosen by hash: the intervals are for {of}."
    return (
        "All selected rows were judged, and of these the shares are exact. The intervals are for a "
        "source of which these rows would be a random draw, such as the same feed on other days."
    )


def _filters(chosen: list[Sample]) -> dict[str, list[str]]:
    """By what the samples are filtered, and the values that occur."""
    rows = [sample.chosen for sample in chosen]
    values: dict[str, list[str | None]] = {
        "policy": [sample.policy for sample in chosen],
        "kind": [kind for sample in chosen for kind in sample.kinds],
        "label": [row.label for row in rows],
        "judge": [row.decided_by for row in rows],
        "status": [row.status for row in rows],
    }
    return {
        name: list(dict.fromkeys(value for value in of if value is not None))
        for name, of in values.items()
    }
