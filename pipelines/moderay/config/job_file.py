"""Job file -> frozen `Job`, with every problem at once."""

from __future__ import annotations

import difflib
import os.path
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from moderay.config import yaml_document
from moderay.config.job import SCRIPTED, Job
from moderay.config.policy import Policy, load_policy
from moderay.config.yaml_document import Document, Found, Origin
from moderay.core.errors import Problem, Problems, nearest


@dataclass(frozen=True)
class Draft:
    """A job file with whatever is wrong in it. `job`: without problems the job; with some, what of
    it is needed to look at the input, or None where the input itself is wrong. `policies`: those
    that can be read. `wrong`: sections with problems.
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


def load_policies(job: Job) -> tuple[Policy, ...]:
    """The job's policies. Raises `Problems` with everything wrong in them."""
    policies, problems = _load_policies(job.policies, job._origin)
    if problems:
        raise Problems([problem for _, problem in problems])
    return policies


def draft_job(file: str | Path, sets: Sequence[str] = ()) -> Draft:
    """Read a job file and its policies. Raises `Problems` only where there is no YAML."""
    return draft_document(read_document(file, sets), Path(file))


def read_document(
    file: str | Path,
    sets: Sequence[str] = (),
    keep: Collection[str] = (),
    days: Mapping[str, str] | None = None,
) -> Document:
    """The file's keys and values: `--set key=value` first, then `${VAR}`, so that what is set needs
    no variable. `keep`: sections whose variables stay as they are written; `days`: DATE and
    YESTERDAY, where not as `yaml_document.nights` has them. Raises `Problems` only where there is
    no YAML to look at.
    """
    document = yaml_document.read(
        Path(file), "a job file is keys and values", "begin with name:, input:, output:, policies:"
    )
    for given in sets:
        yaml_document.put(document, given)
    yaml_document.fill(document, keep, days)
    return document


def draft_document(document: Document, path: Path, elsewhere: bool = False) -> Draft:
    """The job that a document at `path` describes, and its policies. `elsewhere`: another machine
    runs it, so that a model's folder is not looked for on this one.
    """
    data = _absolute(document.data, path.parent.resolve())
    found = [*document.problems, *_source_problems(data, document.origin, elsewhere)]
    job: Job | None = None
    try:
        job = Job.model_validate(data)
    except ValidationError as error:
        found += _validation_problems(error, document)
    folders = data.get("policies")
    policies, wrong = _load_policies(folders if isinstance(folders, list) else [], document.origin)
    found += wrong
    wrong_keys = {key for key, _ in found}
    if found:
        job = _usable(data, wrong_keys)
    if job is not None:
        job._origin = document.origin
    problems = sorted(
        dict.fromkeys(problem for _, problem in found),
        key=lambda problem: (problem.file != str(path), problem.line or 0),
    )
    return Draft(
        job, policies, tuple(problems), frozenset(key.partition(".")[0] for key in wrong_keys)
    )


def _usable(data: Mapping[str, Any], wrong: set[str]) -> Job | None:
    """The job without its wrong sections, where its input is right: the input can be checked all
    the same. Nothing is carried over where the output is wrong, since what was meant is not known.
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
        given = data.get("output")
        path = given.get("path") if isinstance(given, dict) and "output.path" not in wrong else ""
        kept["output"] = {"path": path if isinstance(path, str) else "", "columns": []}
    try:
        return Job.model_validate(kept)
    except ValidationError:
        return None


def _absolute(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths relative to the job file made absolute, in place and before validation."""

    def located(value: Any) -> Any:
        if isinstance(value, list):
            return [located(item) for item in value]
        return (
            os.path.normpath(base / value)
            if isinstance(value, str) and "://" not in value and not value.startswith("${")
            else value
        )

    if isinstance(data.get("filter"), dict) and "out" in data["filter"]:
        data["filter"]["out"] = located(data["filter"]["out"])
    for section in ("policies", "reuse"):
        if section in data:
            data[section] = located(data[section])
    steps = data.get("cascade")
    for step in steps if isinstance(steps, list) else []:
        for judge, args in step.items() if isinstance(step, dict) else ():
            if judge in ("screen", "glance"):
                step[judge] = (
                    args | {"path": located(args["path"])}
                    if isinstance(args, dict) and "path" in args
                    else located(args)
                )
    for section in ("input", "output"):
        if isinstance(data.get(section), dict) and "path" in data[section]:
            data[section]["path"] = located(data[section]["path"])
    model = data.get("model")
    source = model.get("source") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(source, str):
        if source.startswith(SCRIPTED):
            model["source"] = SCRIPTED + str(base / source.removeprefix(SCRIPTED))
        elif source != "tiny" and (
            source.startswith((".", "/")) or ("://" not in source and (base / source).is_dir())
        ):
            model["source"] = str(base / source)
    return data


def _source_problems(data: Mapping[str, Any], origin: Origin, elsewhere: bool) -> list[Found]:
    """A model that is a path must be there; a hub id or URL is looked up when the engine starts."""
    model = data.get("model")
    source = model.get("source") if isinstance(model, dict) else None
    if not isinstance(source, str):
        return []
    script = Path(source.removeprefix(SCRIPTED))
    if source.startswith(SCRIPTED) and not script.is_file():
        return [
            (
                "model.source",
                origin.problem("model.source", f"no such file of scripted answers: {script}"),
            )
        ]
    if source.startswith("/") and not elsewhere and not Path(source).is_dir():
        return [
            (
                "model.source",
                origin.problem(
                    "model.source", f"no such model folder: {source}", "a folder, a hub id, or tiny"
                ),
            )
        ]
    return []


def _load_policies(
    folders: Sequence[Any], origin: Origin
) -> tuple[tuple[Policy, ...], list[Found]]:
    policies: list[Policy] = []
    found: list[Found] = []
    for number, folder in enumerate(folders):
        key = f"policies.{number}"
        if not isinstance(folder, str):
            continue  # the job's own validation says so
        try:
            policy = load_policy(folder)
        except Problems as error:
            found += [
                (
                    key,
                    origin.problem(key, f"policy {folder}: {p.message}", p.hint)
                    if p.line is None
                    else p,
                )
                for p in error.problems
            ]
            continue
        if policy.id in {other.id for other in policies}:
            found.append(
                (
                    key,
                    origin.problem(
                        key,
                        f"two policies have the id {policy.id!r}",
                        "change the id in one policy.md",
                    ),
                )
            )
        policies.append(policy)
    return tuple(policies), found


def _validation_problems(error: ValidationError, document: Document) -> list[Found]:
    """One problem for each key: where a value may be of several kinds, they are named together."""
    kinds: dict[str, list[str]] = {}
    values: dict[str, object] = {}
    found: list[Found] = []
    for item in error.errors():
        where = _key(item["loc"], document.data, item["type"])
        key = ".".join(where)
        if item["type"] == "extra_forbidden":
            found.append(
                (key, document.origin.problem(key, f"unknown key {key!r}", _unknown_hint(where)))
            )
        elif item["type"] == "missing":
            found.append((key, document.origin.problem(key, f"{key!r} is missing")))
        else:
            kinds.setdefault(key, []).append(_worded(item["msg"]))
            values[key] = item["input"]
    return found + [
        (key, document.origin.problem(key, f"{key}: {_either(said)}{_shown(key, values[key])}"))
        for key, said in kinds.items()
    ]


def _worded(message: str) -> str:
    message = (
        message.removeprefix("Value error, ")
        .removeprefix("Input ")
        .removesuffix(", unable to parse string as an integer")
    )
    message = re.sub(
        r"^List should have (.*) after validation, not \d+$", r"should have \1", message
    )
    return re.sub(
        r"a valid dictionary or instance of \w+|a valid dictionary", "keys and values", message
    )


def _either(said: Sequence[str]) -> str:
    return " or ".join([said[0], *(more.removeprefix("should be ") for more in said[1:])])


def _shown(key: str, value: object) -> str:
    # Options of a store may be secrets, and a URL may hold some.
    short = not isinstance(value, dict | list) and len(repr(value)) < 60
    return f", not {value!r}" if short and not key.startswith(("storage", "model.endpoint")) else ""


def _key(loc: Sequence[int | str], data: Any, kind: str) -> list[str]:
    """The keys a person wrote: members of a union stand in pydantic's location as well, under a
    type's name.
    """
    where: list[str] = []
    for position, part in enumerate(loc):
        inside = (
            part in data
            if isinstance(data, dict)
            else isinstance(data, list) and isinstance(part, int)
        )
        if inside:
            data = data[part]
        if inside or (kind == "missing" and position == len(loc) - 1):
            where.append(str(part))
    return where


def _unknown_hint(where: Sequence[str]) -> str:
    spec: Any = Job
    for part in where[:-1]:
        if part.isdigit():
            continue
        annotation = spec.model_fields[part].annotation
        spec = next((found for found in _specs(annotation)), spec)
    known = list(spec.model_fields)
    return (
        nearest(where[-1], known)
        if difflib.get_close_matches(where[-1], known, n=1)
        else "valid: " + ", ".join(known)
    )


def _specs(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _specs(inner)]
