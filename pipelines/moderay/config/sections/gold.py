"""`gold:` what people said of the input's rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from moderay.config.sections.base import Section

# What a value may stand for beside a label of the policy, and whether it violates.
SIDES = {"safe": False, "violates": True}


def _texts(values: object) -> object:
    """Keys as text: YAML reads 0 and true as what they are."""
    if not isinstance(values, dict):
        return values
    texts = {True: "true", False: "false"}
    return {
        texts[key] if isinstance(key, bool) else str(key): value for key, value in values.items()
    }


class Gold(Section):
    """What people said under one policy; in short, the name of a column."""

    column: str = Field(min_length=1)
    """Of the input: true or false, 1 or 0, or a label of the policy; null is unknown. A list holds
    the votes of several people, in the same places in every row. Or a condition, such as class < 2.
    """
    values: Annotated[dict[str, str] | None, BeforeValidator(_texts)] = None
    """What other values of the column stand for: violates, safe, or a label of the policy."""


# In place of a column: what people said in reviews of the output. A column of this name is
# `{column: reviews}`.
REVIEWS: Literal["reviews"] = "reviews"


def _column(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) and value != REVIEWS else value


def _kind(value: Any) -> str:
    return REVIEWS if value == REVIEWS else "in the input"


# Of a job: a column of the input, a condition, or reviews of the output.
GoldSource = Annotated[
    Annotated[Gold, Tag("in the input")] | Annotated[Literal["reviews"], Tag(REVIEWS)],
    Discriminator(_kind),
    BeforeValidator(_column, json_schema_input_type=str | Gold),
]
