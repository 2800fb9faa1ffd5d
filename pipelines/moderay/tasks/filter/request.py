"""What a filter is to do, the labels it is of, and everything wrong before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import pyarrow as pa

from moderay.config.job import Job, Unselected
from moderay.config.policy import Policy
from moderay.core.decision_rule import DecisionRule, thresholds_of, under_thresholds
from moderay.core.errors import Problem, Problems, UserError, first_line
from moderay.core.hashing import digest
from moderay.core.storage import canonical_url, listed_file, plain_errors, shown
from moderay.core.verdicts import FLAGGED, label_fields
from moderay.corpus.formats import BoundedFile, UnreadableError, format_of, input_file, suffix
from moderay.corpus.scan import Scan
from moderay.corpus.shard import Shard
from moderay.corpus.tables.location import parse
from moderay.judges.cascade import Cascade
from moderay.labels.layout import Layout, list_state, read_markers
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import read_manifest
from moderay.labels.records import ShardMarker
from moderay.pipeline.check import Checked
from moderay.tasks.filter.earlier import other_rule
from moderay.tasks.filter.kept_table import folder_of
from moderay.tasks.filter.records import FATES, Fate, RuleRecord
from moderay.tasks.filter.rule import WHY, rule_problems
from moderay.tasks.filter.shard import FilterRule, changed

# Problems of one kind that are named.
NAMED = 5
_UNDECIDED = (
    "rows of the input are not selected for judging",
    "say what becomes of them: --unselected keep, remove or hold",
)
_FATE: Mapping[str, Fate] = dict(zip(get_args(Unselected), FATES, strict=True))


@dataclass(frozen=True)
class FilterRequest:
    """What a person asks for.

    Attributes:
        keep: The rule.
        out: URL of the folder to write.
        thresholds: By policy, where not those of the labels.
        unselected: keep, remove or hold what was not to be judged; None where it is not said.
        verdicts: Whether kept rows have the verdict columns too.
        replace: Whether it may be another rule than the one that the folder was filtered by.
        in_place: Whether the input, a Delta table, loses what is not kept.
    """

    keep: str
    out: str
    thresholds: Mapping[str, float]
    unselected: Unselected | None = None
    verdicts: bool = False
    replace: bool = False
    in_place: bool = False

    @property
    def folder(self) -> str:
        """URL of the folder with its card, and what it removed and held."""
        return folder_of(self.out)


@dataclass(frozen=True)
class Labels:
    """A finished output.

    Attributes:
        layout: Where it lies.
        manifest: What it says of itself.
        markers: Of its shards, by input file.
        keys: Of what their verdicts are, by input file.
        rules: How the verdicts of each policy were decided.
        lost: Shards whose label files are not those that were published, and what to do.
        shards: The input files, by their names, where the job is known.
        roots: Canonical URLs below which files are input, or may be the next time.
        table: URL of the folder of the Delta table that is the input; None where none is.
        table_version: Which version of it was labelled.
        is_pinned: Whether that is the version that the job names.
    """

    layout: Layout
    manifest: Manifest
    markers: Mapping[str, ShardMarker]
    keys: Mapping[str, str]
    rules: tuple[DecisionRule, ...]
    lost: Mapping[str, str]
    shards: Mapping[str, Shard] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    table: str | None = None
    table_version: int | None = None
    is_pinned: bool = False

    @property
    def missing(self) -> dict[str, str]:
        """Shards that have no labels, and why."""
        return {**self.manifest.unreadable, **self.manifest.failed, **self.lost}

    @property
    def unselected(self) -> int:
        """Rows of the input that were not selected for judging."""
        return sum(marker.input_rows - marker.rows for marker in self.markers.values())


def filter_request(  # noqa: PLR0913, PLR0917  # a command's options
    job: Job | None,
    keep: str | None,
    out: str | None,
    thresholds: Sequence[str],
    unselected: str | None,
    verdicts: bool,
    replace: bool = False,
    in_place: bool = False,
) -> FilterRequest:
    """What the command line asks for, over what the job's `filter:` does.

    Raises:
        UserError: Something is missing, or of no form that is known.
    """
    section = job.filter if job is not None else None
    keep = keep or (section.keep if section else None)
    out = out or (section.out if section else None)
    if keep is None or out is None:
        raise UserError(
            f"filter needs {'--keep RULE' if keep is None else '--out DIR'}, or a filter: in the "
            "job with keep and out"
        )
    if unselected is not None and unselected not in _FATE:
        raise UserError(f"--unselected {unselected!r}: valid are {', '.join(_FATE)}")
    return FilterRequest(
        keep=keep,
        out=out,
        thresholds=(dict(section.thresholds) if section else {}) | thresholds_of(thresholds),
        unselected=cast("Unselected | None", unselected)
        or (section.unselected if section else None),
        verdicts=verdicts or bool(section and section.verdicts),
        replace=replace,
        in_place=in_place,
    )


def check_job(request: FilterRequest, checked: Checked) -> None:
    """Everything that can be said before the job's rows are labelled.

    Raises:
        Problems: All that is wrong.
    """
    job = checked.job
    problems = _of_job(request, job, checked.policies, checked.cascades, checked.scan)
    if (job.input.where or job.input.sample) and request.unselected is None:
        problems.append(Problem("unselected", None, *_UNDECIDED))
    if problems:
        raise Problems(problems)


def section_problems(
    job: Job, policies: Sequence[Policy], cascades: Sequence[Cascade], input_: Scan
) -> Iterator[Problem]:
    """What is wrong with a job's `filter:`, at its lines.

    What becomes of rows that are not selected, and whether another rule's output is replaced, may
    still be said on the command line.
    """
    section = job.filter
    if section is None:
        return
    request = FilterRequest(
        keep=section.keep,
        out=section.out,
        thresholds=section.thresholds,
        unselected=section.unselected,
        verdicts=section.verdicts,
        replace=True,
    )
    for problem in _of_job(request, job, policies, cascades, input_):
        # Such as `keep`, or `threshold spam=0.3`.
        name = problem.file.partition(" ")[0].replace("threshold", "thresholds")
        if name in type(section).model_fields:
            yield job.problem(f"filter.{name}", problem.message, problem.hint)
        else:
            yield problem


def _of_job(
    request: FilterRequest,
    job: Job,
    policies: Sequence[Policy],
    cascades: Sequence[Cascade],
    input_: Scan,
) -> list[Problem]:
    """What is wrong with a filter of a job's rows, whether or not they are labelled yet."""
    rules = [policy.rule for policy in policies]
    screened = {cascade.policy.id for cascade in cascades if "screen" in cascade.keys}
    sources = {shard.file: shard.url for shard in input_.shards}
    shards = {shard.file: shard for shard in input_.shards}
    return [
        *_rule_problems(request, rules, input_.columns),
        *_out_problems(request.folder, job.output.path, input_.roots, sources, job.storage),
        *_problems(request, rules, screened, sources, job.storage, shards),
    ]


def read_labels(
    url: str, storage: Mapping[str, Any], input_: Scan | None = None, job: Job | None = None
) -> Labels:
    """An output's labels.

    Args:
        url: Of the output.
        storage: Options of its file system and the input's.
        input_: Where the job is known.
        job: Whose labels they are, where that is known.

    Raises:
        UserError: There are none, or their run has not ended.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
            )
        if (status := manifest.status) != "finished":
            raise UserError(
                f"the labels in {shown(url)} are not finished (the last run: {status}): run "
                "their job to its end first"
            )
        state = list_state(layout)
        names = {
            shard: state.published(shard) or state.markers[shard][0] for shard in state.markers
        }
        paths = [layout.marker(shard, name) for shard, name in sorted(names.items())]
        read = {
            input_file(marker.shard, marker.source): marker
            for marker in read_markers(layout, paths)
        }
    shards = {shard.file: shard for shard in (input_.shards if input_ else ())}
    if manifest.last_run.tables:
        read = _of_table(read, manifest, shards if input_ else None)
    markers = {file: marker for file, marker in read.items() if state.published(marker.shard)}
    return Labels(
        layout,
        manifest,
        markers,
        {file: digest(names[marker.shard][:2]) for file, marker in markers.items()},
        tuple(policy.rule(name) for name, policy in manifest.policies.items()),
        dict.fromkeys(
            read.keys() - markers.keys(),
            "its label file is not the one that was published; run its job again",
        ),
        shards,
        input_.roots if input_ else _folders(markers, storage),
        _delta_folder(job),
        input_.tables[0].version if input_ and input_.tables else None,
        job is not None and job.input.version is not None,
    )


def _of_table(
    read: Mapping[str, ShardMarker], manifest: Manifest, shards: Mapping[str, Shard] | None
) -> dict[str, ShardMarker]:
    """The markers of files that a table still has: what it has not any more may lie there yet.

    Raises:
        UserError: Nobody says which these are.
    """
    if shards is None and manifest.gone:
        raise UserError(
            f"{len(manifest.gone):,} of these label files are of files that the table no longer "
            "has: filter by the job file, or run the job with --prune first"
        )
    return {file: read[file] for file in read if shards is None or file in shards}


def _delta_folder(job: Job | None) -> str | None:
    """Of the one Delta table that is a job's input; None where it is anything else."""
    if job is None or len(job.input.paths) != 1:
        return None
    table = parse(job.input.paths[0])
    return table.url if table is not None and table.kind == "delta" else None


def _folders(markers: Mapping[str, ShardMarker], storage: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the job is not known, any folder that its input lies in may be what it names."""
    folders = {marker.source.removesuffix(name).rstrip("/") for name, marker in markers.items()}
    return tuple(sorted(canonical_url(folder, storage) for folder in folders))


def filter_rule(labels: Labels, request: FilterRequest, storage: Mapping[str, Any]) -> FilterRule:
    """The rule that is asked for, on these labels.

    Raises:
        Problems: All that is wrong.
    """
    screened = {
        name
        for name, policy in labels.manifest.policies.items()
        if "screen" in [judge.judge for judge in policy.cascade]
    }
    lost = _source_problems(labels, storage)
    sources = {name: marker.source for name, marker in labels.markers.items()}
    # A source that is gone cannot be looked into.
    url, look = labels.layout.url, not lost
    problems = [
        *_rule_problems(request, labels.rules, _carried(labels)),
        *_out_problems(request.folder, url, labels.roots, sources, storage),
        *_problems(request, labels.rules, screened, sources, storage, labels.shards, look),
        *lost,
    ]
    if labels.unselected and request.unselected is None:
        what, hint = _UNDECIDED
        problems.append(Problem("unselected", None, f"{labels.unselected:,} {what}", hint))
    if request.verdicts and any(marker.whole for marker in labels.markers.values()):
        message = "a text file that is a row has no place for verdicts"
        problems.append(
            Problem("verdicts", None, message, "leave --verdicts out: labels have them")
        )
    if problems:
        raise Problems(problems)
    decided = labels.unselected and request.unselected
    decisions, _ = under_thresholds(labels.rules, request.thresholds)
    return FilterRule(
        request.keep, decisions, _FATE[decided] if decided else None, request.verdicts
    )


def _problems(  # noqa: PLR0913, PLR0917  # both of labels that are there and of a job's
    request: FilterRequest,
    rules: Sequence[DecisionRule],
    screened: Collection[str],
    sources: Mapping[str, str],
    storage: Mapping[str, Any],
    shards: Mapping[str, Shard],
    look: bool = True,
) -> Iterator[Problem]:
    """What is wrong whether or not the rows are labelled yet.

    Args:
        request: What is asked for.
        rules: Of the policies.
        screened: Policies of which a screen settles rows.
        sources: URLs by shard.
        storage: Options of their file system.
        shards: The input files, where the job is known.
        look: Whether the first of the sources is looked into.
    """
    ids = [rule.policy for rule in rules]
    decided, in_thresholds = under_thresholds(rules, request.thresholds, screened)
    yield from in_thresholds
    if not request.replace:
        thresholds = {rule.policy: rule.threshold for rule in decided}
        asked = _FATE[request.unselected] if request.unselected else None
        rule = RuleRecord(
            keep=request.keep, thresholds=thresholds, unselected=asked, verdicts=request.verdicts
        )
        in_place = request.in_place if parse(request.out) is None else None
        yield from other_rule(rule, Layout(request.folder, storage), in_place)
    if look and sources:
        yield from _table_problems(request, sources.values())
        name, url = next(iter(sources.items()))
        yield from _name_problems(url, shards.get(name), request, ids, storage)


def _table_problems(request: FilterRequest, sources: Iterable[str]) -> Iterator[Problem]:
    """Files that a table cannot be made of."""
    if request.in_place or parse(request.out) is None:
        return
    if other := sorted(url for url in sources if suffix(url) not in ("", ".parquet")):
        message = f"a Delta table is made of Parquet files, and the input has {other[0]}"
        yield Problem("out", None, message, "filter into a folder")


def _rule_problems(
    request: FilterRequest, rules: Sequence[DecisionRule], carried: Iterable[pa.Field]
) -> Iterator[Problem]:
    for problem in rule_problems(request.keep, rules, carried):
        yield Problem("keep", None, *problem)


def _carried(labels: Labels) -> list[pa.Field]:
    """The input's columns in the label files; of one output all have the same.

    Raises:
        UserError: The first of them cannot be read.
    """
    first = next(iter(labels.markers.values()), None)
    if first is None:
        return []
    own = {field.name for field in label_fields(labels.rules)}
    path = labels.layout.label(first.shard)
    try:
        with plain_errors(path), BoundedFile(labels.layout.fs, path) as file:
            return [field for field in file.schema_arrow if field.name not in own]
    except UnreadableError as error:
        raise UserError(f"{shown(path)} cannot be read: {first_line(error)}") from error


def _out_problems(
    out: str,
    labels: str,
    roots: Iterable[str],
    sources: Mapping[str, str],
    storage: Mapping[str, Any],
) -> Iterator[Problem]:
    """Filtered rows must neither become input of the next run nor replace the input."""
    here = canonical_url(out, storage)
    holders = [("labels", canonical_url(labels, storage)), *[("input", root) for root in roots]]
    for what, holder in holders:
        if here.startswith(holder):
            protocol, _, path = holder.rstrip("/").partition(":")
            place = path if protocol == "file" else shown(f"{protocol}://{path}")
            message = f"{shown(out)} lies inside the {what} {place}"
            yield Problem("out", None, message, "write it elsewhere")
    for name, url in sources.items():
        for fate in FATES:
            if not url.endswith(f"/{fate}/{name}"):
                continue
            if canonical_url(f"{out}/{fate}/{name}", storage) == canonical_url(url, storage):
                message = f"{shown(out)} holds the input {shown(url)}, which would be replaced"
                yield Problem("out", None, message, "write it elsewhere")


def _name_problems(
    source: str,
    shard: Shard | None,
    request: FilterRequest,
    policies: Sequence[str],
    storage: Mapping[str, Any],
) -> Iterator[Problem]:
    """Columns of a shard with the name of one that is added."""
    if shard is not None and shard.schema is not None:
        names = list(shard.schema.names)
    else:
        fs, path = listed_file(source, storage) if shard is None else shard.located(storage)
        with plain_errors(source):
            names = format_of(source).names(fs, path)
    if WHY.name in names:
        message = (
            f"a column {WHY.name!r}, the name of the one that says why rows were removed or held"
        )
        yield Problem(source, None, message, "rename it in the input")
    if request.verdicts and (both := {FLAGGED.name, *policies} & set(names)):
        message = f"the input has columns of these names: {', '.join(sorted(both))}"
        yield Problem("verdicts", None, message, "leave --verdicts out")


def _source_problems(labels: Labels, storage: Mapping[str, Any]) -> list[Problem]:
    """Shards whose source is gone or another version."""
    with ThreadPoolExecutor(16) as pool:
        changes = pool.map(
            lambda file: changed(labels.markers[file], labels.shards.get(file), storage),
            labels.markers,
        )
        messages = [message for message in changes if message]
    if len(messages) > NAMED:
        messages = [*messages[:NAMED], f"{len(messages) - NAMED:,} more like these"]
    hint = "run the job again: it judges what changed; --prune removes the labels of what is gone"
    return [Problem(labels.layout.url, None, message, hint) for message in messages]
