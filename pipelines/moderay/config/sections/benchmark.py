"""`benchmark:` a public set, and what others measured on it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from moderay.config.sections.base import Section


class Published(Section):
    """A figure that others published, for `eval` to set beside ours."""

    figure: Literal[
        "precision",
        "recall",
        "f1",
        "false_positive_rate",
        "accuracy",
        "balanced_accuracy",
        "average_precision",
        "roc_auc",
        "labels_right",
        "policies_right",
    ]
    """Which one. `labels_right`: the share of rows with the very label of the gold;
    `policies_right`: the share of rows on which every policy is right.
    """
    policy: str | None = None
    """Under which policy. Default: the job's only one; of several, whether any of them is violated.
    """
    at_or_above: str | None = None
    """A label of the policy: as if this one and graver ones violated, and the others did not."""
    value: float = Field(ge=0, le=1)
    """The figure, from 0 to 1."""
    model: str = Field(min_length=1)
    """Whose figure it is."""
    source: str = Field(min_length=1)
    """Where it is published."""
    comparable: bool = True
    """Whether it is of the same rows; one that is not stands below the table, not beside ours."""
    note: str = ""
    """What is not known of how it was measured, or why it does not compare."""

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if not self.comparable and not self.note:
            raise ValueError("say in note why it is not comparable")
        return self


class Benchmark(Section):
    """A public set with people's labels, and the figures that others published of it."""

    source: str = Field(min_length=1)
    """Where the set is published."""
    by: list[str] = Field(default_factory=list)
    """Columns of the input: figures for each of their values, as with `eval --by`."""
    published: list[Published] = Field(default_factory=list)
    """Figures of others on it. None: nobody published one that can be cited."""
