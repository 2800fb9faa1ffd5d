"""Job file -> frozen `Job`, with every problem at once."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from moderay.config.yaml_document import Origin
from moderay.core.errors import Problem

Effort = Literal["low", "medium", "high"]
SCRIPTED = "scripted:"
_UNITS = {
    "": 1,
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}


def _bytes(value: object) -> object:
    """`64MiB` -> 67108864."""
    match = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        if isinstance(value, str)
        else None
    )
    if match is None:
        return value
    if match[2] not in _UNITS:
        raise ValueError(f"unknown unit {match[2]!r}; valid: {', '.join(filter(None, _UNITS))}")
    return int(float(match[1]) * _UNITS[match[2]])


class _Spec(BaseModel):
    # The docstring under a field is its description in the JSON Schema that editors show.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Input(_Spec):
    """What is judged."""

    path: str | Annotated[list[str], Field(min_length=1)]
    """File, directory, glob, or a list of them; any fsspec URL. Parquet (*.parquet) and JSON lines
    (*.jsonl, *.ndjson, also .gz or .zst); of a directory all files of these names, at any depth.
    """
    content: str = Field(min_length=1)
    """A column of text, bytes or conversations, or a template of text columns such as
    "{title}\\n\\n{body}".
    """
    where: str | None = None
    """Rows to judge: Polars SQL over input columns, true or false for each row by itself. Default:
    all rows.
    """
    sample: float | None = Field(default=None, gt=0, le=1)
    """Share of rows, 0 to 1, chosen by content hash, so the same ones each time. Default: all rows.
    """

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Output(_Spec):
    """Where the labels go and what stands beside them."""

    path: str
    """A folder, outside the input; one label file for each input file, of the same relative path.
    """
    columns: Literal["all"] | list[str] = "all"
    """Input columns carried over. Default: all, so that the labels can be read without the input.
    """
    reasoning: Literal["all", "flagged", "none"] = "flagged"
    """Whose reasoning is stored. Default: that of flagged rows, which people read; rationales are
    always stored.
    """


class Sampling(_Spec):
    """How tokens are drawn; each request is seeded from content hash and judge key."""

    temperature: float = Field(default=1.0, ge=0)
    """Default: 1, as published with gpt-oss-safeguard; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Default: 1, as published."""


class Replicas(_Spec):
    """How many engines, between two bounds."""

    min: int = Field(default=1, ge=1)
    """Engines the run begins with."""
    max: int = Field(default=1, ge=1)
    """Engines it may grow to."""

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class Model(_Spec):
    """Who judges."""

    source: str = "tiny"
    """Hub id, local folder, folder of an object store (fetched once per machine, into
    MODERAY_CACHE, by default ~/.cache/moderay, with the credentials of the environment there),
    `tiny` (embedded, for trying only), or `scripted:FILE` (tests).
    """
    endpoint: str | None = None
    """Instead of a source: base URL of an OpenAI-compatible Responses API, such as
    https://models.example.org/v1. The key comes from OPENAI_API_KEY in the environment.
    """
    name: str | None = None
    """The model as the endpoint calls it. With an endpoint, revision, dtype, quantization and
    kv_cache_dtype are what you state of it: part of the judge key, and checked by nobody.
    """
    concurrency: int = Field(default=64, ge=1)
    """Requests in flight at the endpoint, from each replica."""
    logprobs: bool = False
    """Whether the endpoint gives log-probabilities of its answers: verdicts then have a
    probability, and glance may have a band. Default: no; vLLM's gives none for gpt-oss.
    """
    revision: str | None = None
    """A commit of the hub's repository. Default: the newest one, which the manifest records."""
    effort: Effort = "low"
    """Reasoning effort. Default: low, the cheapest."""
    sampling: Sampling = Sampling()
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Default: the checkpoint's own. Part of the judge key, never chosen by the machine."""
    quantization: str | None = None
    """A vLLM method. Default: the checkpoint's own."""
    kv_cache_dtype: str = "auto"
    """Default: the model's. fp8 only where the verdicts have been compared."""
    replicas: Annotated[int, Field(ge=1)] | Replicas | None = None
    """Engines. Default: one for each GPU or tensor-parallel group, one without GPUs."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM engine arguments, passed through; max_num_seqs and max_num_batched_tokens among
    them.
    """

    @field_validator("endpoint")
    @classmethod
    def _plain(cls, endpoint: str | None) -> str | None:
        # Not shown: what is wrong with it may be a secret in it.
        url = urlsplit(endpoint or "https://none")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("is the base URL of an API, such as https://models.example.org/v1")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                "takes no user, password, query or fragment: the key belongs into OPENAI_API_KEY "
                "in the environment"
            )
        return endpoint

    @model_validator(mode="after")
    def _one_model(self) -> Model:
        given = self.model_fields_set
        if self.endpoint is None:
            if only := given & {"name", "concurrency", "logprobs"}:
                raise ValueError(
                    f"{', '.join(sorted(only))} without endpoint: it is said of a model that is "
                    "served there"
                )
        elif both := given & {"source", "engine"}:
            raise ValueError(
                f"{', '.join(sorted(both))} beside endpoint: leave one out; what an endpoint "
                "serves is loaded and set up there"
            )
        elif not self.name:
            raise ValueError("endpoint without name: which of its models is to judge")
        return self


class RulesArgs(_Spec):
    """Each policy's rules.yaml, where it has one."""


class ScreenArgs(_Spec):
    """A light classifier, made by `moderay calibrate`, for the policy that its card names."""

    path: str
    """Its folder."""
    force: bool = False
    """Use it although its card names another policy text or model. Default: no, since its promise
    does not hold then.
    """


class GlanceArgs(_Spec):
    """The safeguard without its reasoning; sure of what lies outside a band of P(violates). Without
    any key it is sure of everything, and the last judge.
    """

    below: float | None = Field(default=None, ge=0, le=1)
    """Settles contents with a lower P."""
    above: float | None = Field(default=None, ge=0, le=1)
    """Settles contents with a higher P: only where flagged rows without a rationale are wanted."""
    path: str | None = None
    """A folder made by `moderay calibrate --judge glance`: its band, for the policy that its card
    names.
    """
    force: bool = False
    """Use it although its card names another policy text or model."""

    @model_validator(mode="after")
    def _either(self) -> GlanceArgs:
        if self.path is not None and (self.below, self.above) != (None, None):
            raise ValueError("either a calibrated band (path) or below and above")
        return self


class ReasonArgs(_Spec):
    """The safeguard with its reasoning."""

    budget: int = Field(default=512, ge=1)
    """Tokens of reasoning before the verdict is asked for. OpenAI's guide advises a lower effort
    before a cap.
    """


def _folder(value: object) -> object:
    """A folder for `path: FOLDER`."""
    return {"path": value} if isinstance(value, str) else value


# In order of cost.
JUDGES = ("rules", "screen", "glance", "reason")


class Step(_Spec):
    """One judge of the cascade: `rules`, `screen: FOLDER`, `glance: {below: 0.02}`, or `reason:
    {budget: 512}`.
    """

    rules: RulesArgs | None = None
    screen: Annotated[
        ScreenArgs | None, BeforeValidator(_folder, json_schema_input_type=str | ScreenArgs)
    ] = None
    glance: Annotated[
        GlanceArgs | None, BeforeValidator(_folder, json_schema_input_type=str | GlanceArgs)
    ] = None
    reason: ReasonArgs | None = None

    @model_validator(mode="after")
    def _one(self) -> Step:
        if sum(getattr(self, name) is not None for name in JUDGES) != 1:
            raise ValueError(f"a step is one judge: {', '.join(JUDGES)}")
        return self

    @property
    def judge(self) -> str:
        return next(name for name in JUDGES if getattr(self, name) is not None)


def _step(value: object) -> object:
    """`rules` for `rules: {}`; a judge without arguments may also stand as a key without value."""
    if isinstance(value, str) and value not in JUDGES:
        raise ValueError(f"no such judge; valid: {', '.join(JUDGES)}")
    if isinstance(value, str):
        return {value: {}}
    return (
        {name: {} if name in JUDGES and args is None else args for name, args in value.items()}
        if isinstance(value, dict)
        else value
    )


class Windows(_Spec):
    """Long content: pieces that overlap, each judged."""

    tokens: int = Field(default=8192, ge=16)
    """Tokens of content in one piece."""
    overlap: int = Field(default=256, ge=0)
    """Tokens a piece shares with the one before, so that nothing is cut where it matters; below
    `tokens`.
    """
    max: int = Field(default=32, ge=1)
    """Pieces of one content; with more it is `too_long`, since one row should not cost as much as
    thousands.
    """

    @model_validator(mode="after")
    def _advances(self) -> Windows:
        if self.overlap >= self.tokens:
            raise ValueError(f"overlap ({self.overlap}) must be below tokens ({self.tokens})")
        return self


class UnitSize(_Spec):
    """The grain of progress and resume: whichever of the two is reached first."""

    rows: int = Field(default=512, ge=1)
    """Rows: seconds to minutes of an engine's work."""
    bytes: Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)] = Field(
        default=64 * 2**20, ge=1
    )
    """Bytes of content, about; a number or such as 64MiB. Bounds what one unit holds in memory."""


class Limits(_Spec):
    """When to give up."""

    request_s: float = Field(default=120, gt=0)
    """Seconds one window may take, from the moment the engine is asked."""
    stall_s: float = Field(default=600, gt=0)
    """Seconds without any unit saved, engine start included, after which the run ends and says what
    it waits for.
    """
    grace_s: float = Field(default=20, ge=0)
    """Seconds after SIGTERM or Ctrl-C in which units in judging may end; no new ones are begun.
    Default: 20, of the 30 that Kubernetes gives.
    """
    max_failed: float = Field(default=0.05, ge=0, le=1)
    """Share of judged rows that failed, did not parse or were forced, at which the run ends; looked
    at from 2,000 rows on.
    """
    gpu_hours: float | None = Field(default=None, gt=0)
    """GPU hours after which the run ends. Default: none."""
    until: datetime.datetime | None = None
    """Date and time (ISO 8601) at which the run ends; local time where it names no zone. Default:
    none.
    """


Unselected = Literal["keep", "remove", "hold"]


class Filter(_Spec):
    """What `moderay filter` makes of the labels; `run` leaves it alone."""

    keep: str
    """Rows to keep: Polars SQL over the verdict columns, such as NOT (spam.violates OR
    spam.probability > 0.8).
    """
    out: str
    """A folder, outside input and output: kept/, removed/, held/, each with a file for each input
    file, and a card.
    """
    thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """By policy, where not the policy's own; decided from the labels, without a model."""
    unselected: Unselected | None = None
    """What becomes of rows that input.where or input.sample left out. Must be said where there are
    such rows.
    """
    verdicts: bool = False
    """Whether kept rows have the verdict columns too. Default: no, they are as they were."""


class Alarms(_Spec):
    """What `trend` and the end of a run ring at; null switches one off. A change must be as large
    as this and more than chance makes of so many rows, after three nights at least.
    """

    flagged: float | None = Field(default=0.25, gt=0)
    """Change of a policy's share of flagged rows: 0.25 is a quarter more, or as much less as takes
    a quarter to make up for.
    """
    drift: float | None = Field(default=0.1, gt=0, lt=1)
    """Change of the distribution of P(violates): Jensen-Shannon distance, 0 for the same, 1 for
    nothing in common.
    """
    failed: float | None = Field(default=0.01, gt=0, lt=1)
    """Share of the last night's rows that failed: timeout, unparsed or engine_error."""
    tokens: float | None = Field(default=None, gt=0)
    """Rise of tokens per row on the last night: 0.5 is half as many more. Default: none, since
    prompts are as long as the contents.
    """


class Job(_Spec):
    """What to label, under which policies, with which model, and where the labels go. All paths are
    absolute or URLs.
    """

    name: str = "job"
    """For people: in reports and logs."""
    date: datetime.date | None = None
    """The night under which `trend` counts what a run adds, such as ${DATE}. Default: the day on
    which the run begins (UTC).
    """
    input: Input
    output: Output
    policies: list[str] = Field(min_length=1)
    """Policy folders."""
    model: Model = Model()
    cascade: list[
        Annotated[
            Step,
            BeforeValidator(
                _step, json_schema_input_type=Literal["rules", "glance", "reason"] | Step
            ),
        ]
    ] = Field(default_factory=lambda: [Step(reason=ReasonArgs())], min_length=1)
    """Judges in order of cost, each settling what it is sure of: rules, screens, glance, reason.
    The last settles the rest.
    """
    windows: Windows = Windows()
    unit: UnitSize = UnitSize()
    limits: Limits = Limits()
    audit: float = Field(default=0.0, ge=0, le=1)
    """Share of what earlier judges settled, chosen by hash, that the last one judges too: every run
    measures its own misses.
    """
    reuse: list[str] = Field(default_factory=list)
    """Earlier outputs whose verdicts are taken where content and judge are the same; or a glob of
    them, such as labels/date=*.
    """
    filter: Filter | None = None
    alarms: Alarms = Alarms()
    storage: dict[str, Any] = Field(default_factory=dict)
    """fsspec options of stores that are not local, for all of them or by protocol; secrets belong
    in the environment.
    """

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @field_validator("cascade")
    @classmethod
    def _in_order(cls, steps: list[Step]) -> list[Step]:
        names = [step.judge for step in steps]
        if names != sorted(names, key=JUDGES.index):
            raise ValueError(f"judges stand in order of cost: {', '.join(JUDGES)}")
        if twice := [name for name in ("rules", "reason") if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} stands twice")
        glances = [step.glance for step in steps if step.glance is not None]
        if len(glances) > 1 and any(glance.path is None for glance in glances):
            raise ValueError(
                "glance stands twice; more than one is for calibrated bands (path), one for each "
                "policy"
            )
        last = steps[-1]
        if last.reason is None and (
            last.glance is None or last.glance.model_dump(exclude_defaults=True)
        ):
            raise ValueError(
                "the last judge settles what the others pass on: reason, or glance without "
                "below, above and path"
            )
        if any(
            step.glance is not None and not step.glance.model_dump(exclude_defaults=True)
            for step in steps[:-1]
        ):
            raise ValueError(
                "glance before another judge needs below, above or path: without them it settles "
                "everything"
            )
        return steps

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A problem at the line of a dotted key."""
        return self._origin.problem(key, message, hint)


def job_schema() -> dict[str, Any]:
    """The JSON Schema of a job file, for editors."""
    return Job.model_json_schema()
