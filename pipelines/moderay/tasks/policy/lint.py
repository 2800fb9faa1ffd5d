"""`moderay policy lint`: all that is doubtful in policies, with lines and hints, at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moderay.config.job_file import draft_document, policy_folders, read_document
from moderay.core.errors import Problem, Problems
from moderay.engines.harmony.vocabulary import Vocabulary, vocabulary
from moderay.tasks.policy.examples import examples
from moderay.tasks.policy.finding import Finding
from moderay.tasks.policy.golden_set import golden_findings
from moderay.tasks.policy.label_names import label_findings
from moderay.tasks.policy.overlap import overlap_findings
from moderay.tasks.policy.shape import shape_findings
from moderay.tasks.policy.source import PolicySource, read_policy
from moderay.tasks.policy.wording import wording_findings


@dataclass(frozen=True)
class Linted:
    """What was found in policies.

    Attributes:
        policies: How many were looked at, those that do not load included.
        findings: By policy in the order they were named, then by file and line.
        problems: Why a policy, its golden set or the job does not load.
    """

    policies: int
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]

    @property
    def to_do(self) -> int:
        """Findings that say what is to be written, and not that something is wrong."""
        return sum(finding.code.is_to_do for finding in self.findings)

    @property
    def doubtful(self) -> int:
        """All other findings."""
        return len(self.findings) - self.to_do


def lint_policies(folders: Sequence[str | Path]) -> Linted:
    """What is doubtful in each policy; what does not load is told beside it."""
    vocab = vocabulary()
    sources, problems = _read(folders)
    findings = [finding for source in sources for finding in _of_policy(source, vocab)]
    return Linted(len(folders), tuple(findings), tuple(problems))


def lint_job(job: Path, sets: Sequence[str] = ()) -> Linted:
    """The same of a job's policies, and what two of them have in common.

    Args:
        job: The job file. What is wrong in it elsewhere is told as well.
        sets: `key=value`, as of `--set`.

    Raises:
        Problems: It is no YAML.
    """
    vocab = vocabulary()
    document = read_document(job, sets)
    draft = draft_document(document, job, elsewhere=True)
    folders = [folder for folder in policy_folders(document, job.parent.resolve()) if folder]
    sources, problems = _read(folders)
    findings = [finding for source in sources for finding in _of_policy(source, vocab)]
    findings += sorted(overlap_findings(sources))
    # Of a policy that does not load, the job says it as well.
    told = {str(problem) for problem in draft.problems}
    missing = {f"{folder}" for folder in folders if not Path(folder, "policy.md").is_file()}
    problems = [p for p in problems if str(p) not in told and p.file not in missing]
    return Linted(len(folders), tuple(findings), (*draft.problems, *problems))


def _read(folders: Sequence[str | Path]) -> tuple[list[PolicySource], list[Problem]]:
    """Those that load, and what is wrong with the others."""
    sources, problems = list[PolicySource](), list[Problem]()
    for folder in folders:
        try:
            source, wrong = read_policy(Path(folder))
        except Problems as error:
            problems += error.problems
        else:
            sources.append(source)
            problems += wrong
    return sources, problems


def _of_policy(source: PolicySource, vocab: Vocabulary) -> Iterator[Finding]:
    """The text's findings by line, then the golden set's."""
    shown = examples(source)
    found = [
        *shape_findings(source, vocab),
        *label_findings(source, shown, vocab),
        *wording_findings(source),
    ]
    golden = _golden(source)
    found += golden_findings(source, shown) if golden else ()
    yield from sorted(found, key=lambda f: (f.file != source.file, f.line, f.code))


def _golden(source: PolicySource) -> bool:
    """Whether the golden set can be looked at: one that does not load is a problem instead."""
    return source.has_golden or not Path(source.golden_file).exists()
