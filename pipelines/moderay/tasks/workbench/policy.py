"""The policy that is being written, as it stands in its folder now."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moderay.config.job import Job, ReasonArgs, Step
from moderay.config.policy import GoldenCase, Policy, load_golden, load_policy
from moderay.config.sections.cascade import RulesArgs
from moderay.core.errors import Problem, Problems, UserError
from moderay.core.storage import plain_errors
from moderay.corpus.where import File
from moderay.judges.cascade import Cascade
from moderay.judges.rules_file import FILE as RULES
from moderay.judges.rules_file import check_rules
from moderay.tasks.embedded_job import job_cascades
from moderay.tasks.workbench.rows import TrialRow, golden_rows

GOLDEN = "golden.jsonl"


@dataclass(frozen=True)
class TrialPolicy:
    """A policy that loads.

    Attributes:
        cascade: Its rules, where it has any, and the reason judge.
        golden: Its golden set; empty where it has none.
    """

    cascade: Cascade
    golden: tuple[GoldenCase, ...] = ()

    @property
    def policy(self) -> Policy:
        """The policy itself."""
        return self.cascade.policy

    @cached_property
    def golden_rows(self) -> tuple[TrialRow, ...]:
        """The golden cases as rows."""
        return tuple(golden_rows(self.golden))

    @cached_property
    def right_labels(self) -> Mapping[str, str]:
        """The label of each golden case, by the key of its row."""
        return {row.key: row.right or "" for row in self.golden_rows}

    def judges_as(self, other: TrialPolicy) -> bool:
        """Whether no verdict and no decision can differ."""
        return self.policy == other.policy and self.cascade.key == other.cascade.key


def read_policy(folder: Path, job: Job, files: Sequence[File] = ()) -> TrialPolicy:
    """The policy in a folder.

    Args:
        folder: The policy's.
        job: For the model.
        files: Of the input, whose columns its rules may read.

    Raises:
        Problems: With everything wrong in it.
    """
    policy = load_policy(folder)
    cascade = cascade_of(policy, job, folder)
    problems = [problem for rules in cascade.rules for problem in check_rules(rules, files)]
    golden: list[GoldenCase] = []
    try:
        if (folder / GOLDEN).exists():
            golden = load_golden(folder)
    except Problems as error:
        problems += error.problems
    if problems:
        raise Problems(problems)
    return TrialPolicy(cascade, tuple(golden))


def cascade_of(policy: Policy, job: Job, folder: Path | None) -> Cascade:
    """The judges of a policy: its rules, where its folder has any, and the reason judge.

    Raises:
        Problems: With everything wrong in the rules.
    """
    has_rules = folder is not None and (folder / RULES).exists()
    steps = [Step(reason=ReasonArgs())]
    if has_rules:
        steps.insert(0, Step(rules=RulesArgs()))
    update = {"policies": [str(folder or policy.id)], "cascade": steps}
    [cascade] = job_cascades(job.model_copy(update=update), [policy])
    return cascade


def add_golden(folder: Path, case: GoldenCase) -> None:
    """Add a case at the end of a policy's golden set, which is made where there is none.

    Raises:
        UserError: It has this content already, or cannot be written.
        Problems: It does not load as it is.
    """
    file = folder / GOLDEN
    with plain_errors(str(file)):
        for number, other in enumerate(load_golden(folder) if file.exists() else (), start=1):
            if other.content == case.content:
                raise UserError(f"{file}:{number} has this content already, as {other.label}")
        line = json.dumps(case.model_dump(exclude_none=True), ensure_ascii=False)
        with file.open("a+b") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
            is_open = stream.read(1) not in (b"", b"\n")
            # One write: whoever reads meanwhile finds all of the line or nothing.
            stream.write(("\n" * is_open + line + "\n").encode())


class FolderWatch:
    """Notices that somebody saved a file of a folder, also by putting another in its place."""

    def __init__(self, folder: Path) -> None:
        """From now on."""
        self._folder = folder
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether something is not as it was at the last call."""
        now = self._look()
        changed = now != self._seen
        self._seen = now
        return changed

    def _look(self) -> dict[str, tuple[int, int, int, int]]:
        found: dict[str, tuple[int, int, int, int]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.is_file():
                        info = entry.stat()
                        state = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
                        found[entry.name] = state
        except OSError:
            # Gone, or going: what is missing is told by whoever reads the policy.
            return {}
        return found


def problems_of(error: UserError) -> tuple[Problem, ...]:
    """What is wrong, one by one."""
    if isinstance(error, Problems):
        return error.problems
    return (Problem("", None, str(error)),)
