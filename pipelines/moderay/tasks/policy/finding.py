"""What is doubtful in a policy: a file, a line, a code that stays, what is wrong, what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from moderay.core.errors import Problem


class Code(StrEnum):
    """Of each kind of finding; docs/policies.md has what they mean and why they matter."""

    FILL_IN = "POL001"
    GOLDEN_NONE = "POL002"
    SECTION_MISSING = "POL101"
    SECTION_EMPTY = "POL102"
    LENGTH = "POL103"
    LABEL_UNDEFINED = "POL201"
    LABEL_UNEXAMPLED = "POL202"
    LABEL_EARLY = "POL203"
    LABELS_BEGIN_ALIKE = "POL204"
    VAGUE = "POL301"
    ANSWER_FORMAT = "POL302"
    CONTROL_TOKEN = "POL303"
    GOLDEN_FEW = "POL401"
    GOLDEN_NO_CASE = "POL402"
    GOLDEN_ONE_SIDED = "POL403"
    GOLDEN_TWICE = "POL404"
    GOLDEN_ALIKE = "POL405"
    GOLDEN_CONTRADICTS = "POL406"
    EXAMPLE_GIVES_AWAY = "POL407"
    EXAMPLE_CONTRADICTS = "POL408"
    POLICIES_OVERLAP = "POL501"
    POLICIES_DISAGREE = "POL502"

    @property
    def is_to_do(self) -> bool:
        """Whether it is what a policy that was begun waits for, and nothing that is wrong."""
        return self in {Code.FILL_IN, Code.GOLDEN_NONE}


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is doubtful, which does not keep the policy from being used.

    Attributes:
        file: `policy.md` or `golden.jsonl` of a policy.
        line: Counts from 1; 1 where it is of the whole file.
        code: Of its kind.
        message: What was found.
        hint: What to do, where the message does not say it.
    """

    file: str
    line: int
    code: Code
    message: str
    hint: str

    def __str__(self) -> str:
        """`file:line: code message`, and the hint on a line of its own."""
        return str(Problem(self.file, self.line, f"{self.code} {self.message}", self.hint))

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)
