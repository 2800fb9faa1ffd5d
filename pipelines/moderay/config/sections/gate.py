"""`gate:` how good a policy must be on its golden set before the corpus is judged."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from moderay.config.sections.base import Section

# Names the floors of every policy.
ALL_POLICIES = "golden"

Share = Annotated[float, Field(gt=0, lt=1)]


class Floors(Section):
    """What the lower ends of exact 95% intervals must reach; a run ends where one does not."""

    recall: Share | None = None
    """Of the golden cases that violate, the share that is found. Null under a policy's id: none for
    this policy.
    """
    precision: Share | None = None
    """Of the golden cases that are found to violate, the share that does. Null as above."""

    @model_validator(mode="after")
    def _some(self) -> Floors:
        if not self.model_fields_set:
            raise ValueError("no floor in it, such as {recall: 0.9}")
        return self
