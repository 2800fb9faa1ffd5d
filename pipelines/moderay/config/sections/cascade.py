"""`cascade:` the judges, in order of cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from moderay.config.paths import JobPath
from moderay.config.sections.base import Section

# In order of cost.
JUDGES = ("rules", "screen", "glance", "reason")


class RulesArgs(Section):
    """Each policy's rules.yaml, where it has one."""


class ScreenArgs(Section):
    """A light classifier, made by `moderay calibrate`, for the policy that its card names."""

    path: JobPath
    """Its folder."""
    cut_off: float | None = None
    """A lower cut-off than its card's, in log-odds, as `tune` finds it: it settles, and misses,
    fewer contents. Default: the card's.
    """
    force: bool = False
    """Use it although its card names another policy text or model. Default: no, since its promise
    does not hold then.
    """


class GlanceArgs(Section):
    """The safeguard without its reasoning; sure of what lies outside a band of P(violates).

    Without any key it is sure of everything, and the last judge.
    """

    below: float | None = Field(default=None, ge=0, le=1)
    """Settles contents with a lower P."""
    above: float | None = Field(default=None, ge=0, le=1)
    """Settles contents with a higher P: only where flagged rows without a rationale are wanted."""
    path: JobPath | None = None
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

    @property
    def is_bare(self) -> bool:
        """Whether it has no band, and so settles everything."""
        return not self.model_dump(exclude_defaults=True)


def _listed(value: object) -> object:
    """One folder for a list of one."""
    return [value] if isinstance(value, str) else value


class ReasonArgs(Section):
    """The safeguard with its reasoning."""

    budget: int = Field(default=512, ge=1)
    """Tokens of reasoning before the verdict is asked for. OpenAI's guide advises a lower effort
    before a cap.
    """
    calibration: Annotated[
        list[JobPath], BeforeValidator(_listed, json_schema_input_type=str | list[str])
    ] = Field(default_factory=list)
    """Folders made by `moderay calibrate --judge reason`, each for the policy that its card names:
    how P is read when it is decided. Another one decides anew, and judges nothing.
    """


def _folder(value: object) -> object:
    """A folder for `path: FOLDER`."""
    return {"path": value} if isinstance(value, str) else value


class Step(Section):
    """One judge of the cascade.

    `rules`, `screen: FOLDER`, `glance: {below: 0.02}`, or `reason: {budget: 512}`.
    """

    rules: RulesArgs | None = None
    """Patterns that settle the obvious: each policy's rules.yaml."""
    screen: Annotated[
        ScreenArgs | None, BeforeValidator(_folder, json_schema_input_type=str | ScreenArgs)
    ] = None
    """A calibrated classifier: its folder."""
    glance: Annotated[
        GlanceArgs | None, BeforeValidator(_folder, json_schema_input_type=str | GlanceArgs)
    ] = None
    """The safeguard without its reasoning: its band, or the folder of a calibrated one."""
    reason: ReasonArgs | None = None
    """The safeguard with its reasoning."""

    @model_validator(mode="after")
    def _one(self) -> Step:
        if sum(getattr(self, name) is not None for name in JUDGES) != 1:
            raise ValueError(f"a step is one judge: {', '.join(JUDGES)}")
        return self

    @property
    def judge(self) -> str:
        """The judge's name."""
        return next(name for name in JUDGES if getattr(self, name) is not None)


def _step(value: object) -> object:
    """`rules` for `rules: {}`; a judge without arguments may also stand as a key without value."""
    if isinstance(value, str) and value not in JUDGES:
        raise ValueError(f"no such judge; valid: {', '.join(JUDGES)}")
    if isinstance(value, str):
        return {value: {}}
    if not isinstance(value, dict):
        return value
    return {name: {} if name in JUDGES and args is None else args for name, args in value.items()}


def _in_order(steps: list[Step]) -> list[Step]:
    names = [step.judge for step in steps]
    if names != sorted(names, key=JUDGES.index):
        raise ValueError(f"judges stand in order of cost: {', '.join(JUDGES)}")
    if twice := [name for name in ("rules", "reason") if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} stands twice")
    glances = [step.glance for step in steps if step.glance is not None]
    if len(glances) > 1 and any(glance.path is None for glance in glances):
        raise ValueError(
            "glance stands twice; more than one is for calibrated bands (path), one for each policy"
        )
    last = steps[-1]
    if last.reason is None and (last.glance is None or not last.glance.is_bare):
        raise ValueError(
            "the last judge settles what the others pass on: reason, or glance without "
            "below, above and path"
        )
    if any(step.glance is not None and step.glance.is_bare for step in steps[:-1]):
        raise ValueError(
            "glance before another judge needs below, above or path: without them it settles "
            "everything"
        )
    return steps


_AnyStep = Annotated[
    Step, BeforeValidator(_step, json_schema_input_type=Literal["rules", "glance", "reason"] | Step)
]
Steps = Annotated[list[_AnyStep], Field(min_length=1), AfterValidator(_in_order)]
