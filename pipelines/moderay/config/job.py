"""The job: a frozen model of what a job file says.

Its sections are defined in `sections/`, and all of them are named here; `job_file` reads the file.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError

from moderay.config.paths import SCRIPTED, JobPath, beside
from moderay.config.sections.after import Alarms, Filter, Unselected
from moderay.config.sections.base import Section
from moderay.config.sections.benchmark import Benchmark, Published
from moderay.config.sections.cascade import (
    JUDGES,
    GlanceArgs,
    ReasonArgs,
    RulesArgs,
    ScreenArgs,
    Step,
    Steps,
)
from moderay.config.sections.data import Input, Output
from moderay.config.sections.gate import Floors
from moderay.config.sections.gold import Gold, GoldSource
from moderay.config.sections.limits import Limits, UnitSize, Windows
from moderay.config.sections.model import Effort, Model, Replicas, Sampling
from moderay.config.validation import validation_problems
from moderay.config.yaml_document import Document, DocumentOrigin, plain_data
from moderay.core.errors import Problem, Problems

__all__ = [
    "JUDGES",
    "SCRIPTED",
    "Alarms",
    "Benchmark",
    "Effort",
    "Filter",
    "Floors",
    "GlanceArgs",
    "Gold",
    "Input",
    "Job",
    "Limits",
    "Model",
    "Output",
    "Published",
    "ReasonArgs",
    "Replicas",
    "RulesArgs",
    "Sampling",
    "ScreenArgs",
    "Step",
    "UnitSize",
    "Unselected",
    "Windows",
    "job_schema",
]


class Job(Section):
    """What to label, under which policies, with which model, and where the labels go.

    All paths are absolute or URLs.
    """

    name: str = "job"
    """For people: in reports and logs."""
    date: datetime.date | None = None
    """The night under which `trend` counts what a run adds, such as ${DATE}. Default: the day on
    which the run begins (UTC).
    """
    input: Input
    """What is judged."""
    output: Output
    """Where the labels go and what stands beside them."""
    policies: list[JobPath] = Field(min_length=1)
    """Policy folders."""
    model: Model = Model()
    """Who judges. Default: the embedded model, for trying only."""
    cascade: Steps = Field(default_factory=lambda: [Step(reason=ReasonArgs())])
    """Judges in order of cost, each settling what it is sure of: rules, screens, glance, reason.
    The last settles the rest.
    """
    windows: Windows = Windows()
    """How long content is cut into pieces."""
    unit: UnitSize = UnitSize()
    """Rows that are judged together."""
    limits: Limits = Limits()
    """When to give up."""
    audit: float = Field(default=0.0, ge=0, le=1)
    """Share of what earlier judges settled, chosen by hash, that the last one judges too: every run
    measures its own misses.
    """
    reuse: list[JobPath] = Field(default_factory=list)
    """Earlier outputs whose verdicts are taken where content and judge are the same; or a glob of
    them, such as labels/date=*.
    """
    filter: Filter | None = None
    """What `moderay filter` makes of the labels."""
    gold: dict[str, GoldSource] = Field(default_factory=dict)
    """By policy, what people said of the input's rows: what `eval` compares with. Or `reviews`:
    what they said in `moderay review`.
    """
    gate: dict[str, Floors] = Field(default_factory=dict)
    """Floors that policies must pass on their golden sets, which are judged first: `golden` is for
    every policy, and a policy's id for that one, whose own floors win.
    """
    benchmark: Benchmark | None = None
    """Where the input is a public set: what others measured on it, shown beside what `eval` finds.
    """
    report: Literal["html", "none"] = "html"
    """Whether a run that has labelled something ends by writing `_moderay/report.html` into the
    output: what it found on one page, with a few rows to look at.
    """
    alarms: Alarms = Alarms()
    """What `trend` and the end of a run ring at."""
    storage: dict[str, Any] = Field(default_factory=dict)
    """fsspec options of stores that are not local, for all of them or by protocol; secrets belong
    in the environment.
    """

    _origin: DocumentOrigin = PrivateAttr(default_factory=DocumentOrigin)

    @property
    def may_be_empty(self) -> bool:
        """Whether an input without rows is no mistake."""
        allowed = self.input.allow_empty
        return self.date is not None if allowed is None else allowed

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A job of keys and values, as a job file has them.

        Its policies and its input are looked at by `moderay.check` and whatever else takes a job.

        Args:
            data: What a job file would hold. Relative paths are relative to the working directory,
                and `${VAR}` is not filled in.

        Raises:
            Problems: With every key that is unknown, missing or wrong.

        Example:
            >>> job = moderay.Job.from_dict(
            ...     {
            ...         "input": {"path": "corpus/*.parquet", "content": "text"},
            ...         "output": {"path": "labels"},
            ...         "policies": ["policies/spam"],
            ...         "unit": {"rows": 100},
            ...     }
            ... )
            >>> job.unit.rows, job.model.source
            (100, 'tiny')
        """
        document = Document(plain_data(data), DocumentOrigin())
        try:
            return cls.model_validate(document.data, context=beside(Path.cwd()))
        except ValidationError as error:
            raise Problems(
                [problem for _, problem in validation_problems(error, document, cls)]
            ) from None

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A problem at the line of a dotted key."""
        return self._origin.problem(key, message, hint)

    def command(self, *options: str) -> str | None:
        """`moderay run` over the job's file, as it was read, to paste into a shell.

        Args:
            options: Further words of it.

        Returns:
            The line; None where the job is of no file, or reads secrets from the command line.
        """
        origin = self._origin
        if not Path(origin.file).is_file() or any(key.startswith("storage") for key in origin.sets):
            return None
        sets = [word for assignment in origin.sets for word in ("--set", assignment)]
        return shlex.join(["moderay", "run", origin.file, *sets, *options])


def job_schema() -> dict[str, Any]:
    """The JSON Schema of a job file, for editors."""
    schema: dict[str, Any] = _described_in_one_line(Job.model_json_schema())
    return schema


def _described_in_one_line(node: Any) -> Any:
    """A schema whose descriptions have no line breaks: editors show those as they are."""
    if isinstance(node, list):
        return [_described_in_one_line(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        name: " ".join(value.split())
        if name == "description" and isinstance(value, str)
        else _described_in_one_line(value)
        for name, value in node.items()
    }
