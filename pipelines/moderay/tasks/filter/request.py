"""What a filter is asked for, the labels it is asked of, and everything wrong with that before
anything is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast, get_args

from moderay.config.job import Job, Unselected
from moderay.config.policy import Label, Policy
from moderay.core.errors import Problem, Problems, UserError, nearest
from moderay.core.storage import canonical_url, filesystem, plain_errors, shown
from moderay.core.verdicts import FLAGGED
from moderay.corpus.formats import format_of, input_file
from moderay.labels.layout import Layout, list_state, read_manifest, read_markers
from moderay.labels.manifest_record import Manifest, PolicyRecord
from moderay.labels.records import ShardMarker
from moderay.pipeline.check import Checked
from moderay.tasks.filter.rule import FATES, TOLD, Fate, rule_problems
from moderay.tasks.filter.shard import Rule, changed

# Problems of one kind that are named.
NAMED = 5
_UNSAID = (
    "rows of the input are not selected for judging",
    "say what becomes of them: --unselected keep, remove or hold",
)
_FATE: Mapping[str, Fate] = dict(zip(get_args(Unselected), FATES, strict=True))


@dataclass(frozen=True)
class Wanted:
    """What a person asks for. `keep`: the rule; `thresholds`: by policy, where not those of the
    labels; `unselected`: keep, remove or hold what was not to be judged.
    """

    keep: str
    out: str
    thresholds: Mapping[str, float]
    unselected: Unselected | None = None
    verdicts: bool = False


@dataclass(frozen=True)
class Labels:
    """A finished output. `markers`: of its shards, by input file; `marker_names`: their (key,
    decision), by input file.
    """

    layout: Layout
    manifest: Manifest
    markers: Mapping[str, ShardMarker]
    marker_names: Mapping[str, tuple[str, str]]
    policies: tuple[Policy, ...]

    @property
    def missing(self) -> dict[str, str]:
        """Shards that have no labels, and why."""
        return {**self.manifest.unreadable, **self.manifest.failed}


def wanted(
    job: Job | None,
    keep: str | None,
    out: str | None,
    thresholds: Sequence[str],
    unselected: str | None,
    verdicts: bool,
) -> Wanted:
    """What the command line asks for, over what the job's `filter:` does. Raises `UserError`."""
    said = job.filter if job is not None else None
    keep, out = keep or (said.keep if said else None), out or (said.out if said else None)
    if keep is None or out is None:
        raise UserError(
            f"filter needs {'--keep RULE' if keep is None else '--out DIR'}, or a filter: in the "
            "job with keep and out"
        )
    if unselected is not None and unselected not in _FATE:
        raise UserError(f"--unselected {unselected!r}: valid are {', '.join(_FATE)}")
    found = dict(said.thresholds) if said else {}
    for text in thresholds:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"--threshold {text!r}: give POLICY=NUMBER, such as spam=0.7") from None
    fate = cast("Unselected | None", unselected) or (said.unselected if said else None)
    return Wanted(keep, out, found, fate, verdicts or bool(said and said.verdicts))


def check_job(asked: Wanted, found: Checked) -> None:
    """Everything that can be said before the job's rows are labelled. Raises `Problems`."""
    job, screened = (
        found.job,
        {cascade.policy.id for cascade in found.cascades if "screen" in cascade.keys},
    )
    sources = {shard.file: shard.url for shard in found.scan.shards}
    problems = [*_problems(asked, found.policies, screened, job.output.path, sources, job.storage)]
    if (job.input.where or job.input.sample) and asked.unselected is None:
        problems.append(Problem("unselected", None, *_UNSAID))
    if problems:
        raise Problems(problems)


def read_labels(url: str, storage: Mapping[str, Any]) -> Labels:
    """An output's labels. Raises `UserError` where there are none, or where their run has not
    ended.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest.json"
            )
        if (status := manifest.last_run.status) != "finished":
            raise UserError(
                f"the labels in {shown(url)} are not finished (the last run: {status}): run "
                "their job to its end first"
            )
        found = {name: markers[-1] for name, markers in sorted(list_state(layout).markers.items())}
        paths = [layout.marker(name, *marker) for name, marker in found.items()]
        markers = {
            input_file(marker.shard, marker.source): marker
            for marker in read_markers(layout, paths)
        }
    policies = tuple(_policy(name, policy) for name, policy in manifest.policies.items())
    return Labels(
        layout,
        manifest,
        markers,
        {name: found[marker.shard] for name, marker in markers.items()},
        policies,
    )


def _policy(name: str, record: PolicyRecord) -> Policy:
    """A policy as a manifest has it: what of it decides."""
    judge = record.cascade[-1]
    violating = dict(judge.labels or {})
    return Policy.model_validate(
        {
            "id": name,
            "title": record.title,
            "version": record.version,
            "labels": {label: Label(violates=value) for label, value in violating.items()},
            "answer": judge.answer,
            "threshold": record.threshold,
            "text": judge.policy,
        }
    )


def checked(labels: Labels, asked: Wanted, storage: Mapping[str, Any]) -> Rule:
    """The rule that is asked for, on these labels. Raises `Problems`."""
    screened = {
        name
        for name, policy in labels.manifest.policies.items()
        if "screen" in [judge.judge for judge in policy.cascade]
    }
    lost = _source_problems(labels, storage)
    sources = {name: marker.source for name, marker in labels.markers.items()}
    problems = [
        *_problems(
            asked, labels.policies, screened, labels.layout.url, sources, storage, look=not lost
        ),
        *lost,
    ]
    selected = all(marker.rows == marker.input_rows for marker in labels.markers.values())
    if not selected and asked.unselected is None:
        rows = sum(marker.input_rows - marker.rows for marker in labels.markers.values())
        problems.append(Problem("unselected", None, f"{rows:,} {_UNSAID[0]}", _UNSAID[1]))
    if problems:
        raise Problems(problems)
    policies = tuple(
        policy.model_copy(update={"threshold": asked.thresholds.get(policy.id, policy.threshold)})
        for policy in labels.policies
    )
    fate = None if selected or asked.unselected is None else _FATE[asked.unselected]
    return Rule(asked.keep, policies, fate, asked.verdicts)


def _problems(
    asked: Wanted,
    policies: Sequence[Policy],
    screened: Collection[str],
    labels: str,
    sources: Mapping[str, str],
    storage: Mapping[str, Any],
    look: bool = True,
) -> Iterator[Problem]:
    """What is wrong whether or not the rows are labelled yet. `screened`: policies with a screen;
    `labels`: where they lie or will; `sources`: URLs by shard, of which the first is looked into,
    unless not `look`.
    """
    ids = [policy.id for policy in policies]
    for wrong in rule_problems(asked.keep, ids):
        yield Problem("keep", None, *wrong)
    yield from _threshold_problems(asked.thresholds, policies, screened)
    yield from _place_problems(asked.out, labels, sources, storage)
    if look and sources:
        yield from _name_problems(next(iter(sources.values())), asked, ids, storage)


def _threshold_problems(
    thresholds: Mapping[str, float], policies: Sequence[Policy], screened: Collection[str]
) -> Iterator[Problem]:
    before = {policy.id: policy.threshold for policy in policies}
    for name, threshold in thresholds.items():
        key = f"threshold {name}={threshold:g}"
        if name not in before:
            yield Problem(key, None, f"no policy {name!r}", nearest(name, before))
        elif not 0 < threshold <= 1:
            yield Problem(key, None, "a threshold is above 0 and at most 1")
        elif threshold < before[name] and name in screened:
            yield Problem(
                key,
                None,
                (
                    f"a screen settled rows of {name} for a threshold of {before[name]:g}, and "
                    "promises nothing for a lower one"
                ),
                "set it in the policy and run the job: it judges these rows again",
            )


def _place_problems(
    out: str, labels: str, sources: Mapping[str, str], storage: Mapping[str, Any]
) -> Iterator[Problem]:
    here = canonical_url(out, storage)
    roots = {url.removesuffix(name).rstrip("/") for name, url in sources.items()}
    for what, url in [("labels", labels), *[("input", root) for root in sorted(roots)]]:
        if here.startswith(canonical_url(url, storage)):
            yield Problem(
                "out",
                None,
                f"{shown(out)} lies inside the {what} {shown(url)}",
                "write it elsewhere",
            )


def _name_problems(
    source: str, asked: Wanted, policies: Sequence[str], storage: Mapping[str, Any]
) -> Iterator[Problem]:
    """Columns of a shard with the name of one that is added."""
    with plain_errors(source):
        names = format_of(source).names(*filesystem(source, storage))
    if TOLD.name in names:
        yield Problem(
            source,
            None,
            f"a column {TOLD.name!r}, the name of the one that says why rows were removed or held",
            "rename it in the input",
        )
    if asked.verdicts and (both := {FLAGGED.name, *policies} & set(names)):
        yield Problem(
            "verdicts",
            None,
            f"the input has columns of these names: {', '.join(sorted(both))}",
            "leave --verdicts out",
        )


def _source_problems(labels: Labels, storage: Mapping[str, Any]) -> list[Problem]:
    """Shards whose source is gone or another version."""
    with ThreadPoolExecutor(16) as pool:
        found = [
            wrong
            for wrong in pool.map(lambda marker: changed(marker, storage), labels.markers.values())
            if wrong
        ]
    hint = "run the job again: it judges what changed; --prune removes the labels of what is gone"
    problems = [Problem(labels.layout.url, None, wrong, hint) for wrong in found[:NAMED]]
    return [
        *problems,
        *(
            [Problem(labels.layout.url, None, f"{len(found) - NAMED:,} more like these", hint)]
            if len(found) > NAMED
            else []
        ),
    ]
