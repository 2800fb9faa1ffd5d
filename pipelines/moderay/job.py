"""Job file -> frozen `Job`, with every problem at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from moderay.errors import Problem, Problems, nearest
from moderay.policy import Policy, load_policy
from moderay.prompt import Effort

SCRIPTED = "scripted:"
_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def _bytes(value: object) -> object:
    """`64MiB` -> 67108864."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if match is None:
        return value
    if match[2] not in _UNITS:
        raise ValueError(f"unknown unit {match[2]!r}; valid: {', '.join(filter(None, _UNITS))}")
    return int(float(match[1]) * _UNITS[match[2]])


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(_Spec):
    """`path`: file, directory, glob, or a list of them. `content`: a column of text, bytes or conversations, or a
    template of columns. `where`: Polars SQL over input columns. `sample`: share of rows, chosen by content hash."""

    path: str | list[str]
    content: str
    where: str | None = None
    sample: float | None = Field(default=None, gt=0, le=1)

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Output(_Spec):
    """`columns`: input columns carried over. `reasoning`: whose reasoning is stored."""

    path: str
    columns: Literal["all"] | list[str] = "all"
    reasoning: Literal["all", "flagged", "none"] = "flagged"


class Sampling(_Spec):
    """As published with gpt-oss-safeguard; 0 is greedy."""

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class Replicas(_Spec):
    min: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class Model(_Spec):
    """`source`: hub id, folder, `tiny`, or `scripted:FILE`. `replicas`: engines; by default one for each GPU (or tensor
    parallel group), one without GPUs. `engine`: further vLLM engine arguments, passed through."""

    source: str = "tiny"
    revision: str | None = None
    effort: Effort = "low"
    sampling: Sampling = Sampling()
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    replicas: Annotated[int, Field(ge=1)] | Replicas | None = None
    engine: dict[str, Any] = Field(default_factory=dict)


class ReasonArgs(_Spec):
    """`budget`: tokens of reasoning before the verdict is asked for. OpenAI's guide advises a lower effort before a cap."""

    budget: int = Field(default=512, ge=1)


class Step(_Spec):
    """One judge of the cascade; `reason` is the only one there is."""

    reason: ReasonArgs = ReasonArgs()


class Windows(_Spec):
    """Long content: pieces of `tokens`, each sharing `overlap` with the one before, at most `max` of them."""

    tokens: int = Field(default=8192, ge=16)
    overlap: int = Field(default=256, ge=0)
    max: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _advances(self) -> Windows:
        if self.overlap >= self.tokens:
            raise ValueError(f"overlap ({self.overlap}) must be below tokens ({self.tokens})")
        return self


class UnitSize(_Spec):
    """The grain of progress and resume: at most so many rows, and about so many bytes of content."""

    rows: int = Field(default=512, ge=1)
    bytes: Annotated[int, BeforeValidator(_bytes)] = Field(default=64 * 2**20, ge=1)


class Limits(_Spec):
    """`request_s`: seconds one window may take, from the moment the engine is asked."""

    request_s: float = Field(default=120, gt=0)


class Job(_Spec):
    """What to label, under which policies, with which model, and where the labels go. All paths are absolute or URLs."""

    name: str = "job"
    input: Input
    output: Output
    policies: list[str] = Field(min_length=1)
    model: Model = Model()
    cascade: list[Step] = Field(default_factory=lambda: [Step()], min_length=1, max_length=1)
    windows: Windows = Windows()
    unit: UnitSize = UnitSize()
    limits: Limits = Limits()
    storage: dict[str, Any] = Field(default_factory=dict)

    _file: str = PrivateAttr("job")
    _lines: Mapping[str, int] = PrivateAttr(default_factory=dict)

    @property
    def budget(self) -> int:
        return self.cascade[0].reason.budget

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A problem at the line of a dotted key."""
        return Problem(self._file, self._lines.get(key), message, hint)


def load_job(file: str | Path, sets: Sequence[str] = ()) -> tuple[Job, tuple[Policy, ...]]:
    """`read_job`, raising `Problems` where anything is wrong."""
    job, policies, problems = read_job(file, sets)
    if problems or job is None:
        raise Problems(problems)
    return job, policies


def read_job(file: str | Path, sets: Sequence[str] = ()) -> tuple[Job | None, tuple[Policy, ...], list[Problem]]:
    """Read a job file, fill in `${VAR}` and `--set key=value`, and its policies: what could be read, and every problem.
    Raises `Problems` where the file is no YAML at all."""
    path = Path(file)
    data, lines, problems = _read(path)
    for given in sets:
        problems += _set(data, given)
    job: Job | None = None
    try:
        job = Job.model_validate(_absolute(data, path.parent.resolve()))
        job._file, job._lines = str(path), lines
    except ValidationError as error:
        problems += _validation_problems(error, path, lines)
    folders = [str(item) for item in data.get("policies") or [] if isinstance(item, str)] if isinstance(data.get("policies"), list) else []
    policies, wrong = _load_policies(folders, path, lines)
    return job, policies, problems + wrong


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int], list[Problem]]:
    """Data, line by dotted key, and the problems of the text itself."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except FileNotFoundError:
        raise Problems([Problem(str(path), None, "no such job file")]) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise Problems([Problem(str(path), line, f"no YAML: {error.problem}")]) from None
    if not isinstance(node, yaml.MappingNode):
        raise Problems([Problem(str(path), 1, "a job file is keys and values", "begin with name:, input:, output:, policies:")])
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    return _plain(node, "", path, lines, problems), lines, problems


def _plain(node: yaml.Node, key: str, path: Path, lines: dict[str, int], problems: list[Problem]) -> Any:
    """A YAML node as Python data, with environment variables filled in and lines noted."""
    line = node.start_mark.line + 1
    lines.setdefault(key, line)
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for name, value in node.value:
            below = f"{key}.{name.value}".lstrip(".")
            if name.value in out:
                problems.append(Problem(str(path), name.start_mark.line + 1, f"key {below!r} stands twice"))
            lines[below] = name.start_mark.line + 1
            out[name.value] = _plain(value, below, path, lines, problems)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, f"{key}.{i}", path, lines, problems) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and "${" in node.value:
        return _fill(node.value, path, line, problems)
    loader = yaml.SafeLoader("")
    return loader.construct_object(node, deep=True)


def _fill(text: str, path: Path, line: int, problems: list[Problem]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            problems.append(Problem(str(path), line, f"environment variable {match[1]} is not set", f"{match[1]}=... before the command, or --set"))
        return os.environ.get(match[1], match[0])

    return re.sub(r"\$\{(\w+)\}", value, text)


def _set(data: dict[str, Any], given: str) -> list[Problem]:
    key, equals, value = given.partition("=")
    if not equals:
        return [Problem("--set", None, f"{given!r} is no key=value")]
    *path, last = key.split(".")
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            return [Problem("--set", None, f"{key!r}: {part!r} is no group of keys")]
    try:
        data[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        data[last] = value
    return []


def _absolute(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths relative to the job file made absolute, in place and before validation."""

    def located(value: Any) -> Any:
        if isinstance(value, list):
            return [located(item) for item in value]
        return os.path.normpath(base / value) if isinstance(value, str) and "://" not in value and not value.startswith("${") else value

    for section in ("input", "output"):
        if isinstance(data.get(section), dict) and "path" in data[section]:
            data[section]["path"] = located(data[section]["path"])
    data["policies"] = located(data.get("policies", []))
    model = data.get("model")
    source = model.get("source") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(source, str):
        if source.startswith(SCRIPTED):
            model["source"] = SCRIPTED + str(base / source.removeprefix(SCRIPTED))
        elif (base / source).is_dir() or source.startswith((".", "/")):
            model["source"] = str(base / source)
    return data


def _load_policies(folders: Sequence[str], path: Path, lines: Mapping[str, int]) -> tuple[tuple[Policy, ...], list[Problem]]:
    policies: list[Policy] = []
    problems: list[Problem] = []
    for number, folder in enumerate(folders):
        line = lines.get(f"policies.{number}", lines.get("policies"))
        try:
            policy = load_policy(folder)
        except Problems as error:
            problems += [Problem(str(path), line, f"policy {folder}: {p.message}", p.hint) if p.line is None else p for p in error.problems]
            continue
        if policy.id in {other.id for other in policies}:
            problems.append(Problem(str(path), line, f"two policies have the id {policy.id!r}", "change the id in one policy.md"))
        policies.append(policy)
    return tuple(policies), problems


def _validation_problems(error: ValidationError, path: Path, lines: Mapping[str, int]) -> list[Problem]:
    return list(dict.fromkeys(_validation_problem(item, path, lines) for item in error.errors()))


def _validation_problem(item: Any, path: Path, lines: Mapping[str, int]) -> Problem:
    # Members of a union appear in the location as a type's name: not a key that a person wrote.
    where = [str(part) for part in item["loc"] if isinstance(part, int) or re.fullmatch(r"[a-z_]\w*", part)]
    where = [part for part in where if part not in ("int", "str", "constrained-int")]
    key = ".".join(where)
    line = next((lines[".".join(where[:n])] for n in range(len(where), 0, -1) if ".".join(where[:n]) in lines), None)
    file = str(path) if line is not None or item["type"] == "missing" else "--set"
    if item["type"] == "extra_forbidden":
        return Problem(file, line, f"unknown key {key!r}", _unknown_hint(where))
    if item["type"] == "missing":
        return Problem(str(path), line, f"{key!r} is missing")
    value = repr(item["input"])
    message = item["msg"].removeprefix("Value error, ")
    return Problem(file, line, f"{key}: {message}" + (f", not {value}" if len(value) < 60 else ""))


def _unknown_hint(where: Sequence[str]) -> str:
    spec: Any = Job
    for part in where[:-1]:
        if part.isdigit():
            continue
        annotation = spec.model_fields[part].annotation
        spec = next((found for found in _specs(annotation)), spec)
    known = list(spec.model_fields)
    return nearest(where[-1], known) if difflib.get_close_matches(where[-1], known, n=1) else "valid: " + ", ".join(known)


def _specs(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _specs(inner)]
