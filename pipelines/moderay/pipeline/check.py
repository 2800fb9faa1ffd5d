"""Everything that can be known before a cluster is touched: the job, its policies, its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moderay.config.job import Job
from moderay.config.job_file import Draft, draft_job
from moderay.config.policy import Policy
from moderay.core.errors import Problem, Problems, TryAgainError, UserError
from moderay.core.storage import assert_writable, canonical_url, plain_errors
from moderay.corpus.content import template_columns
from moderay.corpus.scan import Scan, scan
from moderay.corpus.shard import Footers
from moderay.engines.from_job import engine_spec
from moderay.judges.build import cascades, fitted
from moderay.judges.cascade import Cascade
from moderay.judges.rules import Rules
from moderay.judges.rules_file import check_rules
from moderay.labels.earlier_outputs import EarlierOutput, earlier_outputs
from moderay.labels.footer_cache import read_footers
from moderay.labels.layout import PRIVATE, Layout
from moderay.labels.manifest_store import read_manifest
from moderay.pipeline.gate import GatedPolicy, gated_policies
from moderay.pipeline.hosting import model_report, unhosted


@dataclass(frozen=True)
class Checked:
    """A job that can run: nothing of it is wrong as far as can be known from here.

    Attributes:
        job: The job.
        policies: In the job's order.
        cascades: One for each policy.
        scan: The input.
        reused: The outputs that `reuse:` names.
        gated: The policies that `gate:` holds floors for, and their golden sets.
        notes: What a person should know of it, a sentence each.
        elsewhere: Why it cannot run on this machine, and may on another.
    """

    job: Job
    policies: tuple[Policy, ...]
    cascades: tuple[Cascade, ...]
    scan: Scan
    reused: tuple[EarlierOutput, ...]
    gated: tuple[GatedPolicy, ...] = ()
    notes: tuple[str, ...] = ()
    elsewhere: tuple[Problem, ...] = ()

    def assert_hosted_here(self) -> None:
        """Assert that this machine can host the model. Raises `Problems`."""
        if self.elsewhere:
            raise Problems(self.elsewhere)


# What else is wrong with a job, as far as somebody above this room knows: of its `filter:`.
Further = Callable[[Job, Sequence[Policy], Sequence[Cascade], Scan], Iterable[Problem]]


def _nothing(*_: object) -> Iterable[Problem]:
    return ()


def check(
    file: str | Path, sets: Sequence[str] = (), further: Further = _nothing, writes: bool = True
) -> Checked:
    """Read and check a job file, its policies and its input.

    Args:
        file: The job file.
        sets: `key=value`, which count before what the file says.
        further: What else is looked at.
        writes: Whether the output is to be written.

    Raises:
        Problems: With everything that is wrong.
        UserError: The storage refuses.
        TryAgainError: The storage does not answer.
    """
    draft = draft_job(file, sets)
    if draft.job is not None and not draft.problems:
        return check_job(draft.job, draft.policies, further, writes)
    raise Problems([*draft.problems, *_further_problems(draft, further)])


def _further_problems(draft: Draft, further: Further) -> list[Problem]:
    """What else is wrong with a job that cannot run anyway.

    A store that does not answer now is asked next time.
    """
    if draft.job is None:
        return []
    job = draft.job
    judges: tuple[Cascade, ...] = ()
    problems: list[Problem] = []
    try:
        if "model" not in draft.wrong:
            problems += model_report(job).problems
        if not problems and not draft.wrong & {"policies", "model", "windows", "cascade"}:
            judges, problems = cascades(job, draft.policies, engine_spec(job, gpus=0))
        if not draft.wrong & {"policies", "gate"}:
            problems += gated_policies(job, draft.policies)[1]
        problems += _reused(job, judges)[1]
        input_, in_input = _scanned(job, draft.policies, judges)
        if "policies" not in draft.wrong:
            in_input += further(job, draft.policies, judges, input_)
        return [*problems, *in_input]
    except TryAgainError:
        return problems
    except UserError as error:
        return [*problems, job.problem("input.path", str(error))]


def check_job(
    job: Job, policies: Sequence[Policy], further: Further = _nothing, writes: bool = True
) -> Checked:
    """As `check`, for a job made in Python; `policies`: those that it names, in its order."""
    spec = engine_spec(job, gpus=0)
    report = model_report(job)
    problems = list(report.problems)
    judges: tuple[Cascade, ...] = ()
    if not problems:
        judges, problems = cascades(job, policies, spec)
    gated, out_of_reach = gated_policies(job, policies)
    problems += out_of_reach
    try:
        reused, unfinished = _reused(job, judges)
        input_, in_input = _scanned(job, policies, judges)
    except UserError as error:
        if not problems:
            raise
        raise Problems([*problems, job.problem("input.path", str(error))]) from None
    problems += [*unfinished, *in_input, *further(job, policies, judges, input_)]
    # Where the output itself is wrong, such as inside the input, nothing is written.
    if writes and not problems:
        problems = _unwritable(job)
    if problems:
        raise Problems(problems)
    fitted(spec, judges)
    return Checked(
        job,
        tuple(policies),
        judges,
        input_,
        reused,
        gated,
        (*report.notes, *_estimated(judges), *_read_by_maps(judges)),
        (*report.elsewhere, *unhosted(job, judges)),
    )


def _estimated(cascades: Sequence[Cascade]) -> Iterator[str]:
    """Promises that no theorem stands behind, and what watches them."""
    for cascade in cascades:
        for judge in cascade.estimated:
            watch = (
                f"audit: {cascade.audit:g} watches it"
                if cascade.audit
                else "nothing watches it: set audit, such as 0.01"
            )
            yield (
                f"{cascade.policy.id}: the {judge}'s promise to miss at most "
                f"{cascade.promises[judge]:.1%} of violations is estimated, since it is "
                f"cross-fitted; {watch}"
            )


def _read_by_maps(cascades: Sequence[Cascade]) -> Iterator[str]:
    """Policies whose P is not decided as the model gives it."""
    for cascade in cascades:
        if (card := cascade.calibration) is not None:
            yield (
                f"{cascade.policy.id}: P of {card.judge} is read by a calibration ({card.method}, "
                f"{card.rows:,} contents, {card.created}); its Brier score fell from "
                f"{card.brier.before:.3f} to {card.brier.after:.3f} on held-out contents"
            )


def _unwritable(job: Job) -> list[Problem]:
    """Why the output cannot be written.

    Raises:
        NoRoomError: There is no room.
        TryAgainError: The store does not answer.
    """
    try:
        assert_writable(job.output.path, job.storage, PRIVATE)
    except UserError as error:
        # A finished output may be read-only; whoever must write to it after all is told by then.
        if not _is_finished(job):
            return [job.problem("output.path", f"the output cannot be written: {error}")]
    return []


def _is_finished(job: Job) -> bool:
    """Whether the output holds the labels of a whole input; what cannot be read does not."""
    try:
        with plain_errors(job.output.path):
            manifest = read_manifest(Layout(job.output.path, job.storage))
    except UserError:
        return False
    return manifest is not None and manifest.complete


def _scanned(
    job: Job, policies: Sequence[Policy], cascades: Sequence[Cascade]
) -> tuple[Scan, list[Problem]]:
    """The input, and what is wrong with it, for the rules that read its columns too."""
    input_ = scan(job, [policy.id for policy in policies], lambda: _kept_footers(job))
    rules = [rules for cascade in cascades for rules in cascade.rules]
    in_rules = [problem for each in rules for problem in check_rules(each, input_.files)]
    if in_rules and (odd := _odd_for_rules(rules, input_)):
        input_, in_rules = input_.without(odd), []
    return input_, [*input_.problems, *in_rules]


def _odd_for_rules(rules: Sequence[Rules], input_: Scan) -> dict[str, str]:
    """Files that rules cannot be held against, and why; none where they are half of all or more.

    As `check_columns` does: whoever may add a file must not take all others out.
    """
    wrong = {
        file[0].file: problem.message
        for file in input_.files
        for each in rules
        for problem in check_rules(each, [file])
    }
    return wrong if 2 * len(wrong) < len(input_.shards) else {}


def _kept_footers(job: Job) -> Footers:
    """Footers that an earlier run of the job had to read files for."""
    if not job.output.path:
        return {}
    with plain_errors(job.output.path):
        return read_footers(
            Layout(job.output.path, job.storage), template_columns(job.input.content)
        )


def _reused(
    job: Job, cascades: Sequence[Cascade]
) -> tuple[tuple[EarlierOutput, ...], list[Problem]]:
    """The outputs that `reuse:` names, and what is wrong with them."""
    outputs: list[EarlierOutput] = []
    problems: list[Problem] = []
    for number, url in enumerate(job.reuse):
        key = f"reuse.{number}"
        if canonical_url(url, job.storage) == canonical_url(job.output.path, job.storage):
            problems.append(
                job.problem(
                    key,
                    "reuse names the output itself",
                    "leave it out: an output's own verdicts are always reused",
                )
            )
            continue
        try:
            outputs += earlier_outputs(url, job.storage, cascades, job.output.path)
        except UserError as error:
            problems.append(job.problem(key, str(error)))
    return tuple(outputs), problems
