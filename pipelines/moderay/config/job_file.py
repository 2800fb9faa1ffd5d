"""Job file -> frozen `Job`, with every problem at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moderay.config import yaml_document
from moderay.config.job import SCRIPTED, Job, Output
from moderay.config.paths import absolute_path, absolute_source, beside
from moderay.config.policy import Policy, golden_cases, load_policy
from moderay.config.validation import validation_problems
from moderay.config.variables import fill
from moderay.config.yaml_document import Document, DocumentOrigin, KeyedProblem, plain_data
from moderay.core.errors import Problem, Problems, nearby


@dataclass(frozen=True)
class Draft:
    """A job file with whatever is wrong in it.

    Attributes:
        job: Without problems, the job; with some, what of it is needed to look at the input, or
            None where the input itself is wrong.
        policies: Those that can be read.
        problems: Everything wrong, in the order of the file.
        wrong: Names of the sections with problems.
    """

    job: Job | None
    policies: tuple[Policy, ...]
    problems: tuple[Problem, ...]
    wrong: frozenset[str] = frozenset()


def load_job(file: str | Path, sets: Sequence[str] = ()) -> tuple[Job, tuple[Policy, ...]]:
    """Read a job file and its policies. Raises `Problems` with everything wrong."""
    draft = draft_job(file, sets)
    if draft.problems or draft.job is None:
        raise Problems(draft.problems)
    return draft.job, draft.policies


def load_dict(
    data: Mapping[str, Any], sets: Sequence[str] = (), origin: DocumentOrigin | None = None
) -> tuple[Job, tuple[Policy, ...]]:
    """Check a job that is keys and values, and read its policies.

    Args:
        data: What a job file would hold; it is not changed, and `${VAR}` in it is not filled in.
            Relative paths are relative to the working directory.
        sets: `key=value`, as of `--set`.
        origin: Where the keys came from, for messages. Default: Python.

    Raises:
        Problems: With everything wrong.
    """
    origin = origin or DocumentOrigin()
    # A copy, since `put` changes it.
    document = Document(
        plain_data(data),
        DocumentOrigin(origin.file, dict(origin.lines), set(origin.overridden), list(origin.sets)),
    )
    for assignment in sets:
        yaml_document.put(document, assignment)
    draft = draft_document(document, Path.cwd() / "job")
    if draft.problems or draft.job is None:
        raise Problems(draft.problems)
    return draft.job, draft.policies


def load_again(job: Job, sets: Sequence[str] = ()) -> tuple[Job, tuple[Policy, ...]]:
    """A job that may have been made or changed in Python, as if it were read now; its policies.

    Raises:
        Problems: With everything wrong.
    """
    return load_dict(job.model_dump(mode="json", exclude_unset=True), sets, job._origin)


def draft_job(file: str | Path, sets: Sequence[str] = ()) -> Draft:
    """Read a job file and its policies. Raises `Problems` only where there is no YAML."""
    return draft_document(read_document(file, sets), Path(file))


def read_document(
    file: str | Path,
    sets: Sequence[str] = (),
    keep: Collection[str] = (),
    days: Mapping[str, str] | None = None,
) -> Document:
    """The file's keys and values.

    First comes `--set key=value`, then `${VAR}`, so that what is set needs no variable.

    Args:
        file: The job file.
        sets: Assignments of `--set`.
        keep: Sections whose variables stay as they are written.
        days: DATE and YESTERDAY, where not as `nights` has them.

    Raises:
        Problems: There is no YAML to look at.
    """
    document = yaml_document.read(
        Path(file), "a job file is keys and values", "begin with name:, input:, output:, policies:"
    )
    for assignment in sets:
        yaml_document.put(document, assignment)
    fill(document, keep, days)
    return document


def draft_document(document: Document, path: Path, elsewhere: bool = False) -> Draft:
    """The job that a document describes, and its policies.

    Args:
        document: From `read_document`.
        path: The job file, beside which relative paths lie.
        elsewhere: Another machine runs it, so that a model's folder is not looked for on this one.
    """
    folder = path.parent.resolve()
    problems = [*document.problems, *_source_problems(document, folder, elsewhere)]
    job: Job | None = None
    try:
        job = Job.model_validate(document.data, context=beside(folder))
    except ValidationError as error:
        problems += validation_problems(error, document, Job)
    # Read whether or not the job is sound: their problems belong to the same answer.
    policies, wrong_policies = _load_policies(policy_folders(document, folder), document.origin)
    problems += wrong_policies
    wrong_keys = {key for key, _ in problems}
    if problems:
        job = _usable(document.data, wrong_keys, folder)
    if job is not None:
        job._origin = document.origin
    in_order = sorted(
        dict.fromkeys(problem for _, problem in problems),
        key=lambda problem: (problem.file != str(path), problem.line or 0),
    )
    return Draft(
        job, policies, tuple(in_order), frozenset(key.partition(".")[0] for key in wrong_keys)
    )


def policy_folders(document: Document, folder: Path) -> list[str | None]:
    """A job's policies by number; None where it is no text, which the job's validation tells of.

    Args:
        document: The job.
        folder: What relative paths are relative to.
    """
    written = document.data.get("policies")
    return [
        absolute_path(item, folder) if isinstance(item, str) else None
        for item in (written if isinstance(written, list) else [])
    ]


def _usable(data: Mapping[str, Any], wrong: set[str], folder: Path) -> Job | None:
    """The job without its wrong sections, where its input is right: that can then be checked.

    Nothing is carried over where the output is wrong, since what was meant is not known.
    """
    sections = {key.partition(".")[0] for key in wrong}
    if "input" in sections:
        return None
    kept = {
        name: value
        for name, value in data.items()
        if name in Job.model_fields and name not in sections
    }
    kept.setdefault("policies", ["none"])
    if "output" in sections:
        output = data.get("output")
        path = output.get("path") if isinstance(output, dict) else None
        if isinstance(path, str) and "output.path" not in wrong:
            kept["output"] = Output(path=absolute_path(path, folder), columns=[])
        else:
            kept["output"] = Output(path="", columns=[])
    try:
        return Job.model_validate(kept, context=beside(folder))
    except ValidationError:
        return None


def _source_problems(document: Document, folder: Path, elsewhere: bool) -> list[KeyedProblem]:
    """A model that is a path must be there; a hub id or URL is looked up when the engine starts."""
    key = "model.source"
    model = document.data.get("model")
    written = model.get("source") if isinstance(model, dict) else None
    if not isinstance(written, str):
        return []
    source = absolute_source(written, folder)
    problem = document.origin.problem
    script = Path(source.removeprefix(SCRIPTED))
    if source.startswith(SCRIPTED) and not os.path.isfile(script):
        return [(key, problem(key, f"no such file of scripted answers: {nearby(str(script))}"))]
    if source.startswith("/") and not elsewhere and not os.path.isdir(source):
        hint = "a folder, a hub id, or tiny"
        return [(key, problem(key, f"no such model folder: {nearby(source)}", hint))]
    return []


def _load_policies(
    folders: Sequence[str | None], origin: DocumentOrigin
) -> tuple[tuple[Policy, ...], list[KeyedProblem]]:
    policies: list[Policy] = []
    problems: list[KeyedProblem] = []
    for number, folder in enumerate(folders):
        key = f"policies.{number}"
        if folder is None:
            continue
        try:
            policy = load_policy(folder)
        except Problems as error:
            problems += [(key, _in_job(problem, key, folder, origin)) for problem in error.problems]
            continue
        try:
            golden_cases(folder, policy)
        except Problems as error:
            problems += [(key, problem) for problem in error.problems]
        if policy.id in {other.id for other in policies}:
            message = f"two policies have the id {policy.id!r}"
            problem = origin.problem(key, message, "change the id in one policy.md")
            problems.append((key, problem))
        policies.append(policy)
    return tuple(policies), problems


def _in_job(problem: Problem, key: str, folder: str, origin: DocumentOrigin) -> Problem:
    """A policy's problem; where the folder is the trouble, it is the job's that names it."""
    if problem.file != folder:
        return problem
    told = origin.problem(key, f"policy {nearby(folder)}: {problem.message}", problem.hint)
    return replace(told, absent=problem.absent)
