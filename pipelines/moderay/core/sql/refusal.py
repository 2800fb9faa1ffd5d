"""Why an expression is not evaluated."""

from __future__ import annotations

from moderay.core.errors import UserError

EACH_ROW = "it must be true or false for each row by itself, whatever rows are read with it"


class SqlRefusedError(UserError):
    """An expression that is no condition on one row, or is not allowed to be one.

    Attributes:
        reason: What is wrong.
        hint: What to do.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        """As the attributes."""
        super().__init__(f"{reason}: {hint}" if hint else reason)
        self.reason = reason
        self.hint = hint
